"""Fine-tune language models on phones: layer-cyclic training graphs over int4 weights.

The functions behind the command line, under one name: `lcsb_mobile.simulate(lcsb_mobile.SimulateOptions(…))`. Each is imported when it is
first asked for, so that the device half imports no torch. docs/api.md has an example. (`lcsb_mobile.export` is the package of the export
half; what `lcsb export` does is `export_bundle`.)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcsb_mobile.adapters.merge_options import MergeOptions
    from lcsb_mobile.adapters.peft import export_peft, import_peft
    from lcsb_mobile.bundle.adapter import load_adapter
    from lcsb_mobile.bundle.directory import Bundle, open_bundle
    from lcsb_mobile.bundle.export_options import ExportOptions
    from lcsb_mobile.bundle.schedule import ScheduleConfig, Subset
    from lcsb_mobile.config import AdamWConfig, LoraConfig, QuantizationConfig
    from lcsb_mobile.data.token_report import report_tokens
    from lcsb_mobile.errors import LcsbError
    from lcsb_mobile.export.bundle import export_bundle
    from lcsb_mobile.export.merge import merge
    from lcsb_mobile.generation.generate import Chat, generate
    from lcsb_mobile.generation.sampling import SamplingConfig
    from lcsb_mobile.planning.inspection import inspect_bundle
    from lcsb_mobile.report.run import write_run_report
    from lcsb_mobile.runners import make_runner
    from lcsb_mobile.runs.compare import CompareOptions, Comparison, compare
    from lcsb_mobile.runs.setup import Observer, SimulateOptions
    from lcsb_mobile.runs.simulate import Simulation, simulate
    from lcsb_mobile.runs.verdict import Verdict, judge
    from lcsb_mobile.runs.verify import verify

__version__ = "0.1.0"

# Name -> the module below this package that has it.
_HOMES = {
    "AdamWConfig": "config",
    "Bundle": "bundle.directory",
    "Chat": "generation.generate",
    "CompareOptions": "runs.compare",
    "Comparison": "runs.compare",
    "ExportOptions": "bundle.export_options",
    "LcsbError": "errors",
    "LoraConfig": "config",
    "MergeOptions": "adapters.merge_options",
    "Observer": "runs.setup",
    "QuantizationConfig": "config",
    "SamplingConfig": "generation.sampling",
    "ScheduleConfig": "bundle.schedule",
    "SimulateOptions": "runs.setup",
    "Simulation": "runs.simulate",
    "Subset": "bundle.schedule",
    "Verdict": "runs.verdict",
    "compare": "runs.compare",
    "export_bundle": "export.bundle",
    "export_peft": "adapters.peft",
    "generate": "generation.generate",
    "import_peft": "adapters.peft",
    "inspect_bundle": "planning.inspection",
    "judge": "runs.verdict",
    "load_adapter": "bundle.adapter",
    "make_runner": "runners",
    "merge": "export.merge",
    "open_bundle": "bundle.directory",
    "report_tokens": "data.token_report",
    "simulate": "runs.simulate",
    "verify": "runs.verify",
    "write_run_report": "report.run",
}

__all__ = [
    "AdamWConfig",
    "Bundle",
    "Chat",
    "CompareOptions",
    "Comparison",
    "ExportOptions",
    "LcsbError",
    "LoraConfig",
    "MergeOptions",
    "Observer",
    "QuantizationConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "SimulateOptions",
    "Simulation",
    "Subset",
    "Verdict",
    "__version__",
    "compare",
    "export_bundle",
    "export_peft",
    "generate",
    "import_peft",
    "inspect_bundle",
    "judge",
    "load_adapter",
    "make_runner",
    "merge",
    "open_bundle",
    "report_tokens",
    "simulate",
    "verify",
    "write_run_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

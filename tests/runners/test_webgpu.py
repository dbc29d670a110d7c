"""The choice of ONNX Runtime's WebGPU provider, on stand-ins for the plugin: no GPU was at hand, and the package is none of the tests'."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from helpers.bundles import RandomBundle, lcsb_error

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.errors import MissingDependencyError, OptionError
from lcsb_mobile.runners import make_runner, onnxruntime, webgpu
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import OnnxRuntime, Program
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.targets import Provider

NAME = "WebGpuExecutionProvider"


class Plugged:
    """As much of ONNX Runtime as knows plugins. `found`: the names of the providers of the devices that registering brings."""

    __version__ = "1.32.0"

    def __init__(self, *found: str) -> None:
        self._found, self._devices = found, [SimpleNamespace(ep_name="CPUExecutionProvider")]
        self.registered: list[tuple[str, str]] = []

    def get_ep_devices(self) -> list[Any]:
        return self._devices

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))
        self._devices += [SimpleNamespace(ep_name=name) for name in self._found]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SimpleNamespace(get_ep_name=lambda: NAME, get_library_path=lambda: "/plugin.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", plugin)


@pytest.mark.usefixtures("plugin")
def test_the_plugin_is_registered_once() -> None:
    ort = Plugged(NAME)
    assert webgpu.find_gpu(ort).ep_name == webgpu.find_gpu(ort).ep_name == NAME
    assert ort.registered == [("webgpu", "/plugin.so")]


@pytest.mark.usefixtures("plugin")
def test_what_it_runs_on_is_not_here() -> None:
    with pytest.raises(MissingDependencyError, match=r"found no GPU; on Linux it needs Vulkan"):
        webgpu.find_gpu(Plugged())
    with pytest.raises(MissingDependencyError, match=r"onnxruntime 1.19.2 does not take its plugin: .*; expected onnxruntime 1.24.4"):
        webgpu.find_gpu(SimpleNamespace(__version__="1.19.2"))


def test_the_plugin_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", None)
    with pytest.raises(MissingDependencyError, match=r"webgpu needs onnxruntime-ep-webgpu .* -m pip install onnxruntime-ep-webgpu"):
        webgpu.find_gpu(Plugged(NAME))


def test_programs_for_the_cpu_are_refused(random_bundle: RandomBundle, messages: Path) -> None:
    for verb in (("verify",), ("simulate", "--data", messages, "--steps", 1)):
        line = lcsb_error(2, verb[0], random_bundle.bundle, *verb[1:], "--provider", "webgpu")
        assert "provider webgpu runs programs for a GPU, found programs for the CPU; export with --programs gpu" in line


def test_the_memory_of_a_gpu_is_not_predicted(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webgpu, "make_runner", onnxruntime.make_runner)
    options = SimulateOptions(random_bundle.bundle, messages, steps=1, adapter=tmp_path / "adapter.safetensors", prompts=())
    results = [simulate(replace(options, provider=provider, force=True)).result for provider in get_args(Provider)]
    assert [result.predicted_peak_anonymous_bytes is None for result in results] == [False, True]


def test_other_runners_have_no_providers(random_bundle: RandomBundle) -> None:
    bundle = Bundle.open(random_bundle.bundle)
    for name, provider in (("eager", "webgpu"), (None, "npu")):
        found = f"found '{provider}' with runner {name or 'onnxruntime'}"
        with pytest.raises(OptionError, match=f"provider: expected one of cpu, webgpu, .*, {found}"):
            make_runner(bundle, name, provider=provider)  # type: ignore[arg-type] # the second is none


def test_every_program_is_on_the_gpu(random_bundle: RandomBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in that computes on the CPU what is asked of the GPU."""
    devices: dict[str, Any] = {}

    class Recorded(Program):
        def __init__(self, *arguments: Any) -> None:
            devices[arguments[2]] = arguments[-1]
            super().__init__(*arguments[:-1])

    monkeypatch.setattr(onnxruntime, "Program", Recorded)
    bundle, gpu = Bundle.open(random_bundle.bundle), SimpleNamespace(ep_name=NAME)
    runner = BlockRunner(bundle, OnnxRuntime(bundle, 1, gpu=gpu), keep=1)
    assert re.fullmatch(rf"\d+\.\d+\.\d+ \({NAME}\)", runner.version)
    trace, adapter = read_trace(bundle.golden_path), bundle.initial_adapter()
    runner.step(trace.run[0].subset, trace.batches[trace.run[0].batch].batch(), adapter)
    runner.evaluate(trace.batches[0].batch(), adapter)
    runner.decoder(adapter).start([4, 5, 6])
    assert {"embed", "head", "head_eval", "logits", "block_forward", "block_prefill"} <= devices.keys()
    assert all(device is gpu for device in devices.values())


def test_nothing_falls_back_to_the_cpu_in_silence(random_bundle: RandomBundle) -> None:
    asked: list[tuple[object, ...]] = []
    options = SimpleNamespace(
        add_session_config_entry=lambda *entry: asked.append(entry),
        add_provider_for_devices=lambda *provider: asked.append(provider),
    )
    bundle, gpu = Bundle.open(random_bundle.bundle), SimpleNamespace(ep_name=NAME)
    program = Program(onnxruntime.import_runtime(), bundle, "block_forward", 1)
    assert program._providers(options) == ["CPUExecutionProvider"] and not asked
    program._gpu = gpu
    assert program._providers(options) is None
    assert asked == [("session.disable_cpu_ep_fallback", "1"), ([gpu], {})]

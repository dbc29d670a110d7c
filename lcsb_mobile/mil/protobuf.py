"""coremltools' protobuf classes, without coremltools: importing that imports torch where it is installed, and takes seconds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.installing import how_to_install

NAME = "_lcsb_coremltools_proto"  # under which the package's folder of classes is imported


def protobuf(module: str) -> Any:
    """Such as `Model_pb2`. Raises MissingDependencyError."""
    try:
        if NAME not in sys.modules:
            found = importlib.util.find_spec("coremltools")  # executes nothing
            if found is None or found.origin is None:
                raise ModuleNotFoundError("No module named 'coremltools'")
            folder = Path(found.origin).parent / "proto"
            spec = importlib.util.spec_from_file_location(NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
            assert spec is not None and spec.loader is not None
            package = sys.modules[NAME] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(package)
        return importlib.import_module(f"{NAME}.{module}")
    except (ImportError, OSError) as error:
        sys.modules.pop(NAME, None)
        raise MissingDependencyError(
            f"packages of Core ML are read with the classes of coremltools ({error}); {how_to_install('coreml')}"
        ) from error

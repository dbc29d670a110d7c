"""ONNX Runtime's WebGPU provider on a desktop: a plugin, the package `onnxruntime-ep-webgpu`, beside ONNX Runtime 1.24.4 or newer.

It runs the programs of a step and of a text, which an export for GPUs writes for it (docs/onnxruntime.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.weights import stored_for
from lcsb_mobile.errors import BundleError, MissingDependencyError
from lcsb_mobile.installing import pip_install
from lcsb_mobile.io.bounded import one_line
from lcsb_mobile.runners.block_programs import check_target
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import TARGET, OnnxRuntime, import_runtime

PACKAGE = "onnxruntime-ep-webgpu"
REGISTERED = "webgpu"  # what ONNX Runtime knows the plugin's library by


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> BlockRunner:
    """Raises BundleError for a bundle whose programs are not for a GPU, MissingDependencyError without the plugin or what it runs on."""
    check_target(bundle, TARGET)
    if stored_for(bundle.manifest.weights) != "gpu":
        raise BundleError(f"{bundle.path}: provider webgpu runs programs for a GPU, found programs for the CPU; export with --programs gpu")
    return BlockRunner(bundle, OnnxRuntime(bundle, threads, gpu=find_gpu(import_runtime())), keep, between_layers)


def find_gpu(ort: Any) -> Any:
    """The plugin's device, of which it offers one: which GPU that is, it chooses. Raises MissingDependencyError."""
    try:
        import onnxruntime_ep_webgpu as plugin
    except ImportError as error:
        raise MissingDependencyError(f"provider webgpu needs {PACKAGE} ({error}); install it with: {pip_install(PACKAGE)}") from error
    name = plugin.get_ep_name()
    try:
        if not _devices(ort, name):  # a library is registered once
            ort.register_execution_provider_library(REGISTERED, plugin.get_library_path())
        found = _devices(ort, name)
    except Exception as error:  # the runtime's exceptions share no class of their own; an older one has no plugins
        needed = f"provider webgpu: onnxruntime {ort.__version__} does not take its plugin: {one_line(error)}"
        raise MissingDependencyError(f"{needed}; expected onnxruntime 1.24.4 or newer") from error
    if not found:
        raise MissingDependencyError(
            "provider webgpu: its plugin found no GPU; on Linux it needs Vulkan (libvulkan.so.1) and a driver; "
            "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 lets it take a driver that computes on the CPU"
        )
    return found[0]


def _devices(ort: Any, name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]

"""Steps on ONNX Runtime's on-device training API, through its unmodified Module, Optimizer and CheckpointState."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lcsb_mobile.batch import Batch, Float32Array, StepResult
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.decoding import WholeSequenceDecoder
from lcsb_mobile.errors import BundleError, MissingDependencyError
from lcsb_mobile.memory import trim_heap
from lcsb_mobile.runners.sessions import session_options
from lcsb_mobile.schedule import Subset

TARGET = "onnxruntime-training"
PARAMETER = "adapter"


def import_runtime() -> tuple[Any, Any]:
    """(onnxruntime, onnxruntime.training.api). The latter imports torch by itself."""
    try:
        import onnxruntime
        from onnxruntime.training import api
    except ImportError as error:
        raise MissingDependencyError(
            f"target {TARGET} needs onnxruntime-training 1.19.2 ({error}); install it with: pip install 'lcsb_mobile[{TARGET}]'"
        ) from error
    return onnxruntime, api


class OnnxRuntimeTrainingRunner:
    """A StepRunner whose gradients come from `Module`; the adapter is copied into its one parameter before each step."""

    name = TARGET

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        if bundle.manifest.target != TARGET:
            raise BundleError(
                f"{bundle.path}: expected a bundle of target {TARGET}, found {bundle.manifest.target}; export one with --target {TARGET}"
            )
        self.ort, self.api = import_runtime()
        self.version = self.ort.__version__
        self.bundle = bundle
        self.options = session_options(self.ort, bundle.manifest.runtime, threads)
        self.state = self.api.CheckpointState.load_checkpoint(bundle.path / "checkpoint")
        self.module = self.api.Module(
            bundle.path / "training_model.onnx", self.state, bundle.path / "eval_model.onnx", session_options=self.options
        )

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(adapter.shape[0])
        self._set_adapter(adapter)
        self.module.train()
        self.module.lazy_reset_grad()
        loss = self.module(*batch_inputs(batch), *subset_inputs(subset, adapter.shape[0]))
        gradients = self.state.parameters[PARAMETER].grad
        trim_heap()
        return StepResult(float(loss), {layer: gradients[layer] for layer in subset.train})

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        self._set_adapter(adapter)
        self.module.eval()
        loss = float(self.module(*batch_inputs(batch)))
        trim_heap()
        return loss

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        feeds = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "segment_ids": batch.segment_ids,
            "position": np.array([position], np.int64),
            "adapter": adapter,
        }
        logits: Float32Array = self._logits_session.run(["logits"], feeds)[0]
        return logits

    def decoder(self, adapter: Float32Array) -> WholeSequenceDecoder:
        seq_len = self.bundle.manifest.seq_len
        return WholeSequenceDecoder(lambda batch, position: self.next_logits(batch, position, adapter), seq_len)

    def official_losses(self, subsets: Sequence[Subset], batches: Sequence[Batch], learning_rate: float) -> list[float]:
        """The losses of whole steps by the official loop alone, from the bundle's checkpoint: Module, then Optimizer."""
        state = self.api.CheckpointState.load_checkpoint(self.bundle.path / "checkpoint")
        module = self.api.Module(self.bundle.path / "training_model.onnx", state, session_options=self.options)
        optimizer = self.api.Optimizer(self.bundle.path / "optimizer_model.onnx", module)
        optimizer.set_learning_rate(learning_rate)
        losses: list[float] = []
        for subset, batch in zip(subsets, batches, strict=True):
            module.train()
            losses.append(float(module(*batch_inputs(batch), *subset_inputs(subset, self.bundle.manifest.adapter.num_layers))))
            optimizer.step()
            module.lazy_reset_grad()
        return losses

    def _set_adapter(self, adapter: Float32Array) -> None:
        self.state.parameters[PARAMETER].data = adapter

    @cached_property
    def _logits_session(self) -> Any:
        return self.ort.InferenceSession(self.bundle.path / "logits_model.onnx", self.options, providers=["CPUExecutionProvider"])


def batch_inputs(batch: Batch) -> tuple[np.ndarray, ...]:
    return batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids


def subset_inputs(subset: Subset, num_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """`train` and `propagate` as bool [L]."""
    train, propagate = np.zeros(num_layers, np.bool_), np.zeros(num_layers, np.bool_)
    train[list(subset.train)] = True
    propagate[list(subset.propagate)] = True
    return train, propagate

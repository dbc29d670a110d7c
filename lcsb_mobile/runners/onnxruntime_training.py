"""Steps on ONNX Runtime's on-device training API, through its unmodified Module, Optimizer and CheckpointState."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import BundleError, MissingDependencyError, RunFailure
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import refused_as
from lcsb_mobile.io.ort_checkpoint import check_checkpoint
from lcsb_mobile.measuring.memory import trim_heap
from lcsb_mobile.runners.decoding import WholeSequenceDecoder
from lcsb_mobile.runners.sessions import check_signature, program_path, session_options
from lcsb_mobile.targets import CHECKPOINT_FILE

TARGET = "onnxruntime-training"
PARAMETER = "adapter"
BATCH_INPUTS = ("input_ids", "labels", "position_ids", "segment_ids")
TRAINING_INPUTS = (*BATCH_INPUTS, "train", "propagate")


def import_runtime() -> tuple[Any, Any]:
    """(onnxruntime, onnxruntime.training.api). The latter imports torch by itself."""
    try:
        import onnxruntime
        from onnxruntime.training import api
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs onnxruntime-training 1.19.2 ({error}); {how_to_install(TARGET)}") from error
    return onnxruntime, api


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> OnnxRuntimeTrainingRunner:
    return OnnxRuntimeTrainingRunner(bundle, threads)


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
        self.bundle, self.layers = bundle, len(bundle.manifest.layers)
        self.options = session_options(self.ort, bundle.manifest.runtime, threads)
        self.state = self._load_checkpoint()
        training, evaluation = (program_path(bundle, name, None) for name in ("training_model", "eval_model"))
        with refused_as(BundleError, f"{bundle.path}: the programs cannot be loaded"):
            self.module = self.api.Module(training, self.state, evaluation, session_options=self.options)
            for train, expected in ((True, TRAINING_INPUTS), (False, BATCH_INPUTS)):
                self.module.train(train)
                if (found := tuple(self.module.input_names())) != expected:
                    raise BundleError(f"{bundle.path}: expected programs that take {expected}, found {found}; export the bundle again")

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.layers)
        with self._running():
            self._set_adapter(adapter)
            self.module.train()
            self.module.lazy_reset_grad()
            loss = float(self.module(*batch_inputs(batch), *subset_inputs(subset, self.layers)))
            gradients = self.state.parameters[PARAMETER].grad
        trim_heap()
        return StepResult(loss, {layer: gradients[layer] for layer in subset.train})

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        with self._running():
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
            "adapter": adapter.reshape(self.layers, -1),
        }
        session = self._logits_session
        with self._running():
            logits: Float32Array = session.run(["logits"], feeds)[0]
        return logits

    def decoder(self, adapter: Float32Array) -> WholeSequenceDecoder:
        seq_len = self.bundle.manifest.seq_len
        return WholeSequenceDecoder(lambda batch, position: self.next_logits(batch, position, adapter), seq_len)

    def official_losses(self, subsets: Sequence[Subset], batches: Sequence[Batch], learning_rate: float) -> list[float]:
        """The losses of whole steps by the official loop alone, from the bundle's checkpoint: Module, then Optimizer."""
        state = self._load_checkpoint()
        training, update = (program_path(self.bundle, name, None) for name in ("training_model", "optimizer_model"))
        losses: list[float] = []
        with self._running():
            module = self.api.Module(training, state, session_options=self.options)
            optimizer = self.api.Optimizer(update, module)
            optimizer.set_learning_rate(learning_rate)
            for subset, batch in zip(subsets, batches, strict=True):
                module.train()
                losses.append(float(module(*batch_inputs(batch), *subset_inputs(subset, self.layers))))
                optimizer.step()
                module.lazy_reset_grad()
        return losses

    def _set_adapter(self, adapter: Float32Array) -> None:
        self.state.parameters[PARAMETER].data = adapter.reshape(self.layers, -1)

    def _load_checkpoint(self) -> Any:
        path = self.bundle.path / CHECKPOINT_FILE
        check_checkpoint(path, PARAMETER, (self.layers, self.bundle.manifest.kinds[0].size))
        with refused_as(BundleError, f"{path}: cannot be loaded"):
            return self.api.CheckpointState.load_checkpoint(path)

    def _running(self) -> AbstractContextManager[None]:
        return refused_as(RunFailure, f"{self.bundle.path}: onnxruntime-training {self.version} cannot run its programs")

    @cached_property
    def _logits_session(self) -> Any:
        path = program_path(self.bundle, "logits_model", None)
        with refused_as(BundleError, f"{path}: cannot be loaded"):
            session = self.ort.InferenceSession(path, self.options, providers=["CPUExecutionProvider"])
        check_signature(session, self.bundle.manifest.graphs["logits_model"], path)
        return session


def batch_inputs(batch: Batch) -> tuple[np.ndarray, ...]:
    return batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids


def subset_inputs(subset: Subset, num_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """`train` and `propagate` as bool [L]."""
    train, propagate = np.zeros(num_layers, np.bool_), np.zeros(num_layers, np.bool_)
    train[list(subset.train)] = True
    propagate[list(subset.propagate)] = True
    return train, propagate

"""The part of a run that one process makes: steps, evaluations, text samples, checkpoints, and the adapter, however the run ends.

What is kept was seen to give a finite loss: the state before an update is known to, by the loss that the update was computed from, so it
is copied to a second mapped file before the update is made, and checkpoints are written then.
"""

from __future__ import annotations

import itertools
import math
from contextlib import suppress

import numpy as np

from lcsb_mobile.bundle.adapter import save_adapter
from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.data.packing import epochs
from lcsb_mobile.errors import LcsbError, NonFiniteLossError, StorageError
from lcsb_mobile.generation.generate import continue_prompt
from lcsb_mobile.measuring.memory import MemorySampler
from lcsb_mobile.runners import layer_update
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunPlace
from lcsb_mobile.runs.directory import RunDirectory
from lcsb_mobile.runs.setup import Observer, Run, Sample, stop_above_budget
from lcsb_mobile.training.interrupts import Interrupts, uninterrupted
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.state import AdapterState
from lcsb_mobile.training.trainer import StepOutcome, Trainer, evaluate

EVALUATING, STEPS, WRITING, SAVING = "evaluation", "gradients", "text samples", "checkpoints"


def enter(phase: str, sampler: MemorySampler, observer: Observer) -> None:
    sampler.mark(phase)
    observer.phase(phase)


class Session:
    """`kept`: room for the state that was last seen to give a finite loss, when `state` is a later one. Where steps are taken back, so are
    the run's records of them."""

    def __init__(
        self,
        run: Run,
        runner: StepRunner,
        state: AdapterState,
        kept: AdapterState,
        kept_layers: int,
        directory: RunDirectory | None,
        sampler: MemorySampler,
        observer: Observer,
        interrupts: Interrupts,
    ) -> None:
        self.run, self.runner, self.state, self.kept, self.kept_layers = run, runner, state, kept, kept_layers
        self.directory, self.sampler, self.observer, self.interrupts = directory, sampler, observer, interrupts
        moments = state.first_moment, state.second_moment
        self.optimizer = AdamW(
            state.adapter, run.bundle.manifest.adapter.slices, run.bundle.manifest.optimizer, layer_update(runner), moments
        )
        self.trainer = Trainer(runner, run.schedule, self.optimizer, run.train, self._record, self._accept)
        self.saved: int | None = None  # the step of the newest checkpoint
        self.seen = True  # `state` has given a finite loss: what the run begins with is evaluated first
        self.kept_step: int | None = None  # of `kept`, once there is one
        self.kept_updates = self.optimizer.updates.copy()

    def train(self, checkpoint: RunCheckpoint | None) -> None:
        """From `checkpoint`, or the beginning, to the last step and the adapter's file."""
        run = self.run
        before = self._continue_prompts()
        if checkpoint is None:
            self._evaluate(0)
            self._save()
        else:
            self._restore(checkpoint)
        try:
            self._evaluate_if_due()  # the process before was interrupted within it
            self._save()
            self._steps()
            self._write_adapter()
        except BaseException as error:
            with uninterrupted():
                left = self._leave(error)
            if isinstance(error, LcsbError):
                raise type(error)(f"{error}; {left}") from error
            raise
        after = self._continue_prompts()
        run.samples.extend(Sample(prompt, *texts) for prompt, texts in zip(run.options.prompts, zip(before, after)))

    def _steps(self) -> None:
        run, options, tokenizer = self.run, self.run.options, self.run.bundle.tokenizer
        done = len(run.outcomes)
        start = done * options.accumulation
        batches = epochs(run.examples, run.bundle.manifest.seq_len, tokenizer.pad_id, options.seed, start)
        for number in range(done, options.steps):
            self.interrupts.check()
            enter(STEPS, self.sampler, self.observer)
            outcome = self.trainer.step(number, list(itertools.islice(batches, options.accumulation)))
            stop_above_budget(self.sampler, options.memory_budget, outcome.step)
            self._evaluate_if_due()
            if self.seen:
                self._save_if_due()

    # What is kept

    def _accept(self) -> None:
        """Before an update: the state has given a finite loss, and is kept as it is."""
        self.seen = True
        self._save_if_due()
        self.kept.copy_from(self.state)
        self.kept_updates[:], self.kept_step = self.optimizer.updates, len(self.run.outcomes)
        self.seen = False

    def _leave(self, error: BaseException) -> str:
        """Leaves the last state that was seen to give a finite loss, and says where. Whoever was interrupted has the time for one more
        look at the newest. Raises StorageError where an interrupted run's state cannot be saved."""
        if isinstance(error, KeyboardInterrupt) and not self.seen:
            with suppress(Exception):
                self.seen = math.isfinite(evaluate(self.runner, self.run.evaluation[:1], self.state.adapter))
        if not self.seen:
            self._go_back()
        faults = []
        for save in (self._write_adapter,) if isinstance(error, StorageError) else (self._write_adapter, self._save):
            try:
                save()
            except StorageError as fault:
                faults.append(str(fault))
        if faults and isinstance(error, KeyboardInterrupt):
            raise StorageError("; ".join(faults)) from error
        step, path = len(self.run.outcomes), self.run.options.adapter
        return "; ".join(faults) or f"the adapter after step {step}, the last that was seen to give a finite loss, is in {path}"

    def _go_back(self) -> None:
        """To the state before the last update. A run that has made none stays where it began."""
        if self.kept_step is None:
            return
        self.state.copy_from(self.kept)
        self.optimizer.updates[:] = self.kept_updates
        del self.run.outcomes[self.kept_step :], self.run.memory[self.kept_step :]
        self.run.evaluations[:] = [evaluated for evaluated in self.run.evaluations if evaluated[0] <= self.kept_step]
        self.seen = True

    def _write_adapter(self) -> None:
        options = self.run.options
        save_adapter(options.adapter, self.run.bundle.manifest.adapter, self.state.adapter)
        self.observer.saved(len(self.run.outcomes), options.adapter)

    # Steps, evaluations, text samples

    def _record(self, outcome: StepOutcome) -> None:
        memory = self.sampler.sample()
        self.run.outcomes.append(outcome)
        self.run.memory.append(memory)
        self.observer.stepped(outcome, memory)

    def _evaluate_if_due(self) -> None:
        step, every = len(self.run.outcomes), self.run.options.evaluate_every
        due = step == self.run.options.steps or (every and step % every == 0)
        if due and not any(evaluated == step for evaluated, _ in self.run.evaluations):
            self._evaluate(step)
            self.saved = None

    def _evaluate(self, step: int) -> None:
        """Raises NonFiniteLossError."""
        enter(EVALUATING, self.sampler, self.observer)
        loss = evaluate(self.runner, self.run.evaluation, self.state.adapter)
        self.seen = math.isfinite(loss)
        if not self.seen:
            what = "try a lower learning rate" if step else "nothing can be trained from there; begin with another adapter"
            raise NonFiniteLossError(f"step {step}: the loss of the evaluation after it is {loss}; {what}")
        self.run.evaluations.append((step, loss))
        self.observer.evaluated(step, loss)

    def _continue_prompts(self) -> list[str]:
        options, bundle = self.run.options, self.run.bundle
        if not options.prompts:
            return []
        enter(WRITING, self.sampler, self.observer)
        seq_len = bundle.manifest.seq_len
        arguments = self.runner, bundle.tokenizer, self.state.adapter
        return ["".join(continue_prompt(*arguments, prompt, seq_len, options.sampling, options.chat)) for prompt in options.prompts]

    # Checkpoints

    def _save_if_due(self) -> None:
        step, options = len(self.run.outcomes), self.run.options
        if step == options.steps or step % options.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        """A checkpoint of the last whole step, unless there is one."""
        run, step = self.run, len(self.run.outcomes)
        if self.directory is None or self.saved == step:
            return
        enter(SAVING, self.sampler, self.observer)
        runtime = f"{self.runner.name} {self.runner.version}"
        place = RunPlace(run.identity, step, step * run.train.accumulation, runtime, self.kept_layers)
        history = [
            (o.loss, o.learning_rate, o.gradient_norm, o.gradient_seconds, o.optimizer_seconds, memory or 0)
            for o, memory in zip(run.outcomes, run.memory, strict=True)
        ]
        steps = np.array(history, np.float64).reshape(step, -1) if step else np.zeros((0, 6))
        evaluations = np.array(run.evaluations, np.float64)
        self.directory.write(RunCheckpoint(place, self.state, self.optimizer.updates, steps, evaluations))
        self.saved = step

    def _restore(self, checkpoint: RunCheckpoint) -> None:
        run, step = self.run, checkpoint.place.step
        for name in ("adapter", "first_moment", "second_moment"):
            getattr(self.state, name)[:] = getattr(checkpoint.state, name)
        self.optimizer.updates[:] = checkpoint.updates
        for number, (loss, rate, norm, gradient_seconds, optimizer_seconds, memory) in enumerate(checkpoint.steps.tolist()):
            subset = run.schedule[number % len(run.schedule)]
            run.outcomes.append(StepOutcome(number + 1, subset, loss, rate, norm, gradient_seconds, optimizer_seconds))
            run.memory.append(int(memory) or None)
        run.evaluations.extend((int(number), loss) for number, loss in checkpoint.evaluations.tolist())
        run.resumed_from = self.saved = step
        self.observer.resumed(step)

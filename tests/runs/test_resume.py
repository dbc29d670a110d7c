"""Law 7: a run that was stopped and resumed ends bit for bit as the unbroken run. tests_device/test_kills.py does it by SIGKILL."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import hostile
from helpers.bundles import RandomBundle, StubRunner, lcsb, lcsb_error, lcsb_json, write_lines

import lcsb_mobile.runs.setup as run_setup_module
import lcsb_mobile.runs.simulate as simulate_module
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.batch import Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import AdapterError, OptionError, OutputExistsError, RunBusyError, RunCheckpointError, StorageError
from lcsb_mobile.report.run import run_report
from lcsb_mobile.runs.checkpoint import RunIdentity, checkpoint_files, read_checkpoint
from lcsb_mobile.runs.directory import RunDirectory
from lcsb_mobile.runs.setup import Observer, SimulateOptions
from lcsb_mobile.runs.simulate import SimulateResult, simulate
from lcsb_mobile.text.tokenizer import local_time

STEPS, EVERY = 8, 3
TIMES = {"step_seconds", "step_seconds_median", "phase_seconds", "peak_anonymous_bytes", "peak_rss_bytes", "predicted_peak_anonymous_bytes"}


@pytest.fixture
def options(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> SimulateOptions:
    return SimulateOptions(
        random_bundle.bundle,
        messages,
        steps=STEPS,
        adapter=tmp_path / "adapter.safetensors",
        threads=1,
        learning_rate=0.01,
        lr_schedule="cosine",
        accumulation=2,
        evaluate_every=2,
        checkpoint_directory=tmp_path / "run",
        checkpoint_every=EVERY,
    )


def outcome(result: SimulateResult, options: SimulateOptions) -> tuple[Any, ...]:
    """All that a run comes to, but for times and memory."""
    fields = {
        name: getattr(result, name) for name in result.__struct_fields__ if name not in {*TIMES, "resumed_from", "adapter", "checkpoints"}
    }
    return fields, options.adapter.read_bytes()


class Stopping:
    """A runner that is interrupted in its step number `at`, from 0, of this process."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make = run_setup_module.make_runner

        def wrapped(*arguments: Any) -> Any:
            runner = make(*arguments)
            step = runner.step

            def counted(subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
                if self.count == self.at:
                    raise KeyboardInterrupt
                self.count += 1
                return step(subset, batch, adapter)

            runner.step = counted
            return runner

        monkeypatch.setattr(run_setup_module, "make_runner", wrapped)
        monkeypatch.setattr(simulate_module, "check_first_step", lambda *_: None)


@pytest.mark.parametrize("sequences", [0, 1, 5, 6, 15])
def test_a_stopped_run_goes_on(options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sequences: int) -> None:
    """Stopped in its first, third, fourth and last step: at a checkpoint, between two, within a step of two sequences."""
    whole = dataclasses.replace(options, adapter=tmp_path / "whole", checkpoint_directory=None)
    expected = outcome(simulate(whole).result, whole)
    with monkeypatch.context() as patch:
        Stopping(sequences).install(patch)
        with pytest.raises(KeyboardInterrupt):
            simulate(options)
    seen: list[int] = []

    class Resumed(Observer):
        def resumed(self, step: int) -> None:
            seen.append(step)

    resumed = simulate(dataclasses.replace(options, resume=True), Resumed()).result
    assert seen == [resumed.resumed_from] == [sequences // 2]
    assert outcome(resumed, options) == expected
    again = simulate(dataclasses.replace(options, resume=True)).result  # finished: nothing is left to do, and the same is said
    assert again.resumed_from == STEPS and outcome(again, options) == expected


TODAY = "{% for m in messages %}{{ strftime_now('%d %b %Y, %H:%M:%S') }} {{ m.content }}\n{% endfor %}"


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone."""

    def enter(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield enter
    monkeypatch.undo()
    time.tzset()


def test_a_run_goes_on_with_the_day_on_which_it_began(
    options: SimulateOptions, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall_clock: Callable[[str], None]
) -> None:
    """A chat template that writes the time, resumed in another time zone, where it is tomorrow: the same tokens, the same bits. A run that
    begins there is another, as its tokens tell; the file does not."""
    hostile.replace(bundle, "tokenizer_config.json", json.dumps({"eos_token": "</s>", "chat_template": TODAY}).encode())
    conversations = [[{"role": "user", "content": text}, {"role": "assistant", "content": f"so it is {text}"}] for text in "abcdef"]
    data = write_lines(tmp_path / "chats.jsonl", [{"messages": turns} for turns in conversations])
    options = dataclasses.replace(options, bundle=bundle, data=data, evaluation_data=data)
    wall_clock("Etc/GMT+12")
    with monkeypatch.context() as patch:
        Stopping(7).install(patch)
        with pytest.raises(KeyboardInterrupt):
            simulate(options)
    began = newest(options)
    wall_clock("Etc/GMT-14")
    simulate(dataclasses.replace(options, resume=True))
    assert newest(options) == began and began.date.tzinfo is None
    monkeypatch.setattr(run_setup_module, "local_time", lambda: began.date)  # the unbroken run
    whole = dataclasses.replace(options, adapter=tmp_path / "whole", checkpoint_directory=None)
    simulate(whole)
    assert whole.adapter.read_bytes() == options.adapter.read_bytes()
    monkeypatch.setattr(run_setup_module, "local_time", local_time)
    other = run_setup_module.prepare(whole, Observer()).identity
    assert (other.data, other.evaluation_data) == (began.data, began.evaluation_data)
    assert other.tokens != began.tokens == began.evaluation_tokens and other.date > began.date + datetime.timedelta(hours=20)


def newest(options: SimulateOptions) -> RunIdentity:
    assert options.checkpoint_directory is not None
    layout = Bundle.open(options.bundle).manifest.adapter
    return read_checkpoint(checkpoint_files(options.checkpoint_directory)[0], layout).place.identity


def test_the_report_of_a_resumed_run(options: SimulateOptions) -> None:
    """Of one that had three steps left, and of one that had none and so nothing was evaluated."""
    simulate(dataclasses.replace(options, steps=5, lr_schedule="constant"))
    for begun in (5, STEPS):
        simulation = simulate(dataclasses.replace(options, lr_schedule="constant", resume=True))
        report = run_report(simulation)
        assert [record.step for record in report.steps] == list(range(1, STEPS + 1))
        assert any(f"resumed after step {begun}" in note for note in report.notes)
        assert all(seconds >= 0 for seconds in report.phase_seconds.values())


def test_what_a_checkpoint_holds(options: SimulateOptions) -> None:
    result = simulate(options).result
    assert options.checkpoint_directory is not None
    files = checkpoint_files(options.checkpoint_directory)
    assert [file.name for file in files] == ["step-00000008.safetensors", "step-00000006.safetensors"]
    layout = Bundle.open(options.bundle).manifest.adapter
    last = read_checkpoint(files[0], layout)
    np.testing.assert_array_equal(last.state.adapter, load_adapter(options.adapter, layout))
    assert last.steps[:, 0].tolist() == list(result.losses)
    assert [(int(step), loss) for step, loss in last.evaluations.tolist()] == list(result.evaluations)
    assert last.updates.tolist() == [STEPS] * 3 and last.place.sequences == 2 * STEPS
    assert last.place.runtime.startswith("onnxruntime ")


def test_a_longer_run_goes_on_from_a_shorter_one(options: SimulateOptions, tmp_path: Path) -> None:
    """Where the rate is constant."""
    options = dataclasses.replace(options, lr_schedule="constant", evaluate_every=0)
    whole = dataclasses.replace(options, adapter=tmp_path / "whole", checkpoint_directory=None)
    simulate(dataclasses.replace(options, steps=5))
    resumed = simulate(dataclasses.replace(options, resume=True)).result
    assert resumed.resumed_from == 5
    assert resumed.losses == simulate(whole).result.losses
    assert options.adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_shorter_run_than_was_made(options: SimulateOptions) -> None:
    """It would say that it made fewer steps, and give the adapter of more."""
    options = dataclasses.replace(options, lr_schedule="constant", evaluate_every=0)
    simulate(options)
    before = options.adapter.read_bytes()
    with pytest.raises(OptionError, match=f"steps: expected at least {STEPS}, which the run in .* has made, found 4"):
        simulate(dataclasses.replace(options, steps=4, resume=True, force=True))
    assert options.adapter.read_bytes() == before


@pytest.mark.parametrize("name", ["mistyped", "empty"])
def test_nothing_to_go_on_from_replaces_nothing(options: SimulateOptions, tmp_path: Path, name: str) -> None:
    """The adapter is another run's, then, and so is the report."""
    (tmp_path / "empty").mkdir()
    options = dataclasses.replace(options, steps=1, checkpoint_directory=tmp_path / name, resume=True)
    for path in (options.adapter, tmp_path / "report.html"):
        path.write_text("another run's")
        with pytest.raises(OutputExistsError, match=f"{name} holds no checkpoint of a run that wrote it"):
            simulate(dataclasses.replace(options, report=tmp_path / "report.html"))
        assert path.read_text() == "another run's" and not (tmp_path / "mistyped").exists()
        path.unlink()
    options.adapter.write_text("another run's")
    simulate(dataclasses.replace(options, force=True))
    assert load_adapter(options.adapter, Bundle.open(options.bundle).manifest.adapter).size


def test_what_a_run_writes_is_its_owners_alone(options: SimulateOptions) -> None:
    assert options.checkpoint_directory is not None
    simulate(dataclasses.replace(options, steps=1))
    written = [options.adapter, options.checkpoint_directory, *options.checkpoint_directory.iterdir()]
    assert len(written) == 5 and all(path.stat().st_mode & 0o077 == 0 for path in written)


def test_a_run_is_not_gone_on_with_by_mistake(options: SimulateOptions, messages: Path, tmp_path: Path) -> None:
    simulate(options)
    with pytest.raises(OutputExistsError, match="already exists"):
        simulate(options)
    other = tmp_path / "other.safetensors"
    with pytest.raises(OutputExistsError, match="already holds checkpoints of a run; go on with it by --resume"):
        simulate(dataclasses.replace(options, adapter=other))
    changed = tmp_path / "changed.jsonl"
    changed.write_text(messages.read_text() + '{"text": "one more line"}\n')
    for change, reason in (
        ({"data": changed}, "data: .* then, .* now"),
        ({"seed": 3}, "seed: 0 then, 3 now"),
        ({"method": "full"}, "schedule"),
        ({"steps": 9}, "steps: 8 then, 9 now"),
        ({"hold_out": 0.4}, "hold out: 0.1 then, 0.4 now"),
        ({"evaluation_data": changed}, "evaluation data: None then"),
    ):
        with pytest.raises(RunCheckpointError, match=f"is of another run: .*{reason}"):
            simulate(dataclasses.replace(options, resume=True, **change))
    assert not other.exists()
    assert len(checkpoint_files(tmp_path / "run")) == 2


def test_the_options_of_checkpoints_are_checked(options: SimulateOptions, tmp_path: Path) -> None:
    for changes, reason in (
        ({"checkpoint_every": 0}, "checkpoint-every"),
        ({"resume": True, "checkpoint_directory": None}, "resume: needs"),
    ):
        with pytest.raises(OptionError, match=reason):
            simulate(dataclasses.replace(options, **changes))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="file: cannot be written"):
        simulate(dataclasses.replace(options, checkpoint_directory=file))


def test_two_runs_in_one_directory(options: SimulateOptions, tmp_path: Path) -> None:
    assert options.checkpoint_directory is not None
    with RunDirectory(options.checkpoint_directory), pytest.raises(RunBusyError, match="uses these checkpoints"):
        simulate(options)
    assert not options.adapter.exists()
    simulate(options)


def test_a_full_disk_stops_the_run_and_loses_nothing(options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third checkpoint cannot be written. With space again it goes on."""
    calls: list[int] = []
    write = RunDirectory.write

    def full(self: RunDirectory, checkpoint: Any) -> Path:
        calls.append(checkpoint.place.step)
        if len(calls) == 3:
            raise StorageError("run: cannot be written: No space left on device")
        return write(self, checkpoint)

    whole = dataclasses.replace(options, adapter=tmp_path / "whole", checkpoint_directory=None)
    expected = outcome(simulate(whole).result, whole)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            simulate(options)
    resumed = simulate(dataclasses.replace(options, resume=True)).result
    assert calls == [0, 3, 6] and resumed.resumed_from == 3
    assert outcome(resumed, options) == expected


def test_an_adapter_to_begin_with(options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's adapter is where the next one begins; another one is another run."""
    options = dataclasses.replace(options, checkpoint_directory=None)
    first = simulate(options).result
    begun = dataclasses.replace(
        options, initial_adapter=options.adapter, adapter=tmp_path / "second", checkpoint_directory=tmp_path / "run"
    )
    assert simulate(begun).result.eval_loss_before == first.eval_loss_after
    with pytest.raises(RunCheckpointError, match="initial adapter: .* then, None now"):
        simulate(dataclasses.replace(begun, initial_adapter=None, resume=True))
    with pytest.raises(AdapterError, match="absent: no such file"):
        simulate(dataclasses.replace(begun, initial_adapter=tmp_path / "absent", force=True))
    layout = Bundle.open(options.bundle).manifest.adapter
    save_adapter(tmp_path / "nan", layout, np.full(layout.size, np.nan, np.float32))
    monkeypatch.setattr(run_setup_module, "make_runner", lambda *_: StubRunner())
    monkeypatch.setattr(simulate_module, "check_first_step", lambda *_: None)
    with pytest.raises(AdapterError, match="NaN"):
        simulate(dataclasses.replace(begun, initial_adapter=tmp_path / "nan", force=True))


def test_the_command(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--adapter", tmp_path / "a", "--threads", 1, "--checkpoint-dir", run)
    result = lcsb_json(*arguments, "--steps", 2, "--resume", "--checkpoint-every", 1)  # nothing to go on from: it begins
    assert result["resumed_from"] is None and result["checkpoints"] == str(run)
    newest = run / "step-00000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert lcsb_json(*arguments, "--steps", 4, "--resume")["resumed_from"] == 1
    assert f"checkpoints      {run}" in lcsb(*arguments, "--steps", 4, "--resume")
    assert "already holds checkpoints" in lcsb_error(2, *arguments[:4], "--adapter", tmp_path / "b", *arguments[6:], "--steps", 4)
    lcsb(*arguments, "--steps", 4, "--force")

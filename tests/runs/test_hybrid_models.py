"""Models of several kinds of layers through the whole toolkit: trained, resumed, written as text, their adapters in PEFT's form.

The references are transformers and peft on the merged or decompressed model, which share no code with ours.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from helpers.bundles import RandomBundle, lcsb, lcsb_error, lcsb_json
from helpers.checkpoints import write_checkpoint, write_multimodal
from helpers.crossing_bundle import known_architecture
from helpers.kinds_of_layers import FAMILIES, SEQ_LEN, KindsBundle
from helpers.transformers_reference import TransformersReference
from safetensors.torch import load_file, save_file

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.batch import Batch, StepResult, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.data.dataset import read_dataset
from lcsb_mobile.data.packing import epochs
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.autograd import reference_step
from lcsb_mobile.export.reference.float_model import model_logits
from lcsb_mobile.generation.generate import continue_prompt
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.tiny import tiny_checkpoint
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.trainer import TrainConfig, Trainer

STEPS = 30
TEXT = tiny_checkpoint() / "messages_eval.jsonl"


def adapted(bundle: Bundle, seed: int = 0) -> Float32Array:
    """An adapter whose B is not zero."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal(bundle.manifest.adapter.size)
    return bundle.initial_adapter() + noise.astype(np.float32)


def batches(bundle: Bundle, count: int, data: Path = TEXT) -> list[Batch]:
    """Real text, packed."""
    dataset = read_dataset(data, bundle.tokenizer, SEQ_LEN)
    return list(itertools.islice(epochs(dataset, bundle.manifest.seq_len, 3, seed=0), count))


def subsets(layers: int) -> list[Subset]:
    everything, top = tuple(range(layers)), layers - 1
    return [
        Subset(everything, everything),
        Subset((1, 2), everything),
        Subset((0, top), (0, top)),
        Subset((top - 1,), (top - 1, top)),
    ]


def differences(found: StepResult, expected: StepResult) -> float:
    """The largest of the loss, relative, and of the gradients, relative to each layer's largest element."""
    assert found.gradients.keys() == expected.gradients.keys()
    worst = [float(np.abs(found.gradients[layer] - g).max() / np.abs(g).max()) for layer, g in expected.gradients.items()]
    return max(abs(found.loss - expected.loss) / expected.loss, *worst)


@pytest.mark.parametrize("name", [*FAMILIES, "crossing"])
def test_steps_equal_autograd_of_the_whole_model(name: str, kinds_bundle: KindsBundle, crossing_bundle: Path, messages: Path) -> None:
    """Laws 1 and 2, of the eager reference and of ONNX Runtime, with nothing, some and all layers kept."""
    with known_architecture():
        bundle = Bundle.open(crossing_bundle if name == "crossing" else kinds_bundle(name).bundle)
        layout, model = bundle.manifest.adapter, model_of(bundle.manifest.model)
        adapter, layers = adapted(bundle), len(bundle.manifest.layers)
        runners = [make_runner(bundle, "eager"), *(make_runner(bundle, threads=1, keep=keep) for keep in (0, 2, layers))]
        batch = batches(bundle, 1, messages)[0]
        assert len(set(batch.segment_ids.tolist())) > 1
        for subset in subsets(layers):
            expected = reference_step(model, layout, bundle.weights, subset, batch, adapter)
            found = [differences(runner.step(subset, batch, adapter), expected) for runner in runners]
            # float32 in other orders; what is kept is rounded to float16.
            assert max(found[:2]) < 3e-5 and max(found[2:]) < 2e-3, found
        assert runners[0].evaluate(batch, adapter) == pytest.approx(expected.loss, rel=1e-5)
        assert runners[1].evaluate(batch, adapter) == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_commands(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """Verified against its trace and, element by element, the eager reference; described by kind; timed."""
    bundle = kinds_bundle(name).bundle
    lcsb("verify", bundle, "--eager")
    found = lcsb_json("inspect", bundle)
    kinds = {kind["name"]: kind for kind in found["kinds"]}
    assert set(kinds) == ({"conv", "full"} if name == "lfm2" else {"linear", "full"})
    assert all(kind["flops"]["backward"] > kind["flops"]["forward"] > 0 and kind["kept_bytes"] > 0 for kind in kinds.values())
    calibrated = lcsb_json("inspect", bundle, "--calibrate")
    assert calibrated["full"]["seconds"] > calibrated["steps"][0]["seconds"] > 0
    assert {"full_backward", "adamw, full"} <= calibrated["calibration"]["seconds"].keys()
    assert "full" in lcsb("inspect", bundle)


class Reference:
    """transformers' model and peft's LoRA as a runner."""

    name, version = "transformers", "0"

    def __init__(self, base: Any, bundle: Bundle) -> None:
        self.reference = TransformersReference.over(base, bundle.manifest.adapter)

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        return self.reference.step(subset, batch, adapter)[0]


def merged(bundle: RandomBundle, adapter: Path, output: Path) -> Any:
    """The bundle's own weights with the adapter in them, as transformers loads them."""
    arguments = ("--bundle", bundle.bundle, "--model", bundle.checkpoint, "--output", output, "--dtype", "float32")
    lcsb("adapter", "merge", adapter, *arguments, "--dequantized")
    return transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, attn_implementation="eager").eval()


def initial_file(bundle: RandomBundle, path: Path, adapter: Float32Array | None = None) -> Path:
    opened = Bundle.open(bundle.bundle)
    save_adapter(path, opened.manifest.adapter, opened.initial_adapter() if adapter is None else adapter)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_thirty_steps_equal_peft(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """Law 4 on real text, through ten cycles of the schedule, momentum included; B = 0 at the start, so merging changes nothing."""
    bundle = Bundle.open(kinds_bundle(name).bundle)
    base = merged(kinds_bundle(name), initial_file(kinds_bundle(name), tmp_path / "initial.safetensors"), tmp_path / "merged")
    data = batches(bundle, STEPS)

    def losses(runner: Any) -> list[float]:
        layout = bundle.manifest.adapter
        optimizer = AdamW(bundle.initial_adapter(), layout.slices, bundle.manifest.optimizer)
        trainer = Trainer(runner, bundle.manifest.schedule, optimizer, TrainConfig(STEPS, 2e-3))
        return [trainer.step(number, [batch]).loss for number, batch in enumerate(data)]

    runner: StepRunner = make_runner(bundle, threads=1)
    found, expected = losses(runner), losses(Reference(base, bundle))
    assert found == pytest.approx(expected, rel=2e-5)
    assert np.mean(expected[-6:]) < np.mean(expected[:6]) - 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_a_resumed_run_is_the_unbroken_one(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """Law 7, of an adapter whose layers have vectors of different sizes."""

    def run(directory: str, steps: int, resume: bool = False) -> bytes:
        options = SimulateOptions(
            kinds_bundle(name).bundle,
            TEXT,
            steps=steps,
            adapter=tmp_path / f"{directory}.safetensors",
            threads=1,
            checkpoint_directory=tmp_path / directory,
            checkpoint_every=2,
        )
        simulate(dataclasses.replace(options, resume=True) if resume else options)
        return options.adapter.read_bytes()

    whole = run("whole", 6)
    assert run("parts", 4) != whole
    assert run("parts", 6, resume=True) == whole


@pytest.mark.parametrize("name", FAMILIES)
def test_text_equals_transformers_with_its_cache(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """Greedy, after prompts of one token, of less than a convolution sees, of less than a chunk and beyond one."""
    bundle = Bundle.open(kinds_bundle(name).bundle)
    adapter = adapted(bundle, 3)
    model = merged(kinds_bundle(name), initial_file(kinds_bundle(name), tmp_path / "adapter.safetensors", adapter), tmp_path / "merged")
    runner = make_runner(bundle, threads=1)
    words = [int(token) for token in np.random.default_rng(2).integers(4, 131, SEQ_LEN)]
    for length in (1, 2, 5, 31, 40):
        decoder = runner.decoder(adapter)
        logits = [decoder.start(words[:length])]
        written = words[:length]
        while len(written) < SEQ_LEN:
            written.append(int(logits[-1].argmax()))
            logits.append(decoder.extend(written[-1]) if len(written) < SEQ_LEN else logits[-1])
        prompt = torch.tensor([words[:length]])
        expected = model.generate(prompt, max_length=SEQ_LEN, do_sample=False, eos_token_id=None, pad_token_id=3)
        assert written == expected[0].tolist(), length
    sampling = SamplingConfig(max_tokens=5, temperature=0)
    text = "".join(continue_prompt(runner, bundle.tokenizer, adapter, "the train", SEQ_LEN, sampling))
    assert text


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_in_peft_and_back(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """Law 8: peft on the decompressed base gives what our runner does. What is imported is what was exported."""
    bundle = Bundle.open(kinds_bundle(name).bundle)
    adapter = adapted(bundle, 7)
    own = initial_file(kinds_bundle(name), tmp_path / "own.safetensors", adapter)
    base = merged(kinds_bundle(name), initial_file(kinds_bundle(name), tmp_path / "initial.safetensors"), tmp_path / "merged")
    lcsb("adapter", "export", own, "--bundle", kinds_bundle(name).bundle, "--output", tmp_path / "peft")
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "peft")).eval()
    assert_logits_alike(bundle, adapter, loaded)
    lcsb("adapter", "import", tmp_path / "peft", "--bundle", kinds_bundle(name).bundle, "--output", tmp_path / "back.safetensors")
    np.testing.assert_array_equal(load_adapter(tmp_path / "back.safetensors", bundle.manifest.adapter), adapter)


@pytest.mark.parametrize("name", FAMILIES)
def test_matrices_rounded_against_a_text(name: str, kinds_bundle: KindsBundle, tmp_path: Path) -> None:
    """gptq walks the kinds, one sequence at a time where tokens mix: logits are nearer to the float model's than after plain rounding."""
    arguments = ("--seq-len", SEQ_LEN, "--group-size", 8, "--rank", 4, "--subsets", 3, "--quantizer", "gptq", "--calibration", TEXT)
    lcsb("export", kinds_bundle(name).checkpoint, "--output", tmp_path / "gptq", *arguments)
    errors = {}
    with open_checkpoint(kinds_bundle(name).checkpoint) as checkpoint:
        for quantizer, path in (("search", kinds_bundle(name).bundle), ("gptq", tmp_path / "gptq")):
            bundle = Bundle.open(path)
            runner, (batch,) = make_runner(bundle, "eager"), batches(bundle, 1)
            ids = (torch.from_numpy(x) for x in (batch.input_ids, batch.position_ids, batch.segment_ids))
            exact = model_logits(checkpoint.config, checkpoint.read, *ids)[8:].numpy()
            found = [runner.next_logits(batch, position, bundle.initial_adapter()) for position in range(8, SEQ_LEN)]
            errors[quantizer] = float(np.square(np.stack(found) - exact).mean())
    assert errors["gptq"] < 0.9 * errors["search"], errors


@pytest.mark.parametrize("model_type", ["qwen3_5", "gemma3"])
def test_a_multimodal_checkpoint(tmp_path: Path, model_type: str) -> None:
    """A merge keeps the tower; the adapter has the names of the whole model, and one with those of the text alone or older ones is read."""
    write_multimodal(tmp_path / "checkpoint", tied=True, model_type=model_type)
    arguments = ("--seq-len", SEQ_LEN, "--group-size", 8, "--rank", 4, "--subsets", 3)
    assert "without its vision tower" in lcsb("export", tmp_path / "checkpoint", "--output", tmp_path / "bundle", *arguments)
    whole = RandomBundle(tmp_path / "checkpoint", tmp_path / "bundle")
    bundle = Bundle.open(whole.bundle)
    initial, own = (tmp_path / f"{name}.safetensors" for name in ("initial", "own"))
    initial_file(whole, initial)
    adapter = adapted(bundle, 1)
    initial_file(whole, own, adapter)
    merged(whole, initial, tmp_path / "merged")
    with open_checkpoint(tmp_path / "checkpoint") as before, open_checkpoint(tmp_path / "merged") as after:
        assert before.left_out == after.left_out and len(before.left_out) > 10
        assert all(torch.equal(before.read(name), after.read(name)) for name in before.left_out)

    lcsb("adapter", "export", own, "--bundle", whole.bundle, "--output", tmp_path / "peft")
    options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", **options)
    assert not info["missing_keys"]
    loaded = peft.PeftModel.from_pretrained(model, str(tmp_path / "peft")).eval()
    assert_logits_alike(bundle, adapter, loaded)

    file = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(file)
    assert all(".language_model.layers." in name for name in tensors)
    for number, other in enumerate(("model.", "language_model.model.")):
        save_file({name.replace("model.language_model.", other): tensor for name, tensor in tensors.items()}, file)
        back = tmp_path / f"back{number}.safetensors"
        lcsb("adapter", "import", tmp_path / "peft", "--bundle", whole.bundle, "--output", back)
        np.testing.assert_array_equal(load_adapter(back, bundle.manifest.adapter), adapter)


def assert_logits_alike(bundle: Bundle, adapter: Float32Array, loaded: Any) -> None:
    """Our runner's with the adapter, and those of peft's model."""
    batch = batches(bundle, 1)[0]
    one = Batch(batch.input_ids, batch.labels, np.arange(SEQ_LEN), np.zeros(SEQ_LEN, np.int64))
    with torch.no_grad():
        expected = loaded(torch.from_numpy(one.input_ids)[None]).logits[0].numpy()
    runner = make_runner(bundle, threads=1)
    for position in (0, 7, SEQ_LEN - 1):
        found = runner.next_logits(one, position, adapter)
        np.testing.assert_allclose(found, expected[position], rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.training_api
def test_the_training_api_takes_layers_of_one_kind(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "lfm2", tied=True)
    arguments = ("--target", "onnxruntime-training", "--group-size", 8, "--seq-len", SEQ_LEN)
    error = lcsb_error(2, "export", checkpoint, "--output", tmp_path / "b", *arguments)
    assert "lfm2 has layers of kinds conv, full; use --target onnxruntime" in error
    assert not (tmp_path / "b").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "qwen3_5_text", tied=True)
    error = lcsb_error(2, "export", checkpoint, "--output", tmp_path / "b", "--group-size", 8, "--seq-len", 48)
    assert "seq-len: qwen3_5_text needs a multiple of 32, found 48" in error
    assert not (tmp_path / "b").exists()

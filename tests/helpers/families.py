"""Models of several kinds of layers beside transformers' own with peft's LoRA, in float32 or, every cast undone, in float64."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from helpers.checkpoints import VOCABULARY, random_model
from helpers.kinds_loop import KindsLoop, Lora, Tokens
from lcsb_mobile.export.models import architecture, embedding_name, model_of

RANK, ALPHA = 4, 12.0


def ids(seed: int, length: int) -> Tensor:
    return torch.randint(4, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest element."""
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


class Family:
    """`reference`: transformers' model under peft's LoRA, B not zero, on every matrix that has it here."""

    def __init__(self, model_type: str, double: bool, **overrides: Any) -> None:
        base = random_model(model_type, tied=overrides.pop("tied", True), **overrides)
        self.config = architecture(model_type).read_config(base.config.to_dict())
        self.model = model_of(self.config)
        self.base_state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        self.double, self._model_type = double, model_type.removesuffix("_text")
        names = sorted({name for kind in self.model.kinds.values() for name in kind.matrices})
        pattern = rf".*\.layers\.\d+\.({'|'.join(map(re.escape, names))})"
        generator = torch.Generator().manual_seed(5)
        self.reference = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=pattern)).eval()
        with torch.no_grad():
            for name, parameter in self.reference.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.05 if "lora_B" in name else 0.2))
        if double:
            self.reference.double()
        self.loop = self._take_apart()

    def _take_apart(self) -> KindsLoop:
        cleaned = {_clean(name): parameter.detach() for name, parameter in self.reference.named_parameters()}
        cleaned.setdefault("lm_head.weight", cleaned[embedding_name(self.config)])
        asked = set()

        def read(name: str) -> Tensor:
            asked.add(name)
            return cleaned[name]

        def lora(number: int, name: str, shape: tuple[int, int]) -> Lora:
            return {part: read(f"model.layers.{number}.{name}.{part}.weight") for part in ("lora_A", "lora_B")}

        loop = KindsLoop.of(self.model, read, lora, ALPHA / RANK)
        unread = cleaned.keys() - asked - ({"lm_head.weight"} if self.config.tie_word_embeddings else set())
        assert not unread, unread
        return loop

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within it transformers computes in this family's precision."""
        if not self.double:
            yield
            return
        modeling = importlib.import_module(f"transformers.models.{self._model_type}.modeling_{self._model_type}")
        with _in_double(modeling):
            yield

    def logits(self, tokens: Tokens) -> Tensor:
        """Each example alone."""
        with self.running(), torch.no_grad():
            parts = self._parts(tokens.input_ids, tokens)
            return torch.cat([self.reference(input_ids=part[None], use_cache=False).logits[0] for part in parts])

    def step(self, tokens: Tokens, train: Iterable[int], propagate: Iterable[int]) -> tuple[Tensor, dict[int, Lora]]:
        """Each example a pass of its own; layers above min(train) outside `propagate` by `h + (o - h).detach()`."""
        train, propagate = set(train), set(propagate)
        layers = list(self.reference.base_model.model.model.layers)
        for name, parameter in self.reference.named_parameters():
            number = re.search(r"\.layers\.(\d+)\.", name)
            parameter.requires_grad_("lora_" in name and number is not None and int(number[1]) in train)
            parameter.grad = None
        handles = [layer.register_forward_hook(_identity) for number, layer in enumerate(layers) if number not in propagate]
        counted = (tokens.labels != -100).sum()
        total = torch.zeros((), dtype=self.loop.embedding.dtype)
        with self.running():
            for part, labels in zip(self._parts(tokens.input_ids, tokens), self._parts(tokens.labels, tokens)):
                logits = self.reference(input_ids=part[None], use_cache=False).logits[0]
                loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / counted
                loss.backward()
                total = total + loss.detach()
        for handle in handles:
            handle.remove()
        found = {_clean(name): parameter.grad for name, parameter in self.reference.named_parameters() if parameter.grad is not None}
        gradients = {
            number: {name: found.pop(f"model.layers.{number}.{name}.weight") for name in self.loop.layers[number].lora} for number in train
        }
        assert not found
        return total, gradients

    def continued(self, ids: Tensor, prompt: int) -> Tensor:
        """Logits (len(ids) - prompt + 1, V), of the prompt's last token and of each further one, with transformers' cache."""
        with self.running(), torch.no_grad():
            out = self.reference(input_ids=ids[None, :prompt], use_cache=True)
            logits = [out.logits[0, -1]]
            for token in ids[prompt:]:
                cache = {"cache": out.cache} if hasattr(out, "cache") else {"past_key_values": out.past_key_values}  # from 5.24 on, before
                out = self.reference(input_ids=token.reshape(1, 1), use_cache=True, **cache)
                logits.append(out.logits[0, -1])
        return torch.stack(logits)

    def _parts(self, values: Tensor, tokens: Tokens) -> list[Tensor]:
        return list(torch.split(values, torch.unique_consecutive(tokens.segment_ids, return_counts=True)[1].tolist()))


def assert_steps_alike(family: Family, tokens: Tokens, tolerance: float) -> None:
    """All layers; a band, exact; single layers with identities."""
    layers = range(family.config.num_hidden_layers)
    for train, propagate in ((layers, layers), (layers[1:3], layers[1:]), (layers[::3], layers[::3])):
        loss, gradients = family.loop.step(tokens, train, propagate)
        expected_loss, expected = family.step(tokens, train, propagate)
        assert abs(float(loss - expected_loss)) < tolerance * float(expected_loss)
        assert worst(gradients, expected) < tolerance


def assert_decodes_alike(family: Family, text: Tensor, prompt: int, tolerance: float, length: int) -> None:
    assert relative(family.loop.continued(text, prompt, length), family.continued(text, prompt)) < tolerance


def assert_sequences_apart(loop: KindsLoop, length: int) -> None:
    """Each kind's block on two sequences in a row, as calibration runs it, is the block on each."""
    two = torch.randn(2 * length, loop.model.config.hidden_size, generator=torch.Generator().manual_seed(0), dtype=loop.embedding.dtype)
    for kind in loop.model.kinds:
        number = [place.kind for place in loop.model.places].index(kind)
        reads = loop.reads(number, Tokens.packed([ids(1, length)]))
        apart = torch.cat([loop.block(number, {"h": h, **reads})[0] for h in torch.split(two, length)])
        together = loop.block(number, {"h": two, **reads}, length=length)[0]
        assert relative(together, apart) < 1e-12


def assert_matters(model_type: str, change: dict[str, Any], tokens: Tokens) -> None:
    """A case proves something about an option if the option moves the logits of the same weights."""
    plain, changed = Family(model_type, False), Family(model_type, False, **change)
    moved = replace(plain.loop, model=changed.model)
    assert relative(moved.logits(tokens), plain.loop.logits(tokens)) > 1e-2


def worst(found: dict[int, Lora], expected: dict[int, Lora]) -> float:
    """The largest difference of a layer's gradients, relative to the largest element of that layer's."""
    assert {n: set(lora) for n, lora in found.items()} == {n: set(lora) for n, lora in expected.items()}

    def flat(lora: Lora) -> Tensor:
        return torch.cat([lora[name].flatten() for name in sorted(lora)])

    return max(relative(flat(found[n]), flat(lora)) for n, lora in expected.items())


def _clean(name: str) -> str:
    return name.replace("base_model.model.", "").replace(".base_layer", "").replace(".default", "")


def _identity(module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
    return args[0] + (out - args[0]).detach()


class _Float64:
    """torch, whose float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


@contextlib.contextmanager
def _in_double(modeling: Any) -> Iterator[None]:
    before = modeling.torch, torch.Tensor.float
    modeling.torch, torch.Tensor.float = _Float64(), torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        modeling.torch, torch.Tensor.float = before

"""A model of kinds of layers in floats, walked as a bundle's host does: layer by layer up, block by block down, and token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lcsb_mobile.export.graphs.head import soft_capped
from lcsb_mobile.export.models import Model, embedding_name, final_norm_name, head_name, layer_prefix, layer_vectors
from lcsb_mobile.export.models.kinds import BlockKind, Place, Values, bound_gives
from lcsb_mobile.export.models.layers import Mix, WholeLinear
from lcsb_mobile.export.models.rope import inverse_frequencies
from lcsb_mobile.export.models.tables import Tables, step_tables, token_tables

Lora = dict[str, Tensor]  # such as self_attn.q_proj.lora_A -> [rank, in]


@dataclass(frozen=True)
class LayerWeights:
    matrices: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]
    lora: Lora


@dataclass(frozen=True)
class Tokens:
    """int64 (T,) each."""

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    segment_ids: Tensor

    @classmethod
    def packed(cls, examples: Sequence[Tensor]) -> Tokens:
        """Each predicts its own tokens; the last of each predicts nothing."""
        labels = [torch.cat((ids[1:], torch.tensor([-100]))) for ids in examples]
        positions = [torch.arange(len(ids)) for ids in examples]
        segments = [torch.full((len(ids),), number) for number, ids in enumerate(examples)]
        return cls(*(torch.cat(parts) for parts in (list(examples), labels, positions, segments)))


@dataclass
class Remembered:
    """`models.kinds.Memory` of one layer and one call: what was remembered before, and what is kept."""

    before: Mapping[str, Tensor] | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def decoding(self) -> bool:
        return self.before is not None

    def past(self, name: str) -> Tensor:
        assert self.before is not None
        return self.before[name]

    def keep(self, name: str, value: Tensor) -> None:
        assert name not in self.kept
        self.kept[name] = value


class _Sequences(WholeLinear):
    """`length`: of each of many sequences in a row (None: there is one)."""

    def __init__(self, function: Callable[[str, Tensor], Tensor], length: int | None) -> None:
        super().__init__(function)
        self.length = length

    def within_sequences(self, mix: Mix) -> Mix:
        if self.length is None:
            return mix
        return lambda *tokens: torch.cat([mix(*parts) for parts in zip(*(torch.split(x, self.length) for x in tokens))])


@dataclass(frozen=True)
class KindsLoop:
    """`scaling`: of LoRA. All floats are of the embedding's type, and so are tables and constants."""

    model: Model
    layers: Sequence[LayerWeights]
    embedding: Tensor
    norm: Tensor
    head: Tensor
    scaling: float

    @classmethod
    def of(
        cls, model: Model, read: Callable[[str], Tensor], lora: Callable[[int, str, tuple[int, int]], Lora], scaling: float
    ) -> KindsLoop:
        """`read`: a checkpoint's tensors by name. `lora`: of a layer's matrix, by number, name and shape -> lora_A and lora_B."""
        config = model.config
        layers = []
        for number, (_, kind) in enumerate(model.walk()):
            prefix = layer_prefix(config, number)
            matrices = {name: read(f"{prefix}{name}.weight") for name in kind.matrices}
            vectors = layer_vectors(read, config, number, kind)
            assert {name: tuple(matrix.shape) for name, matrix in matrices.items()} == dict(kind.matrices)
            assert {name: tuple(vector.shape) for name, vector in vectors.items()} == {n: v.shape for n, v in kind.vectors.items()}
            adapter = {f"{name}.{part}": x for name, shape in kind.matrices.items() for part, x in lora(number, name, shape).items()}
            layers.append(LayerWeights(matrices, vectors, adapter))
        return cls(model, layers, read(embedding_name(config)), read(final_norm_name(config)), read(head_name(config)), scaling)

    def block(
        self,
        number: int,
        values: Values,
        weights: LayerWeights | None = None,
        memory: Remembered | None = None,
        length: int | None = None,
    ) -> tuple[Tensor, ...]:
        """`values`: h, reads and takes. `weights`: others than the layer's own. `length`: of the sequences, where there are several."""
        weights, kind = weights or self.layers[number], self.kind(number)

        def linear(name: str, x: Tensor) -> Tensor:
            y = x @ weights.matrices[name].t()
            if f"{name}.bias" in weights.vectors:
                y = y + weights.vectors[f"{name}.bias"]
            return y + x @ weights.lora[f"{name}.lora_A"].t() @ (weights.lora[f"{name}.lora_B"] * self.scaling).t()

        outputs = kind.block({**self.consts(number), **values}, weights.vectors, _Sequences(linear, length), memory)
        assert len(outputs) == 1 + len(kind.gives)
        return outputs

    def kind(self, number: int) -> BlockKind:
        return self.model.kinds[self.model.places[number].kind]

    def consts(self, number: int) -> dict[str, Tensor]:
        return {name: self._typed(const) for name, const in self.kind(number).consts.items()}

    def reads(self, number: int, tokens: Tokens) -> dict[str, Tensor]:
        tables = self._tables(tokens)
        return {name: tables[table] for name, table in self.model.places[number].reads.items()}

    def embed(self, ids: Tensor) -> Tensor:
        return self.embedding[ids] * self.model.config.embedding_scale

    def logits_of(self, h: Tensor) -> Tensor:
        return soft_capped(self.model.final_norm(h, self.norm) @ self.head.t(), self.model.config.final_logit_softcapping)[0]

    def logits(self, tokens: Tokens) -> Tensor:
        h, _ = self._up(tokens)
        return self.logits_of(h)

    def loss_of(self, h: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(self.logits_of(h), labels)

    def step(self, tokens: Tokens, train: Iterable[int], propagate: Iterable[int], crossing: bool = True) -> tuple[Tensor, dict[int, Lora]]:
        """Loss, and the gradients of the trained layers' LoRA. `crossing`: False leaves out the gradients of what crosses layers."""
        train, propagate = set(train), set(propagate)
        lowest = min(train)
        h, inputs = self._up(tokens)
        h = h.detach().requires_grad_()
        loss = self.loss_of(h, tokens.labels)
        (g,) = torch.autograd.grad(loss, h)
        givers = {value: number for number, place in enumerate(self.model.places) for value in place.gives.values()}
        owed: dict[str, Tensor] = {}  # d loss / d what crosses, from the layers above
        result = {}
        for number in range(len(self.model.places) - 1, lowest - 1, -1):
            if number not in propagate:
                continue
            place, kind = self.model.places[number], self.kind(number)
            wanted = {name: inputs[number][name].detach().requires_grad_() for name in ("h", *kind.takes)}
            lora = {name: matrix.detach().requires_grad_() for name, matrix in self.layers[number].lora.items()}
            outputs = self.block(number, {**inputs[number], **wanted}, replace(self.layers[number], lora=lora))
            into = [g, *(owed.get(place.gives.get(name, ""), torch.zeros_like(x)) for name, x in zip(kind.gives, outputs[1:]))]
            gradients = torch.autograd.grad(outputs, [*wanted.values(), *lora.values()], into)
            g = gradients[0]
            for name, d in zip(kind.takes, gradients[1:]):
                giver = givers[place.takes[name]]
                if crossing and giver >= lowest and giver in propagate:
                    owed[place.takes[name]] = owed.get(place.takes[name], torch.zeros_like(d)) + d
            if number in train:
                result[number] = dict(zip(lora, gradients[len(wanted) :]))
        return loss.detach(), result

    def whole_step(self, tokens: Tokens, train: Iterable[int], propagate: Iterable[int]) -> tuple[Tensor, dict[int, Lora]]:
        """The same by autograd of the whole model: a layer outside `propagate` is an identity, and what it gives has no gradient."""
        train, propagate = set(train), set(propagate)
        lora = {n: {name: m.detach().requires_grad_() for name, m in self.layers[n].lora.items()} for n in train}
        h, tables, values = self.embed(tokens.input_ids), self._tables(tokens), {}
        for number, place in enumerate(self.model.places):
            weights = replace(self.layers[number], lora=lora.get(number, self.layers[number].lora))
            out, *given = self.block(number, self._inputs(place, h, tables, values), weights)
            identity = number not in propagate
            h = h + (out - h).detach() if identity else out
            given = [x.detach() if identity else x for x in given]
            values |= bound_gives(self.kind(number), place, given)
        loss = self.loss_of(h, tokens.labels)
        gradients = iter(torch.autograd.grad(loss, [m for n in sorted(train) for m in lora[n].values()]))
        return loss.detach(), {n: {name: next(gradients) for name in lora[n]} for n in sorted(train)}

    def prefill(self, ids: Tensor, length: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """A prompt, padded to `length` -> the logits of its last token (V,), and what the layers remember."""
        padding = length - len(ids)
        tokens = Tokens.packed([ids, ids.new_full((padding,), 3)] if padding else [ids])
        memories = [Remembered() for _ in self.layers]
        h, _ = self._up(tokens, memories)
        for number, memory in enumerate(memories):
            shapes = {name: (length, *s.shape) if s.by_position else s.shape for name, s in self.kind(number).states.items()}
            assert {name: tuple(x.shape) for name, x in memory.kept.items()} == shapes
        return self.logits_of(h)[len(ids) - 1], [memory.kept for memory in memories]

    def decode(self, token: int, position: int, length: int, past: list[dict[str, Tensor]]) -> Tensor:
        """One further token -> its logits (V,); `past` becomes what is remembered after it."""
        h = self.embed(torch.tensor([token]))
        tables = self._all_typed(token_tables(self.model.config, length), position_ids=torch.tensor([position]))
        values: dict[str, Tensor] = {}
        for number, place in enumerate(self.model.places):
            memory = Remembered(past[number])
            reads = {name: tables[table] for name, table in place.reads.items() if table in tables}
            takes = {name: values[value] for name, value in place.takes.items()}
            h, *given = self.block(number, {"h": h, **reads, **takes}, memory=memory)
            values |= bound_gives(self.kind(number), place, given)
            states = self.kind(number).states
            assert set(memory.kept) == set(states)
            for name, value in memory.kept.items():
                assert tuple(value.shape) == ((1, *states[name].shape) if states[name].by_position else states[name].shape)
                if states[name].by_position:
                    value = torch.cat((past[number][name][:position], value, past[number][name][position + 1 :]))
                past[number][name] = value
        return self.logits_of(h)[0]

    def continued(self, ids: Tensor, prompt: int, length: int) -> Tensor:
        """Logits (len(ids) - prompt + 1, V), of the prompt's last token and of each further one."""
        with torch.no_grad():
            first, past = self.prefill(ids[:prompt], length)
            rest = [self.decode(int(ids[place]), place, length, past) for place in range(prompt, len(ids))]
        return torch.stack([first, *rest])

    def _up(self, tokens: Tokens, memories: Sequence[Remembered] | None = None) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """The last h, and each layer's inputs."""
        h, tables = self.embed(tokens.input_ids), self._tables(tokens)
        values: dict[str, Tensor] = {}
        inputs = []
        with torch.no_grad():
            for number, place in enumerate(self.model.places):
                inputs.append(self._inputs(place, h, tables, values))
                h, *given = self.block(number, inputs[-1], memory=None if memories is None else memories[number])
                values |= bound_gives(self.kind(number), place, given)
        return h, inputs

    def _inputs(self, place: Place, h: Tensor, tables: Values, values: Values) -> dict[str, Tensor]:
        kind = self.model.kinds[place.kind]
        assert (set(place.reads), set(place.takes)) == (set(kind.reads), set(kind.takes))
        reads = {name: tables[place.reads[name]] for name in kind.reads}
        return {"h": h, **reads, **{name: values[place.takes[name]] for name in kind.takes}}

    def _tables(self, tokens: Tokens) -> dict[str, Tensor]:
        tables = step_tables(self.model.config, len(tokens.input_ids))
        return self._all_typed(tables, position_ids=tokens.position_ids, segment_ids=tokens.segment_ids)

    def _all_typed(self, tables: Tables, **inputs: Tensor) -> dict[str, Tensor]:
        if self.embedding.dtype == torch.float64:  # the product's are float32, as transformers' are in float32
            tables = replace(tables, stored=self._exact_rope(len(next(iter(tables.stored.values())))) if tables.stored else {})
        return {name: self._typed(table) for name, table in tables(**inputs).items()}

    def _exact_rope(self, length: int) -> dict[str, Tensor]:
        rope = {}
        for name, kind in self.model.config.attention_kinds.items():
            frequencies = inverse_frequencies(kind, self.model.config.rotary_dim).double() * kind.rotary
            angles = (torch.arange(length)[:, None] * frequencies).tile(2)
            scale = kind.rope_scaling.attention_factor if kind.rope_scaling else 1.0
            rope |= {f"rope.{name}.cos": angles.cos() * scale, f"rope.{name}.sin": angles.sin() * scale}
        return rope

    def _typed(self, table: Tensor) -> Tensor:
        return table.to(self.embedding.dtype)

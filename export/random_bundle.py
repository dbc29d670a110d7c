"""Bundles of random weights, written straight into int4: to measure a shape without its checkpoint, and without its float model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bench.shapes import RandomBundleOptions, shape_fields
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.bundle.schedule import ScheduleConfig
from lcsb_mobile.bundle.weights import LAYERS, TAIL, WeightTensor
from lcsb_mobile.config import LoraConfig, ModelConfig, QuantizationConfig
from lcsb_mobile.errors import BundleError, OptionError
from lcsb_mobile.export.bundle import Content, Progress, export_model
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.models import Model, architecture, model_of
from lcsb_mobile.export.models.tables import table_weights
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.formatting import megabytes

DEVIATION = 0.02  # of weights, as models are initialised: losses begin near log(vocab_size)
INTEGER_DEVIATION = {"uint8": 16 / 12**0.5, "int8": 256 / 12**0.5}  # of what packed random bytes stand for: two nibbles, or one byte
CHUNK = 16 * 2**20  # bytes made at once
OTHER_FILES = 50_000_000  # bytes left for programs, adapter and tokenizer

DESCRIPTION = "random weights"


def random_bundle(path: Path, options: RandomBundleOptions, progress: Progress = lambda stage, done, total: None) -> Path:
    """`path`, a bundle as `options` say: the one that is there if it fits, else a new one.

    Raises OptionError when it would not fit on the disk, BundleError when another bundle is there.
    """
    if not (path / MANIFEST_FILE).exists():
        write_random_bundle(path, options, progress)
        return path
    found = Bundle.open(path).manifest
    expected = (options.target, _source(options), read_shape(options), options.seq_len, options.rank, options.seed)
    if (found.target, found.source, found.model, found.seq_len, found.adapter.lora.rank, found.seed) != expected:
        wanted = f"{_source(options)} for {options.target}, {options.seq_len} tokens, rank {options.rank}"
        there = f"{found.source} for {found.target}, {found.seq_len} tokens, rank {found.adapter.lora.rank}"
        raise BundleError(f"{path}: expected {wanted}, found {there}; choose another --bundle-dir or remove it")
    return path


def write_random_bundle(path: Path, options: RandomBundleOptions, progress: Progress = lambda stage, done, total: None) -> None:
    """Programs, tables and files are as `export_bundle` writes them; weights and adapter are random, and there is no golden trace.

    Raises OptionError, or OutputExistsError where `path` exists.
    """
    config = read_shape(options)
    export = ExportOptions(
        model=options.name,
        output=path,
        target=options.target,
        lora=LoraConfig(rank=options.rank),
        schedule=ScheduleConfig(subsets=min(ScheduleConfig().subsets, config.num_hidden_layers)),
        seq_len=options.seq_len,
        seed=options.seed,
    )
    check_disk(path, weight_table(config, export.quantization, options.seq_len))
    content = Content(write_random_weights, random_adapter, model=False)
    export_model(lambda: RandomModel(config, options), export, progress, content)


def read_shape(options: RandomBundleOptions) -> ModelConfig:
    fields = shape_fields(options)
    return architecture(fields["model_type"]).read_config(fields)


def check_disk(path: Path, table: tuple[WeightTensor, ...]) -> None:
    """Raises OptionError unless the disk has room for the bundle."""
    directory = next(parent for parent in path.absolute().parents if parent.is_dir())
    needed, free = table[-1].offset + table[-1].nbytes + OTHER_FILES, shutil.disk_usage(directory).free
    if needed > free:
        raise OptionError(
            f"{path}: the bundle needs {megabytes(needed)} of disk space, found {megabytes(free)} free; "
            "nothing was written; free some, choose another directory, or a smaller shape"
        )


class RandomModel(Checkpoint):
    """A model without tensors, in a checkpoint's place."""

    def __init__(self, config: ModelConfig, options: RandomBundleOptions) -> None:
        self.config, self.description, self.seed = config, DESCRIPTION, options.seed
        self.left_out: Mapping[str, tuple[int, ...]] = {}

    def read(self, name: str) -> Tensor:
        raise KeyError(name)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        raise KeyError(name)

    def write_tokenizer(self, directory: Path) -> None:
        write_byte_tokenizer(directory)

    def close(self) -> None:
        """Nothing is held."""


def write_byte_tokenizer(directory: Path) -> None:
    """A tokenizer of the 256 bytes and one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}\n', encoding="utf-8")


def random_adapter(layout: AdapterLayout, seed: int) -> Float32Array:
    """As initialised, but B is not zero: so no gradient is."""
    adapter = layout.initial(seed)
    generator = np.random.default_rng(seed + 1)
    for name, view in layout.named(adapter):
        if ".lora_B." in name:
            view[:] = 0.01 * generator.standard_normal(view.shape, np.float32)
    return adapter


def write_random_weights(
    path: Path, model: Checkpoint, quantization: QuantizationConfig, seq_len: int, progress: Callable[[int, int], None]
) -> tuple[tuple[WeightTensor, ...], dict[str, float]]:
    """`compress.write_weights` without weights: of no tensor more than CHUNK bytes are in memory. There are no errors to report."""
    table = weight_table(model.config, quantization, seq_len)
    generator = np.random.default_rng(0)
    tables = table_weights(model.config, seq_len)
    center = _norm_center(model.config)
    dtypes = {tensor.name.removesuffix(".packed"): tensor.dtype for tensor in table if tensor.name.endswith(".packed")}
    with path.open("wb") as file:
        for number, tensor in enumerate(table):
            file.seek(tensor.offset)
            if tensor.name in tables:
                file.write(tables[tensor.name].contiguous().numpy().data)
                continue
            if tensor.dtype == "float32" and tensor.per_layer:
                file.write(_random_vectors(generator, model_of(model.config), tensor, center).data)
                continue
            scale = DEVIATION / INTEGER_DEVIATION[dtypes.get(tensor.name.removesuffix(".scale"), "uint8")]
            for start in range(0, tensor.nbytes, CHUNK):
                file.write(_random_bytes(generator, tensor, min(CHUNK, tensor.nbytes - start), scale, center))
            progress(number + 1, len(table))
        file.truncate(table[-1].offset + table[-1].nbytes + TAIL)
    return table, {}


def _random_bytes(generator: np.random.Generator, tensor: WeightTensor, size: int, scale: float, center: float) -> bytes:
    """Part of a tensor. Packed: any bytes. Scales: around the one that gives DEVIATION. Norms: around what scales by 1."""
    if tensor.name.endswith(".packed"):
        return generator.bytes(size)
    if tensor.name.endswith(".scale"):
        return (scale * generator.uniform(0.7, 1.3, size // 2)).astype(np.float16).tobytes()
    return generator.normal(center, DEVIATION, size // 4).astype(np.float32).tobytes()


def _random_vectors(generator: np.random.Generator, model: Model, tensor: WeightTensor, center: float) -> Float32Array:
    """Layer by layer as a checkpoint would hold it, then as it is stored. Norms around what scales by 1."""
    kind, _, name = tensor.name.removeprefix(LAYERS).partition(".")
    vector = model.kinds[kind].vectors[name]
    middle = 0.0 if name.endswith(".bias") else center
    drawn = generator.normal(middle, DEVIATION, (tensor.shape[0], *(vector.source_shape or vector.shape))).astype(np.float32)
    stored: Float32Array = torch.stack([vector.convert(layer) for layer in torch.from_numpy(drawn)]).contiguous().numpy()
    return stored


def _norm_center(config: ModelConfig) -> float:
    """1, or 0 where a norm multiplies by 1 + weight."""
    ones = torch.ones(1, config.hidden_size)
    return 1.0 - float(architecture(config.model_type).final_norm(ones, torch.zeros(config.hidden_size), config).mean().round())


def _source(options: RandomBundleOptions) -> str:
    return f"{options.name}: {DESCRIPTION}"

"""What an export is refused for before it reads a weight: options that do not go together, and lengths that the model has not."""

from __future__ import annotations

from typing import get_args

from lcsb_mobile.bundle.checks import BUFFER_BYTES, FLOAT
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.config import HALF_PRODUCTS, INT8_ACTIVATIONS, ModelConfig, Programs
from lcsb_mobile.errors import OptionError
from lcsb_mobile.export.rounding import check_quantizer
from lcsb_mobile.export.target import exporter
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.targets import TARGETS, target_row


def check_options(options: ExportOptions) -> None:
    """Raises OptionError, or MissingDependencyError where what the target's exporter needs is not installed."""
    quantization, optimizer = options.quantization, options.optimizer
    check_ranges(
        {
            "rank": options.lora.rank,
            "alpha": options.lora.alpha,
            "bits": quantization.bits,
            "embedding-bits": quantization.embedding_bits,
            "accuracy-level": options.accuracy_level,
            "group-size": quantization.group_size,
            "seq-len": options.seq_len,
            "subsets": options.schedule.subsets,
            "weight-decay": optimizer.weight_decay,
            "clip-norm": optimizer.clip_norm,
            "seed": options.seed,
        }
    )
    target_row(options.target)
    _check_programs(options)
    exporter(options.target).import_tools()
    _check_accuracy_level(options)
    check_quantizer(options)


def check_length(seq_len: int, config: ModelConfig) -> None:
    """Raises OptionError for a length that the model cannot be trained at."""
    heads = config.linear_attention
    if heads is not None and seq_len % heads.chunk:
        raise OptionError(f"seq-len: {config.model_type} needs a multiple of {heads.chunk}, found {seq_len}")
    widest = max(config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim)
    if seq_len > (most := BUFFER_BYTES // (FLOAT * widest)):
        raise OptionError(f"seq-len: expected at most {most}, as activations of this model are {widest} wide, found {seq_len}")
    for kind in config.attention_kinds.values():
        scaling = kind.rope_scaling
        if scaling is not None and scaling.longest is not None and seq_len > scaling.longest:
            why = f"RoPE of type {scaling.rope_type} turns the tokens of longer sequences otherwise, by how long they are"
            raise OptionError(f"seq-len: expected at most {scaling.longest}, found {seq_len}: {why}")


def _check_accuracy_level(options: ExportOptions) -> None:
    level, bits = options.accuracy_level, options.quantization.bits
    able = {
        HALF_PRODUCTS: [name for name, row in TARGETS.items() if row.half_products],
        INT8_ACTIVATIONS: [name for name, row in TARGETS.items() if row.int8_activations],
    }
    if level and (options.target not in able[level] or (level == INT8_ACTIVATIONS and bits != 4)):
        needed = f"target {' or '.join(able[level])}" + (" and 4 bits" if level == INT8_ACTIVATIONS else "")
        raise OptionError(f"accuracy-level: {level} needs {needed}, found target {options.target} and {bits} bits")


def _check_programs(options: ExportOptions) -> None:
    if options.programs not in get_args(Programs):
        raise OptionError(f"programs: expected one of {', '.join(get_args(Programs))}, found {options.programs!r}")
    able = [name for name, row in TARGETS.items() if row.gpu_programs]
    bits, level = options.quantization.bits, options.accuracy_level
    if options.programs == "gpu" and (options.target not in able or bits != 4 or level):
        needed = f"target {' or '.join(able)}, 4 bits and accuracy level 0"
        raise OptionError(f"programs: gpu needs {needed}, found target {options.target}, {bits} bits and accuracy level {level}")

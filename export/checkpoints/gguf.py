"""Reading a GGUF file through transformers, which decodes its quantised tensors and rebuilds its tokenizer."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcsb_mobile.errors import CheckpointError, MissingDependencyError, TokenizerError, UnsupportedModelError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import some

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}  # GGUF's name -> model_type

# What gguf and transformers raise on a truncated or malformed file, having no error class of their own.
MALFORMED = (ValueError, IndexError, KeyError, OSError, RuntimeError)


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(the contents of a `config.json`, tensor name -> float32 tensor), both in Hugging Face's names.

    Raises MissingDependencyError, CheckpointError for a malformed file, UnsupportedModelError for an architecture or an
    option that cannot be read.
    """
    _require()
    _check_header(path)
    import transformers

    try:
        with _quiet():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, all at once
                output_loading_info=True,
            )
    except MALFORMED as error:
        raise _malformed(path, error) from error
    model, info = loaded
    faults = [f"{name}: missing" for name in sorted(info["missing_keys"])]  # transformers has filled these with random numbers
    faults += [f"{name}: expected shape {list(shape)}, found {list(found)}" for name, found, shape in sorted(info["mismatched_keys"])]
    if faults:
        raise CheckpointError(f"{path}: {some(faults)}")
    raw: dict[str, Any] = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for field in ("quantization_config", "_name_or_path"):  # of the file, not of the model that was decoded
        raw.pop(field, None)
    return raw, {name: tensor.detach() for name, tensor in model.state_dict().items()}


def save_tokenizer(path: Path, directory: Path) -> None:
    """Writes the file's tokenizer as transformers saves one: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`."""
    _require()
    import transformers

    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
            )
            tokenizer.init_kwargs.pop("local_files_only", None)  # it would be saved as a setting of the tokenizer
            tokenizer.save_pretrained(directory)
    except MALFORMED as error:
        raise TokenizerError(
            f"{path}: the tokenizer cannot be read ({error}); use a Hugging Face directory with a tokenizer.json"
        ) from error


def _require() -> None:
    missing = [name for name in ("gguf", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"a .gguf file needs {' and '.join(missing)}; {how_to_install('gguf')}")


def _check_header(path: Path) -> None:
    """Raises for what transformers would misread: a truncated file, another architecture, scaled RoPE, which it ignores."""
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        found = str(reader.fields["general.architecture"].contents())
    except MALFORMED as error:
        raise _malformed(path, error) from error
    if found not in ARCHITECTURES:
        raise UnsupportedModelError(f"{path}: GGUF architecture {found!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    scaling = reader.fields.get(f"{found}.rope.scaling.type")
    scaled = scaling is not None and scaling.contents() != "none"
    if scaled or any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors):
        raise UnsupportedModelError(f"{path}: RoPE scaling is not read from GGUF; use the model's Hugging Face directory of safetensors")


def _malformed(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable GGUF file, or truncated ({error}); download it again")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and progress bars of transformers meanwhile."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the bar that decodes tensors has no switch
            yield
    finally:
        logging.disable(disabled)

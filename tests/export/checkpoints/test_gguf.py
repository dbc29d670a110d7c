"""Reading GGUF: a tiny file written here, and every refusal. A real file is read in test_smollm2.py."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import gguf
import pytest
import torch

from lcsb_mobile.errors import CheckpointError, MissingDependencyError, TokenizerError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.installing import how_to_install


def test_gguf_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find_spec(name, *rest))
    with pytest.raises(MissingDependencyError, match=rf"needs gguf; .*{re.escape(how_to_install('gguf'))}"):
        open_checkpoint(tmp_path / "model.gguf")


TINY_LLAMA = {
    "block_count": 1,
    "context_length": 16,
    "embedding_length": 8,
    "feed_forward_length": 8,
    "attention__head_count": 2,
    "attention__head_count_kv": 2,
    "attention__layer_norm_rms_epsilon": 1e-5,
    "rope__freq_base": 1e4,
    "rope__dimension_count": 4,
    "vocab_size": 5,
}


def write_gguf(path: Path, architecture: str, tensors: dict[str, tuple[int, ...]], **fields: str | int | float) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for name, value in fields.items():
        add[type(value)](f"{architecture}.{name.replace('__', '.')}", value)
    for name, shape in tensors.items():
        writer.add_tensor(name, torch.ones(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_tensors() -> dict[str, tuple[int, ...]]:
    layer: dict[str, tuple[int, ...]] = dict.fromkeys((f"{name}.weight" for name in ("attn_norm", "ffn_norm")), (8,))
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    layer |= dict.fromkeys((f"{name}.weight" for name in matrices), (8, 8))
    return {"token_embd.weight": (5, 8), "output_norm.weight": (8,)} | {f"blk.0.{name}": shape for name, shape in layer.items()}


def test_gguf_reads_and_has_no_tokenizer(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", "llama", tiny_tensors(), **TINY_LLAMA)
    with open_checkpoint(tmp_path / "tiny.gguf") as checkpoint:
        assert all(tuple(checkpoint.read(name).shape) == shape for name, shape in checkpoint_weights(checkpoint.config).items())
        with pytest.raises(TokenizerError, match=r"tiny\.gguf: the tokenizer cannot be read"):
            checkpoint.write_tokenizer(tmp_path / "out")


def test_bad_gguf_tensors_are_named_at_once(tmp_path: Path) -> None:
    tensors = {name: shape for name, shape in tiny_tensors().items() if name != "blk.0.ffn_up.weight"} | {"output_norm.weight": (7,)}
    write_gguf(tmp_path / "tiny.gguf", "llama", tensors, **TINY_LLAMA)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "tiny.gguf")
    faults = "model.layers.0.mlp.up_proj.weight: missing; model.norm.weight: expected shape [8], found [7]"
    assert str(caught.value) == f"{tmp_path / 'tiny.gguf'}: {faults}"


def test_unsupported_ggufs(tmp_path: Path) -> None:
    write_gguf(tmp_path / "mamba.gguf", "mamba", {})
    with pytest.raises(
        UnsupportedModelError, match="mamba.gguf: GGUF architecture 'mamba' is not supported; supported: llama, qwen2, qwen3, gemma3"
    ):
        open_checkpoint(tmp_path / "mamba.gguf")
    write_gguf(tmp_path / "scaled.gguf", "llama", tiny_tensors(), **TINY_LLAMA, rope__scaling__type="yarn")
    with pytest.raises(UnsupportedModelError, match="scaled.gguf: llama.rope.scaling.type: found 'yarn', supported none, linear"):
        open_checkpoint(tmp_path / "scaled.gguf")


@pytest.mark.parametrize("keep", [0, 3, 40, -4])
def test_truncated_gguf(tmp_path: Path, keep: int) -> None:
    write_gguf(tmp_path / "model.gguf", "llama", {"output_norm.weight": (4,)})
    content = (tmp_path / "model.gguf").read_bytes().rstrip(b"\0")
    (tmp_path / "model.gguf").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"model\.gguf: not a readable GGUF file, or truncated .*download it again"):
        open_checkpoint(tmp_path / "model.gguf")

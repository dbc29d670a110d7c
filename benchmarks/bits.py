"""What bits cost: loss of SmolLM2-135M-Instruct on two texts, its matrices rounded as an export rounds them.

The texts: the first 24 sequences of 128 tokens of `fortunes` (held-out part) and of the licence in this repository. Needs
`make models`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import torch
from common import MODELS, ROOT, markdown_table, write_results

from lcsb_mobile.checkpoint import open_checkpoint
from lcsb_mobile.config import ModelConfig
from lcsb_mobile.float_model import Read, model_logits
from lcsb_mobile.quantization import dequantize, quantize
from lcsb_mobile.tokenizer import Tokenizer

SETTINGS = ((None, None, 32), (8, 8, 64), (4, 4, 64), (4, 4, 32), (4, 8, 64), (4, 8, 32), (4, 8, 16))
SEQUENCE, SEQUENCES = 128, 24


def rounded(read: Read, bits: int | None, embedding_bits: int | None, group: int, name: str) -> torch.Tensor:
    tensor = read(name)
    chosen = embedding_bits if "embed" in name or "lm_head" in name else bits
    if tensor.dim() < 2 or chosen is None:
        return tensor
    matrix = quantize(tensor, chosen, group)
    return dequantize(matrix.packed, matrix.scale)


def main() -> None:
    checkpoint = open_checkpoint(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    directory = ROOT / "runs" / "tokenizer"
    checkpoint.write_tokenizer(directory)
    tokenizer = Tokenizer.open(directory, checkpoint.config.vocab_size)
    sayings = [json.loads(line)["text"] for line in (MODELS / "fortunes.eval.jsonl").read_text().splitlines()]
    texts = {"fortunes": "\n\n".join(sayings[:400]), "licence": (ROOT / "LICENSE").read_text()}
    sequences = {name: torch.tensor(tokenizer.encode(text))[: SEQUENCE * SEQUENCES].split(SEQUENCE) for name, text in texts.items()}
    rows, table = [], []
    for bits, embedding_bits, group in SETTINGS:
        cache: dict[str, torch.Tensor] = {}
        exact = partial(rounded, checkpoint.read, bits, embedding_bits, group)

        def read(name: str, cache: dict[str, torch.Tensor] = cache, exact: Read = exact) -> torch.Tensor:
            if name not in cache:
                cache[name] = exact(name)
            return cache[name]

        losses = {name: mean_loss(checkpoint.config, read, ids) for name, ids in sequences.items()}
        label = [f"{b} bits, group {group}" if b else "float32" for b in (bits, embedding_bits)]
        rows.append({"bits": bits, "embedding_bits": embedding_bits, "group_size": group, **losses})
        table.append([*label, " / ".join(f"{loss:.3f}" for loss in losses.values())])
        print(table[-1], flush=True)
    write_results("bits", markdown_table(["blocks", "embedding and head", "loss on fortunes / on the licence"], table), rows)


def mean_loss(config: ModelConfig, read: Read, sequences: Sequence[torch.Tensor]) -> float:
    losses = [torch.nn.functional.cross_entropy(model_logits(config, read, ids)[:-1], ids[1:]) for ids in sequences if len(ids) == SEQUENCE]
    return float(torch.stack(losses).mean())


if __name__ == "__main__":
    main()

"""How full packed sequences are, by how many are open at once: real text, in the order of an epoch.

The texts: `fortunes` in the tokens of SmolLM2 (where `make models` has brought them; several sequence lengths), and the sample messages
of `tiny` in its own. One open sequence is next fit; all: first fit without a bound. No packing can be fuller than `best`, which fills
every sequence but the last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from common import MODELS, ROOT, markdown_table, write_results

from lcsb_mobile import tiny
from lcsb_mobile.data.dataset import Dataset, read_dataset
from lcsb_mobile.data.packing import OPEN_SEQUENCES, assign
from lcsb_mobile.data.shuffling import shuffled
from lcsb_mobile.text.tokenizer import Tokenizer

BOUNDS = (1, 4, OPEN_SEQUENCES, 64, None)
GGUF, FORTUNES = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", MODELS / "fortunes.train.jsonl"
SEED, EPOCH = 0, 0


def texts() -> Iterator[tuple[str, Path, Tokenizer, tuple[int, ...]]]:
    """(name, file, tokenizer, sequence lengths)."""
    from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint  # needs torch

    if GGUF.is_file() and FORTUNES.is_file():
        with open_checkpoint(GGUF) as checkpoint:
            directory = ROOT / "runs" / "tokenizer"
            checkpoint.write_tokenizer(directory)
            yield "fortunes", FORTUNES, Tokenizer.open(directory, checkpoint.config.vocab_size), (64, 128, 256, 512)
    with open_checkpoint(tiny.tiny_checkpoint()) as checkpoint:
        yield "messages of tiny", tiny.MESSAGES, Tokenizer.open(tiny.DIRECTORY, checkpoint.config.vocab_size), (128, 256, 512)


def measure(dataset: Dataset, seq_len: int, bound: int | None) -> tuple[int, float]:
    """(sequences of the epoch, microseconds an example)."""
    order = shuffled(len(dataset), SEED, EPOCH)
    start = time.process_time()
    count = sum(1 for _ in assign(zip(order.tolist(), dataset.lengths[order].tolist()), seq_len, bound or len(dataset)))
    return count, (time.process_time() - start) * 1e6 / len(dataset)


def main() -> None:
    rows, table = [], []
    for name, file, tokenizer, lengths in texts():
        for seq_len in lengths:
            dataset = read_dataset(file, tokenizer, seq_len)
            tokens, best = dataset.report.tokens, -(-dataset.report.tokens // seq_len)
            fills = []
            for bound in BOUNDS:
                sequences, microseconds = measure(dataset, seq_len, bound)
                fills.append(tokens / (sequences * seq_len))
                rows.append(
                    {
                        "text": name,
                        "examples": len(dataset),
                        "tokens": tokens,
                        "seq_len": seq_len,
                        "open_sequences": bound,
                        "sequences": sequences,
                        "fill": fills[-1],
                        "microseconds_an_example": microseconds,
                    }
                )
            table.append([name, f"{len(dataset):,}", str(seq_len), *(f"{fill:.1%}" for fill in fills), f"{tokens / (best * seq_len):.1%}"])
            print(table[-1], flush=True)
    header = ["text", "examples", "sequence length", *("all" if bound is None else f"{bound} open" for bound in BOUNDS), "best"]
    write_results("packing", markdown_table(header, table), rows)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Train the embedded model `tiny` on the text that every Python installation carries: its standard library.

The result is an ordinary Hugging Face checkpoint of the Qwen2 architecture (`config.json`, `model.safetensors`, `tokenizer.json`,
`tokenizer_config.json`) with a `TRAINING.md` beside it that says how it was made and how good it is. Nothing is downloaded.

The text is docstrings (prose: what the model is fine-tuned on later is English messages) and, in smaller part, sources. One token
is one byte, so that losses in nats per token are nats per byte.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import math
import platform
import random
import shlex
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

PACKAGE = Path(__file__).resolve().parents[2] / "lcsb_mobile" / "tiny"
CONFIG = json.loads((PACKAGE / "config.json").read_text())  # written by hand, as tokenizer_config.json: the model's shape stands there
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids from 256
END = 256
CONTEXT = 256  # tokens a training sequence
PROSE_SHARE = 0.7  # of the sequences; the others are sources
SKIPPED_DIRECTORIES = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
TABLE_DIRECTORIES = {"encodings", "pydoc_data"}  # their sources are tables; their docstrings and help topics are read all the same


@dataclass(frozen=True)
class Corpus:
    """Token streams (int64[n], documents end with `END`) of the training files and of the files held out."""

    prose: np.ndarray
    source: np.ndarray
    held_out: np.ndarray  # prose only, no document of which stands in the training files


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's `bytes_to_unicode`), by byte."""
    kept = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    replacements = iter(range(256, 512))
    return [chr(byte if byte in kept else next(replacements)) for byte in range(256)]


def write_descriptions(directory: Path) -> None:
    """Write the configuration and the tokenizer.

    A byte-level BPE without merges: id b is the byte b, so any reader of `tokenizer.json` can do it, its regex or not.
    """
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(directory / "tokenizer.json"))
    for name in ("config.json", "tokenizer_config.json"):
        (directory / name).write_text((PACKAGE / name).read_text())


def prose_of(path: Path, tree: ast.Module) -> list[str]:
    """The docstrings of a module, in order; of `pydoc_data/topics.py` its strings, the language reference's chapters."""
    if path.parent.name == "pydoc_data":
        found = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    else:
        owners = (n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)))
        found = [ast.get_docstring(n, clean=False) or "" for n in owners]
    return [text for text in (inspect.cleandoc(raw) for raw in found) if len(text) >= 20]


def pack(documents: list[str]) -> np.ndarray:
    """One stream int64[n] of the documents' bytes, each closed by `END`; lone surrogates become question marks."""
    parts = [np.append(np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64), END) for text in documents]
    return np.concatenate(parts)


def read_library(seed: int) -> Corpus:
    """Read the standard library. One file in twenty-five, by the hash of its name, is held out; equal docstrings count once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py"))
    names = [name for name in names if not SKIPPED_DIRECTORIES & set(name.split("/"))]
    held = {name for name in names if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 25 == 0}
    prose, source, held_out = list[str](), list[str](), list[str]()
    seen = set[str]()
    for name in sorted(names, key=lambda name: (name in held, name)):  # held-out files last: what was seen is dropped from them
        try:
            text = (root / name).read_text("utf-8")
            documents = prose_of(root / name, ast.parse(text))
        except (SyntaxError, UnicodeDecodeError):  # files kept for lib2to3's own purposes, sources in other encodings
            continue
        fresh = list(dict.fromkeys(document for document in documents if document not in seen))
        seen.update(fresh)
        (held_out if name in held else prose).extend(fresh)
        if name not in held and not TABLE_DIRECTORIES & set(name.split("/")):
            source.append(text)
    shuffle = random.Random(seed).shuffle
    shuffle(prose)
    shuffle(source)
    return Corpus(pack(prose), pack(source), pack(held_out))


def draw(corpus: Corpus, batch: int, generator: np.random.Generator) -> torch.Tensor:
    """A batch int64[batch, CONTEXT + 1] of windows at random places, prose with probability `PROSE_SHARE`."""
    streams = (corpus.prose if generator.random() < PROSE_SHARE else corpus.source for _ in range(batch))
    places = ((stream, int(generator.integers(len(stream) - CONTEXT))) for stream in streams)
    return torch.from_numpy(np.stack([stream[start : start + CONTEXT + 1] for stream, start in places]))


def token_losses(model: Qwen2ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each next token, in nats: int64[B, T] -> float32[B, T - 1]."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (B, T - 1, V)
    return torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")


@torch.no_grad()
def stream_loss(model: Qwen2ForCausalLM, stream: np.ndarray, windows: int) -> float:
    """The mean loss in nats per byte over the first `windows` adjoining windows, each read without what stands before it."""
    count = min(windows, (len(stream) - 1) // CONTEXT)
    rows = torch.from_numpy(np.stack([stream[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in range(count)]))
    return float(torch.cat([token_losses(model, part) for part in torch.split(rows, 16)]).mean())


@torch.no_grad()
def messages_loss(model: Qwen2ForCausalLM, path: Path) -> float:
    """The mean loss over every byte but the first, and the end token, of each message, each read alone."""
    texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    return float(torch.cat([token_losses(model, torch.from_numpy(pack([text]))[None])[0] for text in texts]).mean())


def optimizers_of(model: Qwen2ForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the embedding, norms and biases.

    Muon (Jordan, 2024) is here because the budget is minutes: after 250 steps the held-out loss was 1.80 nats per byte against
    2.01 with AdamW alone, at a tenth more time a step. `match_rms_adamw` lets both share one learning rate.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def learning_rate_factor(step: int, progress: float) -> float:
    """Linear warm-up over 100 steps, then a cosine over `progress` in [0, 1] from 1 down to 0.02."""
    return min(1.0, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * progress))


def train(model: Qwen2ForCausalLM, corpus: Corpus, args: argparse.Namespace) -> tuple[int, float]:
    """Train in place; the steps done and the mean training loss of the last hundred."""
    optimizers = optimizers_of(model, args.learning_rate)
    generator = np.random.default_rng(args.seed)
    started = time.monotonic()
    losses: list[float] = []
    while True:
        elapsed = (time.monotonic() - started) / 60
        progress = max(len(losses) / args.steps, elapsed / args.minutes)
        if progress >= 1:
            return len(losses), float(np.mean(losses[-100:]))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = args.learning_rate * learning_rate_factor(len(losses), progress)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # half again as fast as float32 where the CPU has avx512_bf16
            loss = token_losses(model, draw(corpus, args.batch, generator)).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            held = f"  held out {stream_loss(model, corpus.held_out, 64):.4f}" if len(losses) % 500 == 0 else ""
            print(f"step {len(losses)}  {elapsed:.1f} min  loss {np.mean(losses[-50:]):.4f}{held}", flush=True)


def save(model: Qwen2ForCausalLM, directory: Path) -> None:
    """Write the weights. float16, whose rounding (2^-11) is finer than bfloat16's; the tied head is not stored."""
    tensors = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which an installed package cannot use


def describe(directory: Path, corpus: Corpus, command: str, steps: int, batch: int, training_loss: float, minutes: float) -> str:
    """`TRAINING.md`; the losses are those of the float16 checkpoint as a reader finds it, computed in float32."""
    model = Qwen2ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return f"""# How `tiny` was trained

    {command}

| | |
|---|---|
| standard library of | Python {platform.python_version()} |
| parameters | {sum(p.numel() for p in model.parameters()):,} |
| text | {len(corpus.prose) + len(corpus.source):,} bytes: {len(corpus.prose):,} of docstrings, {len(corpus.source):,} of sources |
| held out | {len(corpus.held_out):,} bytes of docstrings of other files |
| steps | {steps:,} |
| tokens seen | {steps * batch * CONTEXT:,} |
| wall time | {minutes:.1f} minutes, threads: {torch.get_num_threads()}, torch {torch.__version__} |
| training loss, mean of the last 100 steps | {training_loss:.4f} nats per byte |
| held-out loss | {stream_loss(model, corpus.held_out, 1000):.4f} nats per byte |
| loss on messages_eval.jsonl | {messages_loss(model, PACKAGE / "messages_eval.jsonl"):.4f} nats per byte |

The losses but the training loss are those of the stored float16 weights, computed in float32. Held-out text is read in windows of
{CONTEXT} bytes, each without what stands before it; messages one by one, every byte but the first and the end token counted.
Whichever of `--steps` and `--minutes` ends first ends the run, so that only a run that does all its steps can be repeated exactly.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PACKAGE, help="directory to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier, the learning rate's cosine with it")
    parser.add_argument("--batch", type=int, default=16, help=f"sequences of {CONTEXT} bytes a step")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    write_descriptions(args.output)
    corpus = read_library(args.seed)
    print(f"bytes: {len(corpus.prose)} prose, {len(corpus.source)} source, {len(corpus.held_out)} held out", flush=True)
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG))
    started = time.monotonic()
    steps, training_loss = train(model, corpus, args)
    minutes = (time.monotonic() - started) / 60
    save(model, args.output)
    text = describe(args.output, corpus, shlex.join(["python", *sys.argv]), steps, args.batch, training_loss, minutes)
    (args.output / "TRAINING.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

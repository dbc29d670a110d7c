"""What Python predicts and writes for the bundles that android_demo's tests read: `write_runtime_vectors.py BUNDLES`: BUNDLES/runtime.json.

Peaks and shares of time are held to the last digit there, greedy texts to the token. `make device-bundles` calls this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.generation.generate import continue_prompt
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.planning.cost import time_share
from lcsb_mobile.planning.memory import predicted_peak
from lcsb_mobile.runners import make_runner

PROMPTS = ("the ", "Dear friend, ")
GREEDY = SamplingConfig(max_tokens=12, temperature=0)


def vectors(path: Path) -> dict[str, Any]:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    layers, steps = manifest.model.num_hidden_layers, list(dict.fromkeys(manifest.schedule))
    return {
        "peaks": [predicted_peak(manifest, manifest.schedule, keep, 0) for keep in range(layers + 1)],
        "accumulating": predicted_peak(manifest, manifest.schedule, 0, 1000, 2),
        "samples": predicted_peak(manifest, manifest.schedule, 0, 0, samples=True),
        "large": predicted_peak(with_a_large_head(manifest), manifest.schedule, 0, 0),
        "time_shares": [[time_share(manifest, step, keep) for step in steps] for keep in (0, 1, layers)],
        "texts": texts(bundle),
    }


def with_a_large_head(manifest: Manifest) -> Manifest:
    """One that needs more than a block."""
    return msgspec.structs.replace(manifest, model=msgspec.structs.replace(manifest.model, vocab_size=151_936, hidden_size=896))


def texts(bundle: Bundle) -> dict[str, Any]:
    runner, adapter = make_runner(bundle, threads=1), bundle.initial_adapter()
    written = {}
    for prompt in PROMPTS:
        continuation = continue_prompt(runner, bundle.tokenizer, adapter, prompt, bundle.manifest.seq_len, GREEDY)
        pieces = list(continuation)
        written[prompt] = {"text": "".join(pieces), "tokens": continuation.tokens, "ended": continuation.ended}
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    found = {path.parent.name: vectors(path.parent) for path in sorted(directory.glob("*/manifest.json"))}
    (directory / "runtime.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")

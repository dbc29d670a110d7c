"""A program: opens copies of a bundle whose manifest or trace is as large as is read at all, within a bound of memory.

`read_within.py BUNDLE BYTES`. Each is filled with what is smallest in a file and largest in memory. The bundle is changed and restored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import LcsbError
from lcsb_mobile.io.bounded import bounded_memory
from lcsb_mobile.io.files import sha256

MANIFEST, GOLDEN = "manifest.json", "golden.json"
MOST = {MANIFEST: 4 << 20, GOLDEN: 16 << 20}
ROOM = 100_000  # for the rest of the file
LAYER = '{"kind":"block","number":0,"offset":0,"reads":{},"takes":{},"gives":{}}'
GIVING = '{"kind":"block","number":0,"offset":0,"reads":{},"takes":{"x":"z"},"gives":{"{n:x}":"{n:x}","y":"y{n:x}"}}'
WORK = '{"forward":0,"backward":0,"backward_kept":0}'
KIND = (
    '{"name":"x","reads":[],"takes":[],"gives":[],"size":1,"matrices":[],"state":[],"attention_width":0,"flops":'
    f'{WORK},"decompressed_bytes":{WORK}}}'
)
SUBSET = '{"train":[],"propagate":[]}'

# File, field, what stands before its many items, an item ({n}: its number), what stands behind them, what is said of it.
CASES = (
    (MANIFEST, "model.attention_kinds", "{", '"{n:x}":{"rope_theta":1}', "}", "expected at most 64, found"),
    (MANIFEST, "model.layer_types", "[", '""', "]", "model.layer_types: expected"),
    (MANIFEST, "schedule", "[", SUBSET, "]", "(and 992 more)"),
    (MANIFEST, "weights", "[", '{"name":"","dtype":"int8","shape":[],"offset":0}', "]", "(and 992 more)"),
    (MANIFEST, "kinds", "[", KIND, "]", "kinds: expected 1 to 64, found"),
    (MANIFEST, "kinds.0.matrices", "[", '{"name":"","shape":[1,1],"offset":0}', "]", "(and 992 more)"),
    (MANIFEST, "kinds.0.state", "[", '{"name":"","shape":[],"by_position":true}', "]", "(and 992 more)"),
    (MANIFEST, "kinds.0.reads", "[", '""', "]", "kinds: block: names: '' stands twice; layers: layer 0: reads: expected"),
    (MANIFEST, "kinds.0.gives", "[", '"{n:x}"', "]", "graphs.block_forward: outputs: expected what layers of its kind give, found no"),
    (MANIFEST, "layers", "[", LAYER, "]", "layers: expected 3 layers, found"),
    (MANIFEST, "layers", "[", GIVING, "]", "layers: expected 3 layers, found"),
    (MANIFEST, "layers.0.reads", "{", '"{n:x}":""', "}", "layers: layer 0: reads: expected cos, sin, mask, found 0, 1, 2"),
    (MANIFEST, "layers.0.gives", "{", '"{n:x}":"{n:x}"', "}", "layers: layer 0: gives: expected of none, found 0, 1, 10"),
    (MANIFEST, "tools", "{", '"{n:x}":""', "}", "accepted"),
    (MANIFEST, "graphs", "{", '"{n:x}":{"file":"","inputs":[],"outputs":[]}', "}", "(and 992 more)"),
    (GOLDEN, "batches", '[{"labels":[],"position_ids":[],"segment_ids":[],"input_ids":[', "0", "]}]", "batch 0: "),
    (GOLDEN, "run", "[", f'{{"subset":{SUBSET},"batch":0,"loss":0,"gradient_norms":[]}}', "]", "step 8: "),
)


def filled(start: str, item: str, end: str, limit: int) -> str:
    numbered = item.replace("{n:x}", "00000")
    count = limit // (len(numbered) + 1)
    return start + ",".join(item.replace("{n:x}", f"{n:x}") for n in range(count)) + end


def put(path: Path, field: str, text: str) -> None:
    content = json.loads(path.read_bytes())
    content.pop("digest", None)
    place, (*parents, last) = content, field.split(".")
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[last] = "<here>"
    path.write_text(json.dumps(content, separators=(",", ":")).replace('"<here>"', text))


def state(bundle: Path, name: str) -> None:
    """What the manifest says of the file."""
    content = json.loads((bundle / MANIFEST).read_bytes())
    content.pop("digest", None)
    content["files"][name] = {"size": (bundle / name).stat().st_size, "sha256": sha256(bundle / name)}
    (bundle / MANIFEST).write_text(json.dumps(content))


def outcome(bundle: Path, within: int) -> str:
    with bounded_memory(within):
        try:
            Bundle.open(bundle)
        except LcsbError as error:
            return str(error)
    return "accepted"


def main(bundle: Path, within: int) -> None:
    originals = {name: (bundle / name).read_bytes() for name in MOST}
    assert outcome(bundle, within) == "accepted"
    for name, field, start, item, end, expected in CASES:
        put(bundle / name, field, filled(start, item, end, MOST[name] - ROOM))
        if name != MANIFEST:
            state(bundle, name)
        found = outcome(bundle, within)
        assert expected in found and len(found) < 4000, (field, found)
        for file, content in originals.items():
            (bundle / file).write_bytes(content)
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Writes `ios_demo/App/Assets.xcassets`: the accent colour, and Android's icon: a model's layers, the one that learns now full.

    python scripts/ios/make_assets.py [DIRECTORY]

No library is needed; the same script gives the same bytes.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[2] / "ios_demo/App/Assets.xcassets"
SIZE = 1024  # points of the one picture that Xcode makes all others of
SAMPLES = 4  # to a side of a point, so that edges are smooth
GROUND = (0x00, 0x6A, 0x60)
INK = (0xFF, 0xFF, 0xFF)
LIGHT, DARK = (0x00, 0x6A, 0x60), (0x82, 0xD5, 0xC8)  # the accent: Android's `primary`
# Rhombi of one width and height, by the middle's height and how much of the ink they have, as in Android's drawing. Of its 108 units a
# side, those 72 in the middle are seen.
WIDE, HIGH = 24, 11.5
LAYERS = ((67.5, 0.55), (41.5, 0.55), (54.5, 1.0))
UNIT, MARGIN = 72 / SIZE, 18


def coverage(x: float, y: float) -> float:
    """How much of the ink lies at a place of the picture; the layer drawn last lies above."""
    ink = 0.0
    for middle, alpha in LAYERS:
        if abs(x * UNIT + MARGIN - 54) / WIDE + abs(y * UNIT + MARGIN - middle) / HIGH <= 1:
            ink = alpha + ink * (1 - alpha)
    return ink


def mean(x: int, y: int) -> float:
    """Over a point of the picture."""
    places = [(i + 0.5) / SAMPLES for i in range(SAMPLES)]
    corners = {coverage(x + i, y + j) for i in (0, 1) for j in (0, 1)}
    if len(corners) == 1:  # no edge runs through it
        return corners.pop()
    return sum(coverage(x + i, y + j) for i in places for j in places) / SAMPLES**2


def icon() -> bytes:
    """A PNG without transparency, which the App Store refuses."""
    rows = b""
    for y in range(SIZE):
        half = b"".join(bytes(round(g + (i - g) * ink) for g, i in zip(GROUND, INK)) for ink in (mean(x, y) for x in range(SIZE // 2)))
        mirrored = b"".join(half[at : at + 3] for at in range(len(half) - 3, -1, -3))
        rows += b"\0" + half + mirrored
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def color(rgb: tuple[int, int, int]) -> dict[str, Any]:
    parts = {name: f"0x{value:02X}" for name, value in zip(("red", "green", "blue"), rgb)}
    return {"color": {"color-space": "srgb", "components": parts | {"alpha": "1.000"}}, "idiom": "universal"}


def files() -> dict[str, bytes]:
    info = {"author": "xcode", "version": 1}
    dark = {"appearances": [{"appearance": "luminosity", "value": "dark"}]} | color(DARK)
    image = {"filename": "icon.png", "idiom": "universal", "platform": "ios", "size": f"{SIZE}x{SIZE}"}
    contents = {
        "Contents.json": {"info": info},
        "AccentColor.colorset/Contents.json": {"colors": [color(LIGHT), dark], "info": info},
        "AppIcon.appiconset/Contents.json": {"images": [image], "info": info},
    }
    texts = {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in contents.items()}
    return texts | {"AppIcon.appiconset/icon.png": icon()}


if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    for name, data in files().items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)

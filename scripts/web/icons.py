"""Draws the page's icons, which the web manifest names, as the app's: web_demo/page/static/icons. No library is needed.

A model's layers, the one that learns now drawn full. The shapes are those of icon.svg there.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

ICONS = Path(__file__).resolve().parents[2] / "web_demo/page/static/icons"
SIZES = (180, 192, 512)
UNITS = 108  # of icon.svg's view
GROUND = (0x00, 0x6A, 0x60)
# Rhombi: the middle's y, half the width, half the height, and how much of white covers what is below; later ones lie above.
CENTRE_X, HALF_WIDTH, HALF_HEIGHT = 54.0, 24.0, 11.5
LAYERS = ((67.5, 0.55), (54.5, 1.0), (41.5, 0.55))
SAMPLES = 4  # a side of a pixel, against jagged edges


def colour(x: float, y: float) -> tuple[float, float, float]:
    red, green, blue = map(float, GROUND)
    for centre_y, opacity in LAYERS:
        if abs(x - CENTRE_X) / HALF_WIDTH + abs(y - centre_y) / HALF_HEIGHT <= 1:
            red, green, blue = (value + opacity * (255 - value) for value in (red, green, blue))
    return red, green, blue


def pixel(column: int, row: int, size: int) -> bytes:
    scale = UNITS / size / SAMPLES
    points = [(column * SAMPLES + i + 0.5, row * SAMPLES + j + 0.5) for i in range(SAMPLES) for j in range(SAMPLES)]
    colours = [colour(x * scale, y * scale) for x, y in points]
    return bytes(round(sum(values) / len(colours)) for values in zip(*colours, strict=True))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: int) -> bytes:
    """PNG (W3C, second edition): eight bits of red, green and blue, rows without a filter."""
    rows = b"".join(b"\0" + b"".join(pixel(column, row, size) for column in range(size)) for row in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main() -> None:
    for size in SIZES:
        (ICONS / f"icon-{size}.png").write_bytes(png(size))


if __name__ == "__main__":
    main()

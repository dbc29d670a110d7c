"""Puts the tables of results/*.md into the README, between `<!-- NAME -->` and `<!-- / -->`."""

from __future__ import annotations

import re

from common import RESULTS, ROOT


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for path in sorted(RESULTS.glob("*.md")):
        block = f"<!-- {path.stem} -->\n{path.read_text().rstrip()}\n<!-- / -->"
        text = re.sub(rf"<!-- {path.stem} -->.*?<!-- / -->", lambda _, block=block: block, text, flags=re.DOTALL)
    readme.write_text(text)


if __name__ == "__main__":
    main()

"""Puts the tables of results/*.md into the READMEs and docs/*.md, between `<!-- NAME -->` and `<!-- / -->`."""

from __future__ import annotations

import re

from common import RESULTS, ROOT


def main() -> None:
    for page in (ROOT / "README.md", ROOT / "android_demo/README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        for path in sorted(RESULTS.glob("*.md")):
            block = f"<!-- {path.stem} -->\n{path.read_text().rstrip()}\n<!-- / -->"
            text = re.sub(rf"<!-- {path.stem} -->.*?<!-- / -->", lambda _, block=block: block, text, flags=re.DOTALL)
        page.write_text(text)


if __name__ == "__main__":
    main()

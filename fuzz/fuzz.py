"""`fuzz.py READER SECONDS`: Atheris on one reader, from its corpus. Prints how many inputs were tried; ends with 1 at a finding.

Whatever is no error of ours is a finding: another exception, a crash, more than MEGABYTES of memory or SECONDS_EACH for one input.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["lcsb_mobile"]):
    from readers import CORPUS, READERS

    from lcsb_mobile.errors import LcsbError

from mutate import mutate

MEGABYTES, SECONDS_EACH, MOST_BYTES = 1024, 20, 1 << 18
FOUND = Path("build/fuzz")


def main(reader: str, seconds: str) -> None:
    read, found = READERS[reader], FOUND / reader
    found.mkdir(parents=True, exist_ok=True)

    def test(data: bytes) -> None:
        with suppress(LcsbError):
            read(data)

    def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        return mutate(data, random)[:most] if random.random() < 0.7 else atheris.Mutate(data, len(data))

    limits = (f"-rss_limit_mb={MEGABYTES}", f"-timeout={SECONDS_EACH}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={found}/finding-")
    arguments = [sys.argv[0], f"-max_total_time={seconds}", "-print_final_stats=1", *limits, str(found), str(CORPUS / reader)]
    atheris.Setup(arguments, test, custom_mutator=custom_mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Where `lcsb` and `python -m lcsb_mobile` begin. The system is looked at before anything is imported that Windows has not
(`resource`, `fcntl`)."""

from __future__ import annotations

import atexit
import gc
import sys


def main() -> None:
    if sys.platform == "win32":
        sys.stderr.write("error: lcsb_mobile runs on Linux and macOS; on Windows use WSL\n")
        sys.exit(2)
    atexit.register(gc.freeze)  # the interpreter would look for garbage once more in all that was imported: half a second, with PyTorch
    from lcsb_mobile.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()

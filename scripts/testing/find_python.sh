#!/usr/bin/env bash
# Prints the first Python of these versions that is here: scripts/testing/find_python.sh 3.13 [3.12...]
#
# It looks on the PATH and among pyenv's and uv's, which may be off it. Exit code 3, and one line: there is none.
set -euo pipefail
for version in "$@"; do
    for python in "python$version" ~/.pyenv/versions/"$version".*/bin/python3 ~/.local/share/uv/python/cpython-"$version".*/bin/python3; do
        # A shim of pyenv's is on the PATH for versions that it then does not run.
        "$python" -c 'import sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$version" 2>/dev/null || continue
        command -v "$python"
        exit 0
    done
done
echo "no Python $* is here" >&2
exit 3

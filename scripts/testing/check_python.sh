#!/usr/bin/env bash
# Ends with 2, and the line that helps, unless PYTHON (default: python3) is one that lcsb_mobile runs on.
set -euo pipefail
python=${PYTHON:-python3}
# A program that old versions understand too.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + " ok" * (sys.version_info >= (3, 10)))' 2>/dev/null) || {
    echo "$python: expected Python 3.10 or newer, found no Python that runs; name one: make PYTHON=python3.12 …" >&2
    exit 2
}
case $version in
    *ok) ;;
    *)
        echo "$python: expected Python 3.10 or newer, found $version; name another: make PYTHON=python3.12 …" >&2
        exit 2
        ;;
esac

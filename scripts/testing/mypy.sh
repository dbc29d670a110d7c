#!/usr/bin/env bash
# mypy, as on Linux and as on a Mac, on the package as it is installed, `export/` being lcsb_mobile.export: a tree of links has that layout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
rm -rf build/typed
mkdir -p build/typed/lcsb_mobile
ln -s "$root"/lcsb_mobile/* build/typed/lcsb_mobile/
ln -s "$root/export" build/typed/lcsb_mobile/export
cd build/typed
check() { # PLATFORM
    "$root/.venv/bin/mypy" --platform "$1" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache/$1" -p lcsb_mobile
}
check darwin >darwin.log 2>&1 &
check linux || code=$?
wait $! || code=$?
cat darwin.log
exit "${code:-0}"

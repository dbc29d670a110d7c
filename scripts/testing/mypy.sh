#!/usr/bin/env bash
# mypy on the package as it is installed, `export/` being lcsb_mobile.export: a tree of links has that layout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
rm -rf build/typed
mkdir -p build/typed
cp -rs "$root/lcsb_mobile" build/typed/
cp -rs "$root/export" build/typed/lcsb_mobile/export
cd build/typed
"$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p lcsb_mobile

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
for platform in linux darwin; do
    "$root/.venv/bin/mypy" --platform "$platform" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache/$platform" -p lcsb_mobile
done

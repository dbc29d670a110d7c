#!/usr/bin/env bash
# A virtual environment that has this package, editable, with one of its extras: scripts/testing/environment.sh DIRECTORY EXTRA [REQUIREMENT...]
#
# Made with PYTHON (default: python3), and made up to date when pyproject.toml is newer. Exit code 3, and one line that says why: a package
# is not to be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
directory=$1 extra=$2
shift 2
[ ! "$directory/.installed" -nt pyproject.toml ] || exit 0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

bring() {
    "$directory/bin/python" -m pip install --quiet "$@" 2>&1 | tee "$log" && return
    local reason
    reason=$(scripts/testing/not_to_be_had.sh "$log") || exit 1
    echo "$directory: $reason" >&2
    exit 3
}

"${PYTHON:-python3}" -m venv "$directory"
bring --upgrade pip
bring --editable ".[$extra]" "$@"
touch "$directory/.installed"

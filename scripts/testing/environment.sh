#!/usr/bin/env bash
# A virtual environment that has this package, editable, with one of its extras:
# scripts/testing/environment.sh [--over OTHER] [--lowest] [--any-of VERSION,VERSION] DIRECTORY EXTRA [REQUIREMENT...]
#
# Made with PYTHON (default: python3): anew when that is another one than it was made with, and up to date when pyproject.toml is newer.
# With --over it also finds what the environment OTHER has and it has not, so that PyTorch is installed once. With --lowest it has the lowest
# versions that pyproject.toml allows, resolved by the uv of .venv. With --any-of it is made with the first of these that is here.
# TORCH_INDEX: an index that has another build of PyTorch.
#
# Exit code 3, and one line that says why: a Python or a package is not to be had. Exit code 2: a Python that is too old, or no room.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHON=${PYTHON:-python3}
other='' lowest=''
while true; do
    case $1 in
        --over)
            other=$2
            shift
            ;;
        --any-of)
            PYTHON=$(scripts/testing/find_python.sh ${2//,/ }) # alone in its line, so that its failure ends this
            shift
            ;;
        --lowest) lowest=$1 ;;
        *) break ;;
    esac
    shift
done
directory=$1 extra=$2
shift 2

identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null || echo none
}

# PyTorch's wheel for Linux asks for CUDA's libraries: 5.4 GB installed, and 2.9 GB in pip's cache. Its builds for CPUs are smaller.
check_room() {
    local needed=9000 free
    [ -z "${TORCH_INDEX:-}" ] && [ "$(uname -s)" = Linux ] || needed=2000
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1000))
    [ "$free" -ge "$needed" ] || {
        echo "$directory: expected $needed MB of free disk for PyTorch and the rest, found $free MB; make room (README.md: what takes less)" >&2
        exit 2
    }
}

bring() {
    "$directory/bin/python" -m pip install --quiet "$@" >"$log" 2>&1 || explain
}

# Ends the script with what the log says.
explain() {
    local reason
    cat "$log"
    reason=$(scripts/testing/not_to_be_had.sh "$log") || exit 1
    echo "$directory: $reason" >&2
    exit 3
}

site_packages() {
    "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

scripts/testing/check_python.sh
clear=
if [ "$(identity "$directory/bin/python")" != "$(identity "$PYTHON")" ]; then
    clear=--clear # made with another Python, or with one that is gone
elif [ "$directory/.installed" -nt pyproject.toml ]; then
    exit 0
fi
case $extra in
    dev) ls -d "$directory"/lib/python*/site-packages/torch >/dev/null 2>&1 || check_room ;;
esac
echo "installing into $directory …" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$PYTHON" -m venv $clear "$directory"
[ -z "$other" ] || site_packages "$other" >"$(site_packages "$directory")/$(basename "$other").pth"
bring --upgrade pip
if [ "$lowest" ]; then
    .venv/bin/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python "$directory/bin/python" \
        pyproject.toml --extra "$extra" >"$directory/lowest.txt" 2>"$log" || explain
    # What is shared stays as it is: PyTorch is pinned, and what it asks for is its own.
    [ -z "$other" ] || grep -vE '^(torch|triton|nvidia-|cuda-)' "$directory/lowest.txt" >"$log"
    [ -z "$other" ] || cp "$log" "$directory/lowest.txt"
    bring --no-deps --requirement "$directory/lowest.txt"
    bring --no-deps --editable .
else
    bring --editable ".[$extra]" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$@"
fi
if [ "$extra" = onnxruntime-training ] && ! "$directory/bin/python" -m pip show --quiet onnxruntime-training-cpu 2>/dev/null; then
    echo "$directory: onnxruntime-training exists for Linux x86-64 and macOS with Python up to 3.12 alone, not for this Python" >&2
    exit 3
fi
touch "$directory/.installed"

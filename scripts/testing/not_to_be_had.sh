#!/usr/bin/env bash
# Tells what is not to be had from what is broken: scripts/testing/not_to_be_had.sh LOG
#
# Prints the first line of the log of apt, pip, Maven or npm that says that something is not to be had (no network, no such package, no rights)
# and ends with 0. Ends with 1 where no line says so: then what failed is broken, and nobody may take it for a skip.
set -euo pipefail
grep --max-count=1 --extended-regexp --file="$(dirname "${BASH_SOURCE[0]}")/not_to_be_had.patterns" "$1"

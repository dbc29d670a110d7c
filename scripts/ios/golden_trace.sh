#!/usr/bin/env bash
# Holds a Mac's own runtime to a bundle's golden trace, by each choice of what may compute, and times a step: golden_trace.sh BUNDLE, of target
# coreml or coreai. Fails after the last where any of them does not hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ "$#" = 1 ] || { sed -n '2,3p' "${BASH_SOURCE[0]}" >&2; exit 2; }
scripts/ios/swift.sh build --product lcsb-swift
code=0
for units in cpu gpu neural-engine all; do
    echo "$units:"
    scripts/ios/swift.sh run lcsb-swift verify "$1" --compute-units "$units" || code=$?
done
exit "$code"

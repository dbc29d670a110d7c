#!/usr/bin/env bash
# Everything of android_demo that runs on a desktop: scripts/android/test.sh BUNDLES PYTHON
#
# The core on the JVM and the app under Robolectric, with the real ONNX Runtime; then the core against PYTHON's `lcsb` on bundles of four
# architectures, 50 kills, and the names and types of the Gradle build. Skipped, with the reason, where what it needs cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bundles=$1 python=$2 data=lcsb_mobile/tiny/messages_eval.jsonl

skip_without() { # COMMAND...: runs it; ends the script well where it says that something cannot be had
    local code=0
    "$@" || code=$?
    [ "$code" != 3 ] || { echo "skipped: $*"; exit 0; }
    return "$code"
}

skip_without scripts/android/maven.sh clean package -Dtest.bundles="$PWD/$bundles"
"$python" scripts/android/parity.py "$bundles"/{llama,qwen2,qwen3,gemma3} --data "$data"
"$python" scripts/android/kill_test.py "$bundles/llama" --data "$data" --kills 50
skip_without bash android_demo/gradle-check/check.sh

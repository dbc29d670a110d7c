#!/usr/bin/env bash
# Maven on android_demo: scripts/android/maven.sh [MAVEN_ARGUMENT...]
#
# Sees to what it needs: a JDK from 17 on, Maven, aapt2 (Debian's where there is none). Exit code 3, and one line that says why: one of
# them, or an artifact from Maven's registry, is not to be had. Any other exit code but 0: something is broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scripts/android/toolchain.sh
aapt2=$(scripts/android/aapt2.sh build/aapt2)
export PATH="$(dirname "$aapt2"):$PATH"
export ORT_DISABLE_TELEMETRY=1 # the tests' ONNX Runtime would report them, and a JVM cannot set it for itself
# A build ends before the optimizing compiler earns what it costs.
export MAVEN_OPTS=${MAVEN_OPTS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Maven writes escapes for colours into files too.
mvn --batch-mode --quiet --no-transfer-progress -Dstyle.color=never --file android_demo/pom.xml "$@" 2>&1 |
    sed "s/$(printf '\033')\[[0-9;]*m//g" | tee "$log" && exit
# One module may fail for want of an artifact, and another one by itself.
if grep '^\[ERROR\] Failed to execute goal' "$log" | grep -qv 'Could not transfer artifact'; then exit 1; fi
reason=$(scripts/testing/not_to_be_had.sh "$log") || exit 1
echo "android_demo: $reason" >&2
exit 3

#!/usr/bin/env bash
# Maven on android_demo: scripts/android/maven.sh [MAVEN_ARGUMENT...]
#
# Sees to what it needs: a JDK from 17 on, Maven, aapt2 (Debian's where there is none). Exit code 3, and one line that says why: one of
# them cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

unavailable() {
    echo "android_demo: $*" >&2
    exit 3
}

command -v mvn >/dev/null || unavailable "Maven is not on the PATH; on Debian: apt-get install maven default-jdk-headless"
major=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
[ "${major:-0}" -ge 17 ] || unavailable "needs a JDK from 17 on, found ${major:-none}; on Debian: apt-get install openjdk-17-jdk-headless"
aapt2=$(scripts/android/aapt2.sh build/aapt2) || exit 3
export PATH="$(dirname "$aapt2"):$PATH"
exec mvn --batch-mode --quiet --no-transfer-progress --file android_demo/pom.xml "$@"

#!/usr/bin/env bash
# Ends well where Maven and a JDK from 17 on are on the PATH: scripts/android/toolchain.sh
#
# Exit code 3, and one line that says which is missing, where they are not.
set -euo pipefail

unavailable() {
    echo "android_demo: $*" >&2
    exit 3
}

command -v mvn >/dev/null || unavailable "Maven is not on the PATH; on Debian: apt-get install maven default-jdk-headless"
command -v javac >/dev/null || unavailable "a JDK from 17 on is not on the PATH; on Debian: apt-get install openjdk-17-jdk-headless"
version=$(javac -version 2>&1) || {
    echo "android_demo: javac does not run: $version" >&2
    exit 1
}
major=$(sed -n 's/^javac \([0-9]*\).*/\1/p' <<<"$version")
[ "${major:-0}" -ge 17 ] || unavailable "needs a JDK from 17 on, found $version; on Debian: apt-get install openjdk-17-jdk-headless"

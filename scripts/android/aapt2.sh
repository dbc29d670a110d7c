#!/usr/bin/env bash
# Prints where an aapt2 is, which links an Android app's resources: scripts/android/aapt2.sh DIRECTORY
#
# The one on the PATH; else Debian's, taken apart below DIRECTORY (default: build/aapt2) without root, some 5 MB. Exit code 3, and one line
# that says why: there is none and it cannot be had.
set -euo pipefail

unavailable() {
    echo "aapt2: $*" >&2
    exit 3
}

command -v aapt2 && exit 0
directory=${1:-build/aapt2}
if [ ! -x "$directory/aapt2" ]; then
    command -v apt-get >/dev/null || unavailable "not on the PATH; put the Android SDK's build-tools there"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    packages() {
        apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances aapt 2>/dev/null |
            grep -E '^(aapt|android-|libprotobuf-lite|libfmt|libpng|libexpat|libzopfli|libbsd|libmd)'
    }
    fetch() { (cd "$work" && apt-get download --quiet $(packages)) >"$work/log" 2>&1; }
    # Without lists of packages there is nothing to download; only root may fetch them.
    fetch || { apt-get --quiet update >"$work/log" 2>&1 && fetch; } || unavailable "Debian's package aapt could not be had: $(tail -n 1 "$work/log")"
    mkdir "$work/tree"
    for package in "$work"/*.deb; do dpkg -x "$package" "$work/tree"; done
    libraries=$(find "$work/tree" -name '*.so*' -printf '%h\n' | sort -u | sed "s|^$work/tree|\$here/tree|" | paste -sd:)
    cat >"$work/aapt2" <<WRAPPER
#!/usr/bin/env bash
here=\$(cd "\$(dirname "\${BASH_SOURCE[0]}")" && pwd)
LD_LIBRARY_PATH="$libraries" exec "\$here/tree/usr/bin/aapt2" "\$@"
WRAPPER
    chmod +x "$work/aapt2"
    LD_LIBRARY_PATH= "$work/aapt2" version >/dev/null 2>"$work/log" || unavailable "Debian's does not run here: $(tail -n 1 "$work/log")"
    rm -rf "$directory" "$work"/*.deb "$work/log"
    mkdir -p "$(dirname "$directory")"
    mv "$work" "$directory"
    trap - EXIT
fi
echo "$(cd "$directory" && pwd)/aapt2"

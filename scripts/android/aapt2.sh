#!/usr/bin/env bash
# Prints where an aapt2 is, which links an Android app's resources: scripts/android/aapt2.sh [DIRECTORY]
#
# The one on the PATH; else Debian's, taken apart below DIRECTORY (default: build/aapt2) without root, with all that it depends on, some
# 10 MB. Exit code 3, and one line that says why: there is none and it is not to be had. Exit code 1: what was fetched does not run.
set -euo pipefail

unavailable() {
    echo "aapt2: $*" >&2
    exit 3
}

failed() {
    echo "aapt2: $*" >&2
    exit 1
}

# why LOG: apt's first error, or else the last line.
why() { grep --max-count=1 '^E: ' "$1" || grep . "$1" | tail -n 1 || echo "no reason given"; }

command -v aapt2 && exit 0
directory=${1:-build/aapt2}
if ! "$directory/aapt2" version >/dev/null 2>&1; then
    command -v apt-get >/dev/null || unavailable "not on the PATH; put the Android SDK's build-tools there"
    mkdir -p "$(dirname "$directory")"
    work=$(cd "$(mktemp -d "$directory.XXXXXX")" && pwd)
    trap 'rm -rf "$work"' EXIT
    known() { apt-cache show aapt >"$work/log" 2>&1; }
    # Without lists of packages there is nothing to download; only root may fetch them.
    update() { apt-get --quiet -o APT::Update::Error-Mode=any update >"$work/log" 2>&1; }
    known || { update && known; } || unavailable "Debian's package aapt is not to be had: $(why "$work/log")"

    # What apt itself would install where nothing is installed yet. libc6 alone is the system's, as it goes with the loader that starts aapt2.
    : >"$work/nothing"
    apt-get install --simulate --no-install-recommends -o Dir::State::status="$work/nothing" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        aapt >"$work/closure" 2>"$work/log" || failed "apt does not resolve what aapt depends on: $(why "$work/log")"
    packages=$(sed -n 's/^Inst \([^ ]*\) .*/\1/p' "$work/closure" | grep -vx 'libc6')
    fetch() { (cd "$work" && apt-get download --quiet $packages) >"$work/log" 2>&1; }
    # Lists that are out of date name files that are gone.
    fetch || { update && fetch; } || unavailable "Debian's package aapt is not to be had: $(why "$work/log")"

    mkdir "$work/tree"
    for package in "$work"/*.deb; do dpkg -x "$package" "$work/tree"; done
    libraries=$(cd "$work/tree" && find lib usr/lib -name '*.so*' -exec dirname {} \; 2>/dev/null | sort -u | sed 's|^|$here/tree/|' | paste -sd: -) || true
    cat >"$work/aapt2" <<WRAPPER
#!/usr/bin/env bash
here=\$(cd "\$(dirname "\${BASH_SOURCE[0]}")" && pwd)
LD_LIBRARY_PATH="$libraries" exec "\$here/tree/usr/bin/aapt2" "\$@"
WRAPPER
    chmod +x "$work/aapt2"
    "$work/aapt2" version >"$work/log" 2>&1 || failed "Debian's was fetched but does not run: $(why "$work/log")"
    rm -rf "$directory" "$work"/*.deb "$work/log" "$work/nothing" "$work/closure"
    mv "$work" "$directory"
    trap - EXIT
fi
echo "$(cd "$directory" && pwd)/aapt2"

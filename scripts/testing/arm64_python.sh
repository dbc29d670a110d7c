#!/usr/bin/env bash
# Python 3.11 for ARM64, the instruction set of phones, on an x86-64 machine: scripts/testing/arm64_python.sh [PYTHON_ARGUMENT...]
#
# It has the packages of the Python named by LCSB_ARM64_LIKE in the same versions, as ARM64 wheels, and runs under qemu-user. The first
# call sets it up in a minute (some 100 MB from Debian and PyPI) and keeps it in LCSB_ARM64_CACHE; without arguments a call does only that.
# No root is needed, and nothing is installed outside that directory. Exit code 3, and one line that says why: this machine is of another
# kind, or something is not to be had. Exit code 1: something is broken.
#
#   LCSB_ARM64_CACHE  where it is kept (default: build/arm64)
#   LCSB_ARM64_LIKE   the Python whose packages it gets (default: .venv-onnxruntime/bin/python)
#   LCSB_ARM64_CPU    a CPU of `qemu-aarch64 -cpu help` (default: max, which has every extension that qemu knows)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${LCSB_ARM64_CACHE:-$ROOT/build/arm64}
LIKE=${LCSB_ARM64_LIKE:-$ROOT/.venv-onnxruntime/bin/python}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Debian 12's Python, as the wheels for 3.11 are there, and what it loads. Its own qemu, 7.2, crashes when onnxruntime is imported, so
# that comes from Debian 13; it is linked statically and needs nothing else.
PYTHON_SUITE=bookworm
PYTHON_PACKAGES=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6
    zlib1g libbz2-1.0 liblzma5 libexpat1 libffi8 libssl3 libuuid1)
QEMU_SUITE=trixie

unavailable() {
    echo "ARM64 Python: $*" >&2
    exit 3
}

# explain LOG WHAT: ends the script, with what the log of apt or pip says.
explain() {
    local reason
    reason=$("$ROOT/scripts/testing/not_to_be_had.sh" "$1") && unavailable "$2 could not be had: $reason"
    echo "ARM64 Python: fetching $2 failed: $(grep . "$1" | tail -n 1)" >&2
    exit 1
}

# The mirror that this machine's apt uses, if it is a Debian.
mirror() {
    { apt-get indextargets --format '$(REPO_URI)' 2>/dev/null || true; } | grep -m 1 '/debian/$' || echo http://deb.debian.org/debian/
}

# download SUITE ARCHITECTURE DIRECTORY PACKAGE...: the .deb files, checked against Debian's signature. apt works in a state of its own
# there, so it neither needs root nor knows which packages this machine has.
download() {
    local suite=$1 architecture=$2 directory=$3
    shift 3
    mkdir -p "$directory"/etc/apt/{apt.conf.d,preferences.d} "$directory"/var/lib/apt/lists/partial
    mkdir -p "$directory"/var/cache/apt/archives/partial "$directory"/var/lib/dpkg "$directory"/debs
    touch "$directory/var/lib/dpkg/status"
    echo "deb [signed-by=$KEYRING] $(mirror) $suite main" >"$directory/etc/apt/sources.list"
    local apt=(apt-get --quiet -o "Dir=$directory" -o "Dir::State::status=$directory/var/lib/dpkg/status"
        -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root
        -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o APT::Update::Error-Mode=any)
    {
        "${apt[@]}" update && (cd "$directory/debs" && "${apt[@]}" download "$@")
    } >"$directory/log" 2>&1 || explain "$directory/log" "Debian $suite"
}

# Each part is made beside its place and moved there whole, so that a set-up that was cut off leaves nothing that looks finished.
set_up_qemu() {
    download "$QEMU_SUITE" amd64 "$work/apt-qemu" qemu-user
    # One emulator of the package's thirty.
    dpkg-deb --fsys-tarfile "$work"/apt-qemu/debs/qemu-user_*.deb | tar --extract --directory "$work" ./usr/bin/qemu-aarch64
    mv "$work/usr/bin/qemu-aarch64" "$CACHE/qemu-aarch64"
}

set_up_python() {
    local package
    download "$PYTHON_SUITE" arm64 "$work/apt-python" "${PYTHON_PACKAGES[@]}"
    for package in "$work"/apt-python/debs/*.deb; do
        dpkg-deb --extract "$package" "$work/python"
    done
    mv "$work/python" "$CACHE/python"
}

set_up_packages() {
    local glibc platforms=(--platform manylinux2014_aarch64)
    for glibc in $(seq 17 36); do # pip takes each name literally; Debian 12 has glibc 2.36
        platforms+=(--platform "manylinux_2_${glibc}_aarch64")
    done
    echo "$packages" >"$work/packages.txt"
    "$LIKE" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary=:all: "${platforms[@]}" \
        --implementation cp --python-version 3.11 --target "$work/packages" --requirement "$work/packages.txt" >"$work/log" 2>&1 ||
        explain "$work/log" "its packages"
    mv "$work/packages" "$site"
}

set_up() {
    [ "$(uname -sm)" = "Linux x86_64" ] || unavailable "it runs on Linux x86-64, and this is $(uname -sm)"
    for tool in apt-get dpkg-deb flock tar; do
        command -v "$tool" >/dev/null || unavailable "$tool is not here; the set-up needs a Debian"
    done
    [ -e "$KEYRING" ] || unavailable "$KEYRING is not here; the set-up needs a Debian"
    work=$CACHE/work # this call has the lock; one that was killed may have left it
    rm -rf "$work"
    trap 'rm -rf "$work"' EXIT
    mkdir "$work"
    [ -e "$CACHE/qemu-aarch64" ] || set_up_qemu
    [ -e "$CACHE/python" ] || set_up_python
    [ -e "$site" ] || set_up_packages
    rm -rf "$work"
    trap - EXIT
}

[ -x "$LIKE" ] || {
    echo "ARM64 Python: $LIKE is not here; make it with: make .venv-onnxruntime/.installed" >&2
    exit 1
}
for tool in sha256sum flock; do
    command -v "$tool" >/dev/null || unavailable "$tool is not on the PATH; it is Linux's, and so is the emulator"
done
mkdir -p "$CACHE"
# Not this package, which is read from the source, nor what tests and the figures of reports need.
outside='lcsb_mobile|iniconfig|pluggy|pytest|matplotlib|contourpy|cycler|fonttools|kiwisolver|pillow|pyparsing|python-dateutil'
packages=$("$LIKE" -m pip freeze --disable-pip-version-check --exclude-editable | grep -vE "^($outside)[ =]")
site=$CACHE/packages-$(echo "$packages" | sha256sum | cut -c 1-12)
if ! [ -e "$CACHE/qemu-aarch64" ] || ! [ -e "$CACHE/python" ] || ! [ -e "$site" ]; then
    exec 9>"$CACHE/lock"
    flock 9 # a second call waits for the first one's set-up, and then finds it
    set_up
    exec 9>&-
fi
[ $# -gt 0 ] || exit 0
exec env "PYTHONPATH=$site:$ROOT" PYTHONNOUSERSITE=1 \
    "$CACHE/qemu-aarch64" -cpu "${LCSB_ARM64_CPU:-max}" -L "$CACHE/python" "$CACHE/python/usr/bin/python3.11" "$@"

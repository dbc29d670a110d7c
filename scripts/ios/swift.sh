#!/usr/bin/env bash
# Swift on ios_demo:
#   scripts/ios/swift.sh prepare  fetches Swift, if it is not here
#   scripts/ios/swift.sh build|test [ARGUMENT...]  what `swift build` or `swift test` takes; the tests' last line counts them
#   scripts/ios/swift.sh run PROGRAM [ARGUMENT...]  a program that was built; it sees this machine's files
#   scripts/ios/swift.sh command PROGRAM  prints, a word a line, what `run` would execute, for who starts it often
#   scripts/ios/swift.sh exec COMMAND [ARGUMENT...]  any command where Swift is, in ios_demo
#
# On a Mac these are Xcode's own. Linux' Swift is Debian's next release's: a tree of it is kept in $SWIFT_CACHE and entered by chroot; it needs
# root, and nothing is installed beside it. Its mounts lie in a namespace of their own, which the system drops with the command, however
# that ends. Exit code 3, and one line that says why: Swift is not to be had here. Any other exit code but 0: something is broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
HERE=$(pwd)
PACKAGE=$HERE/ios_demo
# Optimised, since the tests tokenise and digest much; testable all the same.
OPTIONS=(-c release -Xswiftc -enable-testing)

SWIFT_CACHE=${SWIFT_CACHE:-/var/cache/lcsb-mobile-swift}
SUITE=trixie # has Swift 6.0.3
RUNTIME=1.24.2 # of the archive that Package.swift names, which PyPI has too
PACKAGES="swiftlang libstdc++-14-dev libc6-dev binutils-gold ca-certificates tzdata"
TREE=$SWIFT_CACHE/$SUITE
ORT=$SWIFT_CACHE/onnxruntime-$RUNTIME
RECIPE="3 $SUITE $PACKAGES"

say() { echo "ios_demo: $*" >&2; }
unavailable() {
    say "$*"
    exit 3
}

# Ends by what the log of a command that failed says.
failed() {
    tail -5 "$1" >&2
    local reason
    reason=$(scripts/testing/not_to_be_had.sh "$1") || exit 1
    unavailable "$reason"
}

mirror() {
    awk '/^URIs:/ {print $2; exit}
         /^deb /  {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true
}

# inside ROOT COMMAND...: in the tree, with this machine's files under their own paths
inside() {
    local root=$1
    shift
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        root=$1 here=$2 ort=$3
        shift 3
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        for place in "$here" /tmp; do
            mkdir -p "$root$place"
            mount --bind "$place" "$root$place"
        done
        if [ -d "$ort" ]; then
            mkdir -p "$root/opt/onnxruntime"
            mount --bind "$ort" "$root/opt/onnxruntime"
        fi
        environment=(TERM=dumb)
        while IFS= read -r variable; do environment+=("$variable"); done < <(env | grep -E "^(CI|LCSB_[A-Z_]*)=")
        cd "$here/ios_demo"
        exec chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "${environment[@]}" \
            /bin/bash -c "cd \"\$0\" && exec \"\$@\"" "$here/ios_demo" "$@"' _ "$root" "$HERE" "$ORT" "$@"
}

tree() {
    [ "$(cat "$TREE/.recipe" 2>/dev/null)" = "$RECIPE" ] && return
    local from log=$SWIFT_CACHE/install.log boot new=$TREE.new
    from=$(mirror)
    [ -n "$from" ] || unavailable "no mirror of Debian in /etc/apt"
    boot=$(command -v debootstrap) || {
        # Unpacked beside the tree.
        mkdir -p "$SWIFT_CACHE/debootstrap"
        (cd "$SWIFT_CACHE/debootstrap" && { apt-get download debootstrap || { apt-get update && apt-get download debootstrap; }; }) >"$log" 2>&1 || failed "$log"
        dpkg -x "$SWIFT_CACHE"/debootstrap/debootstrap_*.deb "$SWIFT_CACHE/debootstrap"
        export DEBOOTSTRAP_DIR=$SWIFT_CACHE/debootstrap/usr/share/debootstrap
        boot=$SWIFT_CACHE/debootstrap/usr/sbin/debootstrap
    }
    say "makes a tree with Swift in $TREE (2.9 GB, 560 MB to download, 1 to 3 minutes)"
    rm -rf "$new" "$TREE"
    mkdir -p "$SWIFT_CACHE/archives"
    unshare --mount --propagation private "$boot" --variant=minbase --cache-dir="$SWIFT_CACHE/archives" "$SUITE" "$new" "$from" >"$log" 2>&1 || failed "$log"
    cp /etc/resolv.conf /etc/hosts "$new/etc/" 2>/dev/null || true
    # The runtime's headers alone: Debian's library is older than the archive's.
    inside "$new" bash -c "export DEBIAN_FRONTEND=noninteractive
        apt-get update && apt-get install -y --no-install-recommends $PACKAGES && apt-get clean &&
        cd /root && apt-get download libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb headers &&
        cp -r headers/usr/include/onnxruntime /usr/include/ && rm -r headers libonnxruntime-dev_*.deb" >"$log" 2>&1 || failed "$log"
    echo "$RECIPE" >"$new/.recipe"
    mv "$new" "$TREE"
}

# The library of the wheel; in the tree it is /opt/onnxruntime.
runtime() {
    [ -e "$ORT/libonnxruntime.so" ] && return
    local log=$SWIFT_CACHE/runtime.log new=$ORT.new
    rm -rf "$new"
    mkdir -p "$new"
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --dest "$new" "onnxruntime==$RUNTIME" >"$log" 2>&1 || failed "$log"
    "${PYTHON:-python3}" -m zipfile -e "$new"/*.whl "$new/wheel"
    mv "$new"/wheel/onnxruntime/capi/libonnxruntime.so.* "$new/libonnxruntime.so.1"
    ln -s libonnxruntime.so.1 "$new/libonnxruntime.so"
    rm -rf "$new"/wheel "$new"/*.whl
    mv "$new" "$ORT"
}

prepare() {
    [ "$(uname)" = Linux ] || unavailable "Swift is not on the PATH; install Xcode 16 or newer"
    command -v apt-get >/dev/null || unavailable "Swift is not on the PATH, and its tree is made by Debian's apt-get, which is not here"
    command -v unshare >/dev/null && command -v flock >/dev/null || unavailable "util-linux is not here; on Debian: apt-get install util-linux"
    [ "$(id -u)" = 0 ] || unavailable "needs root to enter a tree with Swift, or swift from 6.0 on and ONNX Runtime's library"
    mkdir -p "$SWIFT_CACHE"
    exec 9>"$SWIFT_CACHE/lock"
    flock 9
    tree
    runtime
    exec 9>&-
}

# Runs the tests by a command, and prints their counts last; XCTest writes a total for each suite, the whole one last.
counted() {
    local log code=0
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" || code=$?
    grep -E '^[[:space:]]*Executed [0-9]+ tests?, with' "$log" | tail -1 | awk '{
        for (i = 1; i < NF; i++) {
            if ($i == "Executed") all = $(i + 1)
            if ($i ~ /^tests?$/ && $(i + 1) == "skipped") skipped = $(i - 1)
            if ($i ~ /^failures?$/) failed = $(i - 1)
        }
        print all - failed - skipped " passed, " failed + 0 " failed, " skipped + 0 " skipped"
    }'
    rm "$log"
    return "$code"
}

link=(-Xlinker -L/opt/onnxruntime -Xlinker -rpath -Xlinker /opt/onnxruntime)
mode=${1:-}
[ "$#" -ge 1 ] && shift
if [ "$(uname)" = Darwin ] && command -v swift >/dev/null; then
    case $mode in
        prepare) exit ;;
        build) cd "$PACKAGE" && exec swift build "${OPTIONS[@]}" "$@" ;;
        test) cd "$PACKAGE" && counted swift test "${OPTIONS[@]}" "$@" && exit ;;
        run) exec "$PACKAGE/.build/release/$1" "${@:2}" ;;
        command) echo "$PACKAGE/.build/release/$1" && exit ;;
        exec) cd "$PACKAGE" && exec "$@" ;;
    esac
else
    case $mode in
        prepare)
            prepare
            exit
            ;;
        build)
            prepare
            inside "$TREE" swift build "${OPTIONS[@]}" "${link[@]}" "$@"
            exit
            ;;
        test)
            prepare
            counted inside "$TREE" swift test "${OPTIONS[@]}" "${link[@]}" "$@"
            exit
            ;;
        exec)
            prepare
            inside "$TREE" "$@"
            exit
            ;;
        run | command)
            # The tree's loader and libraries, outside of it: no root, and a signal reaches the program itself.
            words=("$TREE/lib64/ld-linux-x86-64.so.2" --library-path "$ORT:$TREE/lib/x86_64-linux-gnu:$TREE/usr/lib/x86_64-linux-gnu:$TREE/usr/lib/swift/linux:$TREE/usr/libexec/swift/lib/swift/linux" "$PACKAGE/.build/release/$1")
            [ "$mode" = command ] && printf '%s\n' "${words[@]}" && exit
            exec "${words[@]}" "${@:2}"
            ;;
    esac
fi
sed -n '2,8p' "${BASH_SOURCE[0]}" >&2
exit 2

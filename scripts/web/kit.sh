#!/usr/bin/env bash
# web_demo's kit and page:
#   scripts/web/kit.sh packages   fetches the packages, if they are not here
#   scripts/web/kit.sh build      fetches the packages, if they are not here, compiles to web_demo/build, and puts the site together there
#   scripts/web/kit.sh test       likewise, and runs the tests on Node; the last line counts them
#   scripts/web/kit.sh test-page  runs the tests of the page in a headless Chromium, once it is built; the last line counts them
#   scripts/web/kit.sh test-gpu   likewise those of whole runs on a GPU that the processor plays, which take minutes
#
# Exit code 3, and one line that says why: Node.js 20, npm's registry or a Chromium is not to be had here. Any other exit code but 0: something is
# broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
HERE=$(pwd)
LOG=$HERE/web_demo/npm.log

unavailable() {
    echo "web_demo: $*" >&2
    exit 3
}

packages() {
    local major
    major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') || true
    [ "${major:-0}" -ge 20 ] || unavailable "Node.js 20 or newer is not on the PATH"
    command -v npm >/dev/null || unavailable "npm is not on the PATH"
    cd web_demo
    # What npm installed says by which lock file.
    if ! cmp -s package-lock.json node_modules/.installed; then
        if ! npm ci --no-audit --no-fund >"$LOG" 2>&1; then
            tail -5 "$LOG" >&2
            local reason
            reason=$("$HERE/scripts/testing/not_to_be_had.sh" "$LOG") || exit 1
            unavailable "$reason"
        fi
        cp package-lock.json node_modules/.installed
        rm -f "$LOG"
    fi
}

build() {
    packages
    rm -rf build # a test that is no more must not be run
    npm run --silent build
}

# run_tests NAME FILES: the last line from the counts that Node's reporter ends with.
run_tests() {
    local tap=build/$1.tap status=0
    shift
    node --test --test-reporter=spec --test-reporter-destination=stdout --test-reporter=tap --test-reporter-destination="$tap" "$@" || status=$?
    awk '/^# (pass|fail|cancelled|skipped|todo) / {n[$2] = $3}
        END {printf "%d passed, %d failed, %d skipped\n", n["pass"], n["fail"] + n["cancelled"], n["skipped"] + n["todo"]}' "$tap"
    return "$status"
}

# browser: for the tests that need one, which were built.
browser() {
    LCSB_CHROMIUM=$(scripts/web/chromium.sh)
    export LCSB_CHROMIUM
    cd web_demo
}

case ${1:-} in
packages) packages ;;
build) build ;;
test)
    build
    run_tests tests build/tests/*.test.js build/tests/*/*.test.js
    ;;
test-page)
    browser
    run_tests page build/tests/page/browser/*.test.js
    ;;
test-gpu)
    browser
    run_tests gpu build/tests/page/browser/gpu/*.test.js
    ;;
*)
    sed -n "2,7p" scripts/web/kit.sh >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# Set up what is needed and pass every check: style, types, manifest, demo, tests.
# Arguments go to pytest, for example: scripts/test.sh -m gpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export NAPARI_CONFIG=$scratch/settings.yaml
export PATH=$PWD/.venv/bin:$PATH
unset PYTHONDONTWRITEBYTECODE
failed=()

check() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

demo() {
    napari-sam-suite demo --out "$scratch/demo" || return
    local file
    for file in image.tif overlay.png objects.geojson labels.tif; do
        [ -s "$scratch/demo/$file" ] || { echo "demo: $file is missing"; return 1; }
    done
    grep -q Polygon "$scratch/demo/objects.geojson" || { echo "demo: no objects"; return 1; }
}

# The tests of windows and commands beside all others: each half keeps one core busy.
tests() {
    if [ $# -gt 0 ]; then
        run_tests "$@"
        return
    fi
    local rest failed=0
    export OMP_NUM_THREADS=1
    run_tests --ignore=tests/widgets --ignore=tests/cli >"$scratch/rest.log" 2>&1 &
    rest=$!
    run_tests tests/widgets tests/cli || failed=1
    wait "$rest" || failed=1
    printf '\n== all other tests\n'
    cat "$scratch/rest.log"
    return "$failed"
}

# Qt and the software OpenGL below it kill the process once in a great many windows.
# Then, and only then, the tests run once more, and what was going on is shown.
run_tests() {
    local status=0
    pass "$@" || status=$?
    if crashed "$status"; then
        printf '\n== The tests were killed by signal %d; once more.\n' $((status - 128))
        status=0
        pass "$@" || status=$?
    fi
    return "$status"
}

# By SIGILL, SIGABRT, SIGBUS, SIGFPE or SIGSEGV; not by those who stop it.
crashed() {
    [[ $1 =~ ^(132|134|135|136|139)$ ]]
}

pass() {
    local trace status=0
    trace=$(mktemp -p "$scratch")
    xvfb-run -a -s "-screen 0 1920x1200x24" \
        python -X faulthandler -m pytest -m "not gpu and not checkpoint" "$@" \
        2> >(tee "$trace" >&2) || status=$?
    ! crashed "$status" || grep -A 40 "^Current thread" "$trace" | cut -c -200 || true
    return "$status"
}

check style ruff check .
check format ruff format --check .
check types mypy
check manifest npe2 validate src/napari_sam_suite/napari.yaml
check demo demo
check tests tests "$@"

if [ ${#failed[@]} -gt 0 ]; then
    echo "Failed: ${failed[*]}" >&2
    exit 1
fi

#!/usr/bin/env bash
# Create .venv and install the package into it; run it as often as you like.
#   scripts/setup.sh          the engine and the command line
#   scripts/setup.sh test     also napari, the test tools, a virtual display, Chromium
# Debian and Ubuntu packages are installed when root or passwordless sudo allows;
# otherwise the line to run is printed. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=${1:-engine}
venv=.venv
case $what in
    engine) request=(-e .) ;;
    test)
        request=(-e ".[all,formats,onnx,scale]" --group test --group lint)
        # The tests start many processes: each would compile napari and torch anew.
        export UV_COMPILE_BYTECODE=1
        ;;
    *) echo "usage: scripts/setup.sh [engine|test]" >&2; exit 2 ;;
esac

# Only the pure Python part of sam2 is used; its CUDA extension is optional.
export SAM2_BUILD_CUDA=0
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
# Certificates that the system trusts, such as a company proxy's, count for uv too.
[ -s /etc/ssl/certs/ca-certificates.crt ] && export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1

say() { printf '\n== %s\n' "$*"; }

system_packages() {
    local root=()
    [ "$(id -u)" -eq 0 ] || root=(sudo -n)
    if command -v apt-get >/dev/null && "${root[@]}" true 2>/dev/null; then
        say "Installing system packages: $*"
        "${root[@]}" apt-get update -q </dev/null || true
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$@" </dev/null && return
    fi
    printf '\nSystem packages are missing. Run this, then start again:\n  %s\n' \
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed; name it: PYTHON=/path/to/python $0" >&2
    exit 1
}

make_environment() {
    local python minor
    python=$(find_python)
    minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
    say "Creating $venv with $("$python" --version)"
    "$python" -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    system_packages "python3.$minor-venv"
    "$python" -m venv "$venv"
}

install_package() {
    local stamp=$venv/.installed-$what wanted
    wanted=$(cksum <pyproject.toml)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "Installing napari-sam-suite ($what)"
    if find_uv; then
        "$uv" pip install --python "$venv/bin/python" "${request[@]}"
    else
        "$venv/bin/python" -m pip install --upgrade pip
        "$venv/bin/python" -m pip install "${request[@]}"
    fi
    echo "$wanted" >"$stamp"
}

# uv resolves and installs several times faster than pip.
find_uv() {
    for uv in uv "$venv/bin/uv"; do
        [[ $("$uv" pip install --help 2>/dev/null) == *--group* ]] && return
    done
    "$venv/bin/python" -m pip install --quiet uv
}

display_works() {
    command -v xvfb-run >/dev/null || return
    xvfb-run -a "$venv/bin/python" - >/dev/null 2>&1 <<'PROBE'
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

app = QGuiApplication([])
context, surface = QOpenGLContext(), QOffscreenSurface()
surface.create()
raise SystemExit(not (context.create() and context.makeCurrent(surface)))
PROBE
}

[ -x "$venv/bin/python" ] || make_environment
install_package
# The page of exported models is tried in a real browser.
if [ "$what" = test ] && ! command -v chromium >/dev/null; then
    system_packages chromium
fi
if [ "$what" = test ] && ! display_works; then
    system_packages xvfb xauth libegl1 libdbus-1-3 libfontconfig1 libglib2.0-0 \
        libgl1 libgl1-mesa-dri libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 \
        libxcb-shape0 libxkbcommon-x11-0
    display_works || {
        echo "Qt cannot open a window on the virtual display: run" \
            "QT_DEBUG_PLUGINS=1 xvfb-run $venv/bin/napari to see why." >&2
        exit 1
    }
fi

#!/usr/bin/env bash
# Set up what is needed and segment the bundled image; arguments go to the demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh engine
exec .venv/bin/napari-sam-suite demo "$@"

"""Run the command line as ``python -m napari_sam_suite``."""

from __future__ import annotations

from napari_sam_suite.cli.app import app

if __name__ == "__main__":
    app(prog_name="napari-sam-suite")

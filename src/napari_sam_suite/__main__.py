"""Run the command line as ``python -m napari_sam_suite``."""

from __future__ import annotations

from napari_sam_suite.cli.start import main

if __name__ == "__main__":
    main()

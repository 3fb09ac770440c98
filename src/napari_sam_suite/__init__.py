"""Find and edit objects in microscopy images with SAM 1 and SAM 2."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"

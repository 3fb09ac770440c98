"""The embedded model: its architecture, its weights and its card."""

from __future__ import annotations

"""The models: which there are, where their weights are, and how they run."""

from __future__ import annotations

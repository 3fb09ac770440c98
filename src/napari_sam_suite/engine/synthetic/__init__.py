"""Synthetic microscopy with exact truth: sample data, tests and training."""

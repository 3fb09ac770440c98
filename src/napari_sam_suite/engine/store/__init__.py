"""Where a run keeps its results: frame by frame, whole or not at all."""

"""Few-shot: tag a few shapes, find the same objects everywhere."""

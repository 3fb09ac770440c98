"""Points, boxes, masks, the whole frame, and what a model answers to them."""

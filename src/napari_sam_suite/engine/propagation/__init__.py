"""Objects of one frame carried on through time or z."""

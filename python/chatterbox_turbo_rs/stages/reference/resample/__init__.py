"""Contract of stage `reference.resample`."""

"""Contract of stage `reference.load`."""

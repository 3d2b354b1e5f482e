"""Contract of stage `reference.loudness`."""

"""Contract of stage `text.normalize`."""

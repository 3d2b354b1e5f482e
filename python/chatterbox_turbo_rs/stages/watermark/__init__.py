"""Contract of stage `watermark`."""

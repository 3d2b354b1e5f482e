"""Contract of stage `s3gen.flow`."""

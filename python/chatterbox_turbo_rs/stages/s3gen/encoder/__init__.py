"""Contract of stage `s3gen.encoder`."""

"""Contract of stage `s3gen.vocoder`."""

"""Contract of stage `s3gen.prompt_mel`."""

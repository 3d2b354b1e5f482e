"""Contract of stage `s3tokenizer.mel`."""

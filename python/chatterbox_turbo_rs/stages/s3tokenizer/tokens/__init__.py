"""Contract of stage `s3tokenizer.tokens`."""

"""Stages of `s3tokenizer`."""

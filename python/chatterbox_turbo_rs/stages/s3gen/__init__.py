"""Stages of `s3gen`."""

"""Stages of `reference`."""

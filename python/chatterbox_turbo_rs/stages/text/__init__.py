"""Stages of `text`."""

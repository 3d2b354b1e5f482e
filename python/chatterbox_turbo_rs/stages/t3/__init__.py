"""Stages of `t3`."""

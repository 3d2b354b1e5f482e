"""Stages of `speaker_encoder`."""

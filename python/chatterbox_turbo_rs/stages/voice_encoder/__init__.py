"""Stages of `voice_encoder`."""

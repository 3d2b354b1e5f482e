"""Chatterbox Turbo text-to-speech with voice cloning, without PyTorch."""

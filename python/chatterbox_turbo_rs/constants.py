"""Numbers of the model family that more than one module needs."""

SAMPLE_RATE = 24_000
"""Hz of reference clips after loading, of prompt mels and of speech."""
ENCODER_RATE = 16_000
"""Hz of what the voice encoder, S3Tokenizer and CAMPPlus hear."""
HOP = 480
"""Samples of a mel frame at ``SAMPLE_RATE``; a speech token is two frames."""

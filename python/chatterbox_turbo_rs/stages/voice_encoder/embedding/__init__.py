"""Contract of stage `voice_encoder.embedding`."""

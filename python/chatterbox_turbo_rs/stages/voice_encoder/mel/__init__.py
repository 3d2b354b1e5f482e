"""Contract of stage `voice_encoder.mel`."""

"""Contract of stage `speaker_encoder.xvector`."""

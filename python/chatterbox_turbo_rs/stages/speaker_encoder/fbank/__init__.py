"""Contract of stage `speaker_encoder.fbank`."""

"""Contract of stage ``voice_encoder.embedding``: the speaker embedding that T3 is conditioned on.

``embedding(mel) -> vector``

mel : float32 ``[frames, 40]``, frames >= 1
    Mel spectrogram of the whole clip (``voice_encoder.mel``), 100 frames a second.
vector : float32 ``[256]``
    Of length 1, no value below 0.

The clip is cut into partials of 160 frames, 77 apart; a last one that the clip covers to 80 % is filled up with zeros, fewer
frames are left out, and a clip shorter than one partial is one. Every partial's final LSTM state is projected, rectified and
brought to length 1; the mean over partials is brought to length 1 again.

Raises ``ArgumentError`` for another dtype or shape, no frames, NaN or infinity, and ``AudioError`` when a partial activates
nothing (upstream returns NaN there). The checkpoint's tensors are checked by ``create``, which raises ``CheckpointError``.

Source: ``src/chatterbox/models/voice_encoder/voice_encoder.py`` at 5de7a54 (generalized end-to-end loss, arXiv:1710.10467).
"""

"""Contract of stage ``s3gen.encoder``: the mean mel spectrogram that speech tokens stand for.

``encoder(ids, callback=None) -> mu``

ids : int64 ``[K + N]``, at least one
    Speech tokens, 25 a second, each 0 to 6560: K of the reference, then N generated ones (with the closing silence).
mu : float32 ``[2 (K + N), 80]``
    Mean log-mel, two frames a token, 50 frames a second.

A pre-norm conformer without convolution modules: embedding, look-ahead over three tokens, six blocks with relative positions at
25 Hz, doubling of the rate, four blocks at 50 Hz, projection. ``callback(stage, done, total)`` is called between blocks; what
it raises stops the work. Raises ``ArgumentError`` for another dtype or shape, no ids, or an id outside the table.

Source: ``UpsampleConformerEncoder`` in ``src/chatterbox/models/s3gen/transformer/upsample_encoder.py`` and ``inference`` in
``src/chatterbox/models/s3gen/flow.py`` at 5de7a54; relative positions: arXiv:1901.02860.
"""

FRAMES_PER_TOKEN = 2
EMBEDDING_BASE = 10000.0
LOOKAHEAD_SLOPE = 0.01
"""Slope of the LeakyReLU in the look-ahead (PyTorch's default, unlike the vocoder's 0.1)."""

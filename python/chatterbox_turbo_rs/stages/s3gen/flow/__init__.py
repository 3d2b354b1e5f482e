"""Contract of stage ``s3gen.flow``: from noise to the mel spectrogram of the generated tokens.

``flow(mu, xvector, prompt_mel, noise, callback=None) -> mel``

mu : float32 ``[T, 80]``, T = 2 (K + N), at least one frame
    Mean mel of ``s3gen.encoder``.
xvector : float32 ``[192]``
    Speaker vector of ``speaker_encoder.xvector``, of any length; it is normalised here (L2), then projected.
prompt_mel : float32 ``[M, 80]``, M <= T
    Mel of the reference: M is 2K, or 2K + 1 where the reference has an odd number of frames (the output is then one shorter).
noise : float32 ``[T, 80]``
    Standard normals.
mel : float32 ``[T - M, 80]``

A mean flow (arXiv:2505.13447) in two Euler steps on a linear time grid; the cosine grid and the guidance of upstream's
configuration are not used with it. ``callback(stage, done, total)`` is called between transformer blocks; what it raises stops
the work. Raises ``ArgumentError`` for another dtype or shape, a prompt longer than ``mu``, NaN or infinity.

Source: ``inference`` in ``src/chatterbox/models/s3gen/flow.py``, ``src/chatterbox/models/s3gen/flow_matching.py`` and
``src/chatterbox/models/s3gen/decoder.py`` at 5de7a54.
"""

TIME_SCALE = 1000.0
"""What a time of 1 counts in the sinusoids of the time embedding."""
TIME_BASE = 10000.0

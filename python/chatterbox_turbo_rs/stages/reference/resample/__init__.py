"""Contract of stage `reference.resample`.

``resample(samples) -> (w16, r16)``

* ``samples``: float32 ``[n]`` at 24 kHz.
* ``w16``: float32 at 16 kHz, the whole clip through the soxr HQ filter, ``ceil(n * (16000 / 24000))`` samples as librosa
  counts them (where libsoxr delivers one fewer the last is zero). For the voice encoder and T3's prompt tokens.
* ``r16``: float32 at 16 kHz, the first 10 s through torchaudio's windowed sinc, ``ceil(2 * min(n, 240000) / 3)`` samples.
  For the x-vector and S3Gen's prompt tokens.

The two differ by 2 % relative and are not interchangeable.
Raises ``ArgumentError`` for another dtype or shape, or when a sample is not finite.
Source: ``prepare_conditionals`` in ``tts_turbo.py`` and ``embed_ref`` in ``models/s3gen/s3gen.py`` of resemble-ai/chatterbox
at commit 5de7a54 (librosa 0.11 over soxr 1.1, torchaudio 2.11).
"""

from __future__ import annotations

S3GEN_SAMPLES = 240_000
"""How much of the clip S3Gen hears: 10 s at 24 kHz."""

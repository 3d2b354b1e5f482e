"""Contract of stage `reference.loudness`.

``loudness(samples, method="bs1770") -> samples``

* ``samples``: float32 ``[n]`` at 24 kHz, before and after.
* ``method``: ``"bs1770"`` (integrated loudness of ITU-R BS.1770 to -27 LUFS, what the official package does) or ``"rms"``
  (-27 dB root mean square, gain at most 10: the approximation that the parity checklist names).

A clip that cannot be measured comes back unchanged: shorter than a block of 0.4 s, silent, or wholly below -70 LUFS.
The gain is computed in float64 and applied in float32; nothing is clipped afterwards.
Raises ``ArgumentError`` for another dtype, shape or method.
Source: ``ChatterboxTurboTTS.norm_loudness`` in ``tts_turbo.py`` of resemble-ai/chatterbox at commit 5de7a54 (pyloudnorm 0.2).
"""

from __future__ import annotations

TARGET = -27.0
"""LUFS, or dB for ``"rms"``."""

RMS_GAIN_LIMIT = 10.0

METHODS = ("bs1770", "rms")

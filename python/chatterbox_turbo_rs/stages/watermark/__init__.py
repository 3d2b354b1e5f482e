"""Contract of stage `watermark`.

``watermark(samples, callback=None, loudest=None) -> samples``

* ``samples``: float32 ``[n]`` at 24 kHz, n >= 1; the result has the same length.
* ``callback``: None or a callable ``(stage, done, total)``; what it raises stops the work.
* ``loudest``: the level of the loudest frame of a longer sound that ``samples`` are a part of; None: of ``samples``. A frame is
  marked when its level is more than ``QUIET`` of that.

``watermark.levels(samples) -> levels``

* ``samples``: as above; ``levels``: float64 ``[ceil(n / 240) + 1]`` (at least 5). Frame ``t`` is the 2048 samples at 32 kHz around sample
  ``240 t``, its level the sum over its 1025 bins of 0 at -180 dB to 1 at +15 dB.

With these two a part of a sound is marked as the whole is (``engine/windows.py``): a marked sample depends on the samples up to
``CONTEXT`` around it, and on ``loudest``.

``watermark.detect(samples, rate, callback=None) -> float``

* ``samples``: float32 ``[n]`` at ``rate`` Hz (an integer, 1000 to 768000); the result is the confidence in ``[0, 1]`` that
  the clip carries the mark: upstream's ``get_watermark(samples, rate, round=False)``.

The mark is about 12 to 16 dB below the speech, in the bins up to 2 kHz of its loud frames; it is deterministic. Lengths that
are not a multiple of 240 are padded with zeros up to one (at least 960), marked as upstream marks that clip, and cut back;
upstream itself returns fewer samples there. What the vocoder delivers is a multiple of 480. Digital silence stays silent.

Raises ``WatermarkError`` when the weights cannot be found or read, ``ArgumentError`` for another dtype or shape, an empty
clip, NaN or infinity, or a rate that is not allowed; ``detect`` raises ``AudioError`` for a clip that is silent (upstream
answers NaN) or not longer than 32 ms.
Source: resemble-perth 1.0.1 ``perth/perth_net/perth_net_implicit/perth_watermarker.py``, called by ``tts_turbo.py`` of
resemble-ai/chatterbox at commit 5de7a54.
"""

from __future__ import annotations

from ...constants import SAMPLE_RATE as SAMPLE_RATE

BLOCK = 240
"""One hop of Perth's spectrogram at 24 kHz."""
SHORTEST = 960
"""Samples that a shorter clip is padded to."""
INNER_RATE = 32_000
"""Rate that Perth works at, in Hz."""
FRAME, HOP = 2048, 320
"""Samples of a frame of Perth's spectrogram and from frame to frame, at that rate."""
QUIET = 0.05
"""A frame of this share of the loudest frame's level, or less, is left alone."""
FILTER = 130
"""Samples at 32 kHz, at most, that either resampler reaches on either side: 97 of 24 kHz on the way in, 129 on the way out."""
NETWORK = 15
"""Frames on either side that the change of a frame depends on: five convolutions of seven taps."""
REACH = -(-3 * (2 * FILTER + 2 * FRAME // 2 + NETWORK * HOP) // 4)
CONTEXT = -(-REACH // BLOCK) * BLOCK
"""Samples, in whole blocks, on either side of a sample that its marked value depends on: 0.23 s."""
WEIGHTS = "perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar"
"""Where the resemble-perth distribution keeps its weights."""
INSTALL = "pip install resemble-perth==1.0.1"
"""What brings them."""

"""Contract of stage `watermark`.

``watermark(samples, callback=None) -> samples``

* ``samples``: float32 ``[n]`` at 24 kHz, n >= 1; the result has the same length.
* ``callback``: None or a callable ``(stage, done, total)``; what it raises stops the work.

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
WEIGHTS = "perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar"
"""Where the resemble-perth distribution keeps its weights."""
INSTALL = "pip install resemble-perth==1.0.1"
"""What brings them."""

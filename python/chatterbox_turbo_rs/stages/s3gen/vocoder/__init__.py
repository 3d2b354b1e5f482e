"""Contract of stage ``s3gen.vocoder``: from a mel spectrogram to the waveform.

``vocoder(mel, phases, noise, callback=None) -> samples``

mel : float32 ``[F, 80]``, F >= 2
    Log-mel of ``s3gen.flow``, 50 frames a second.
phases : float32 ``[9]``
    Start phases of the harmonics in radians, uniform in (-pi, pi); that of the fundamental is not used (it starts at 0).
noise : float32 ``[480 F, 9]``
    Standard normals, one a sample and harmonic.
samples : float32 ``[480 F]``
    24 kHz, within +-0.99, after the fade-in: 480 zeros, then half a cosine over 480 samples.

The object also has the parts that parity is measured with and ``engine/windows.py`` streams with: ``f0(mel) -> [F]`` (Hz),
``source(f0, phases, noise) -> [480 F]`` (the excitation), ``samples_from_source(mel, source, callback=None) -> [480 F]``,
which has no fade-in, takes F >= 1 and depends on a bounded stretch around every sample, and ``fade`` float32 ``[960]``, by
which the first samples are multiplied.

HiFT (arXiv:2309.09493): harmonics of the fundamental frequency excite a generator that ends in an inverse STFT.
``callback(stage, done, total)`` is called between convolutions; what it raises stops the work. Raises ``ArgumentError`` for
another dtype or shape, too few frames, NaN or infinity.

Source: ``src/chatterbox/models/s3gen/hifigan.py``, ``f0_predictor.py`` and ``trim_fade`` in ``s3gen.py`` at 5de7a54.
"""

from ....constants import HOP as HOP
from ....constants import SAMPLE_RATE

RATE = SAMPLE_RATE
FADE = 480
"""Samples of silence at the start, and of the half cosine after them."""
KERNEL = 7
"""Taps of the first and the last convolution of the generator."""
LAST_SLOPE = 0.01
"""Slope of the LeakyReLU before the last convolution (PyTorch's default, unlike the configured one in the levels)."""

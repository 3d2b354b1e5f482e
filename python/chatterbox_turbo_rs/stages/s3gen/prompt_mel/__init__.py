"""Contract of stage ``s3gen.prompt_mel``: the log-mel spectrogram of the reference that S3Gen continues.

``prompt_mel(samples) -> frames``

samples : float32 ``[n]``, n >= 721
    A 24 kHz clip in -1..1: the first 10 s of the reference.
frames : float32 ``[n // 480, 80]``
    Natural logarithms of mel magnitudes, not below ln(1e-5), 50 frames a second.

A clip needs 721 samples because its ends are mirrored by 720. Raises ``ArgumentError`` for another dtype or shape,
``AudioError`` for a shorter clip, NaN or infinity.

Source: ``mel_spectrogram`` of ``src/chatterbox/models/s3gen/utils/mel.py`` at 5de7a54.
"""

from ....constants import HOP, SAMPLE_RATE

RATE = SAMPLE_RATE
FFT_SIZE = 1920
MELS = 80
HIGHEST = 8000.0
PAD = (FFT_SIZE - HOP) // 2
MIN_SAMPLES = PAD + 1

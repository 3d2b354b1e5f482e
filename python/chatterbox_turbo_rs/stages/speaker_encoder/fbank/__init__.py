"""Contract of stage ``speaker_encoder.fbank``: Kaldi's log-mel filter bank energies, without their mean over time.

``fbank(samples) -> frames``

samples : float32 ``[n]``, n >= 400
    A 16 kHz clip in -1..1 (``r16`` of ``reference.resample``), not scaled to 16-bit integers.
frames : float32 ``[1 + (n - 400) // 160, 80]``
    Natural logarithms, 100 frames a second; every column has mean 0.

A frame is 25 ms: its mean is taken off, pre-emphasis 0.97 (the first sample is its own predecessor), Povey's window, a
transform of 512; triangles are linear in mel = 1127 ln(1 + f / 700) between 20 and 8000 Hz. No dither. Raises
``ArgumentError`` for another dtype or shape, ``AudioError`` for a clip of less than one frame, NaN or infinity.

Source: ``extract_feature`` of ``src/chatterbox/models/s3gen/xvector.py`` at 5de7a54, with ``torchaudio.compliance.kaldi.fbank``.
"""

from ....constants import ENCODER_RATE

RATE = ENCODER_RATE
FRAME = 400
HOP = 160
FFT_SIZE = 512
MELS = 80
LOWEST = 20.0
PREEMPHASIS = 0.97
FLOOR = 2.0**-23

"""Contract of stage ``voice_encoder.mel``: the mel spectrogram that the voice encoder reads, after a trim of silence.

``mel(samples) -> frames``

samples : float32 ``[n]``, n >= 1
    A 16 kHz clip in -1..1 (``w16`` of ``reference.resample``), all of it.
frames : float32 ``[1 + trimmed // 160, 40]``
    Linear power (no logarithm), 100 frames a second.

Ends that are more than 20 dB below the loudest frame are cut off first, at multiples of 512 samples; a clip of zeros keeps
its length. Raises ``ArgumentError`` for another dtype or shape, ``AudioError`` for an empty clip, NaN or infinity.

Source: ``src/chatterbox/models/voice_encoder/melspec.py`` and ``embeds_from_wavs`` of ``voice_encoder.py`` at 5de7a54, with
``librosa.effects.trim`` and ``librosa.stft``.
"""

from ....constants import ENCODER_RATE

RATE = ENCODER_RATE
FFT_SIZE = 400
HOP = 160
MELS = 40
TRIM_FRAME = 2048
TRIM_HOP = 512
TRIM_DB = 20.0

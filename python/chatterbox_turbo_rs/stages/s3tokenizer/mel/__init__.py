"""Contract of stage ``s3tokenizer.mel``: the normalised log-mel spectrogram that S3Tokenizer reads.

``mel(samples) -> frames``

samples : float32 ``[n]``, n >= 201
    A 16 kHz clip in -1..1.
frames : float32 ``[n // 160, 128]``
    ``(log10(power) + 4) / 4``, 100 frames a second; nothing lies more than 2 (80 dB) below the clip's largest value.

The window ``tokenizer.window`` [400] and the filters ``tokenizer._mel_filters`` [128, 201] come from the S3Gen file. The
last frame of the centred transform is dropped, so that frames count whole hops. A clip needs 201 samples because its ends
are mirrored by 200. Raises ``ArgumentError`` for another dtype or shape, ``AudioError`` for a shorter clip, NaN or
infinity, ``CheckpointError`` for a missing tensor.

Source: ``log_mel_spectrogram`` of ``src/chatterbox/models/s3tokenizer/s3tokenizer.py`` at 5de7a54.
"""

FFT_SIZE = 400
HOP = 160
MIN_SAMPLES = FFT_SIZE // 2 + 1

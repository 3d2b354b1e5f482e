"""Contract of stage ``s3tokenizer.tokens``: speech tokens of a clip, 25 a second.

``tokens(mel) -> ids``, an object that also has ``tokens.of_all(mels) -> [ids, …]``, the same for several clips, and
``tokens.pre_codes(mel) -> levels``

mel : float32 ``[frames, 128]``, 1 <= frames <= MAX_FRAMES
    Normalised log-mel spectrogram (``s3tokenizer.mel``), 100 frames a second.
ids : int64 ``[ceil(frames / 4)]``
    Below 3^8 = 6561: eight base-3 digits, the least significant first.
levels : float32 ``[ceil(frames / 4), 8]``
    The numbers in -SHRINK..SHRINK that are rounded to the digits -1, 0, 1. Where two implementations disagree about an id, the
    number behind the digit must be near one half.

Raises ``ArgumentError`` for another dtype or shape, no frames, more than MAX_FRAMES (upstream cuts such clips into windows; the
pipeline crops clips to 15 s), NaN or infinity. ``create`` raises ``CheckpointError`` for tensors that do not fit.

Source: ``s3tokenizer/model_v2.py`` of s3tokenizer 0.3.0, as ``src/chatterbox/models/s3tokenizer/s3tokenizer.py`` at 5de7a54 uses
it (CosyVoice 2, arXiv:2412.10117).
"""

MAX_FRAMES = 3000
SHRINK = 0.9990000128746033

"""Contract of stage ``speaker_encoder.xvector``: the x-vector that S3Gen is conditioned on.

``xvector(fbank) -> vector``

fbank : float32 ``[frames, 80]``, frames >= MIN_FRAMES
    Kaldi filter bank energies with their mean over time subtracted (``speaker_encoder.fbank``), 100 frames a second.
vector : float32 ``[192]``
    Not normalised; ``s3gen.flow`` brings it to length 1.

Raises ``ArgumentError`` for another dtype or shape, fewer than MIN_FRAMES frames (the deviation over time of a single step at
half the frame rate is NaN upstream), NaN or infinity. ``create`` raises ``CheckpointError`` for tensors that do not fit.

Source: ``src/chatterbox/models/s3gen/xvector.py`` at 5de7a54 (CAM++, arXiv:2303.00332).
"""

MIN_FRAMES = 3

"""Contract of stage `reference.load`.

``load(source, rate=24000, longer_than=5.0) -> samples``

* ``source``: a path (``str`` or ``os.PathLike``), the bytes of an encoded file (``bytes``, ``bytearray``, ``memoryview``), a
  binary file object (read to its end, seekable or not), or ``(array, rate)``: ``[n]`` or ``[n, channels]``, float (as it is)
  or int8/uint8/int16/int32 (divided by full scale).
* ``rate``: Hz, 1000 to 768000, and ``longer_than``: seconds; those of a reference clip, or of a source of conversion (16 kHz,
  0.1 s: ``engine/conversion.py``).
* ``samples``: float32 ``[L]``, mono, at ``rate``, with ``L / rate > longer_than``.

Decode to float32, mean over the channels, resample with the soxr HQ filter when the rate differs. Nothing is clipped.
A silent clip is accepted. Both sides read WAV, AIFF, FLAC, MP3, Ogg Vorbis and Opus, and CAF with PCM; Python (libsndfile)
also ADPCM, AU, W64, RF64, GSM, VOC and others, Rust (Symphonia) also MP4 with AAC or ALAC (the priming samples of AAC are
kept). Where the switch is ``auto``, Python reads what Rust does not know, and the voice says so (``engine/pipeline.py``).
The two agree to 1e-6 where libsoxr is a single filter (8, 12, 16, 24, 32, 36, 48 kHz to 24) and to 1e-4 relative on speech
elsewhere.

Raises ``FileError`` when the file cannot be read, or is a URL; ``AudioError``, with the path, when it is not audio, is
damaged, has a rate outside 1 to 768 kHz, holds NaN or infinite samples, or is not longer than it has to be (the same for an array
of another dtype or shape, or of more than 64 channels); its subclass ``UnsupportedAudioError`` when it may be audio of a format
that this side does not know; ``ArgumentError`` for a source of another type, a file object in text mode among them.
Source: ``prepare_conditionals`` in ``tts_turbo.py`` and ``generate`` in ``vc.py`` (which loads at 16 kHz) of
resemble-ai/chatterbox at commit 5de7a54 (librosa 0.11 ``load``).
"""

from __future__ import annotations

from ....constants import SAMPLE_RATE

RATE = SAMPLE_RATE
"""Sample rate of a reference clip after this stage, in Hz."""

MIN_SECONDS = 5.0
"""A reference clip must be longer than this."""

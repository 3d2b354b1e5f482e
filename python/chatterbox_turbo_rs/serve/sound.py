"""How long a sound is that is sent, found out before it is decoded: an hour of silence may be a few hundred kilobytes."""

from __future__ import annotations

import io

from .errors import ApiError

UNTOLD = 4_000_000
"""Bytes of a sound that does not tell how long it is."""
_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_LARGEST_ADTS, _LARGEST_FLAC = 1 << 13, 1 << 20
"""Bytes of a frame; of FLAC's it may be more, but not at any rate or width that speech has."""


def check_length(data: bytes, most: float, name: str) -> None:
    """Raises ``ApiError`` for a sound file that is longer than ``most`` seconds, and for a large one that does not tell."""
    seconds = told(data)
    if seconds is None and len(data) > UNTOLD:
        expected = f"at most {UNTOLD} bytes of a sound that does not say how long it is (WAV, FLAC, MP3, Ogg and AAC do)"
        raise ApiError(400, f"{name}: expected {expected}, got {len(data)}", name, "sound_too_long")
    if seconds is not None and seconds > most:
        raise ApiError(400, f"{name}: expected at most {most:g} s of sound, got {seconds:.0f} s", name, "sound_too_long")


def told(data: bytes) -> float | None:
    """Seconds of an encoded sound, to a frame of its codec; None where neither libsndfile nor its frames tell."""
    found = [_libsndfile(data)]
    if data.startswith(b"fLaC"):
        found.append(_flac(data))
    elif data[4:8] == b"ftyp":
        found.append(_mp4(data))
    elif _is_adts(data, 0):
        found.append(_adts(data))
    return max((seconds for seconds in found if seconds is not None), default=None)


def _libsndfile(data: bytes) -> float | None:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return file.frames / file.samplerate if 0 < file.frames < 1 << 60 else None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        return None  # the reader says what it is


def _is_adts(data: bytes, at: int) -> bool:
    return len(data) - at >= 7 and data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0


def _adts(data: bytes) -> float | None:
    """AAC's frames one after another, of 1,024 samples each; None where something else is between them."""
    index = data[2] >> 2 & 15
    if index >= len(_ADTS_RATES):
        return None
    at = blocks = 0
    while _is_adts(data, at):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if size < 7:
            return None
        at, blocks = at + size, blocks + (data[at + 6] & 3) + 1
    return blocks * 1024 / _ADTS_RATES[index] if len(data) - at < _LARGEST_ADTS else None  # the last one may be cut off


def _flac(data: bytes) -> float | None:
    """Where FLAC's last frame begins. A stream that was sent while it grew has no number of samples in its beginning."""
    block, rate, at = int.from_bytes(data[8:10], "big"), int.from_bytes(data[18:21], "big") >> 4, len(data)
    least = max(42, at - _LARGEST_FLAC)
    while rate and (at := max(data.rfind(b"\xff\xf8", least, at), data.rfind(b"\xff\xf9", least, at))) >= 0:
        number = _flac_number(data[at : at + 16])
        if number is not None:  # of the frame, or, where frames have several sizes, of its first sample
            return number * (block if data[at + 1] == 0xF8 else 1) / rate
    return None


def _flac_number(head: bytes) -> int | None:
    """The number in a frame's header, coded as UTF-8 codes characters; None for what is no header."""
    size = max(8 - (head[4] ^ 0xFF).bit_length(), 1) if len(head) == 16 else 8
    if size > 7:
        return None
    end = 4 + size + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if _crc8(head[:end]) != head[end]:
        return None
    number = head[4] & 0x7F if size == 1 else head[4] & 0x7F >> size
    for byte in head[5 : 4 + size]:
        number = number << 6 | byte & 0x3F
    return number


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc


def _mp4(data: bytes) -> float | None:
    """The movie header of an MP4 file; None for one in fragments, which has no length there."""
    at = data.find(b"mvhd")
    head = data[at + 4 : at + 36]
    if at < 0 or len(head) < 32:
        return None
    if head[0]:
        scale, length = int.from_bytes(head[20:24], "big"), int.from_bytes(head[24:32], "big")
    else:
        scale, length = int.from_bytes(head[12:16], "big"), int.from_bytes(head[16:20], "big")
    return length / scale if scale and length else None

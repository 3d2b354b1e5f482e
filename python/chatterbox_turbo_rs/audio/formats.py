"""Names what a file is by its first bytes, for errors that say what came and how to go on."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import AudioError, UnsupportedAudioError

HEAD = 65_536
"""Bytes that are looked at."""

# Marker, its offset, name; the first that fits.
SOUND = (
    (b"RIFF", 0, "WAV"),
    (b"RF64", 0, "RF64 (WAV of 64 bits)"),
    (b"riff\x2e\x91\xcf\x11", 0, "Wave64"),
    (b"OggS", 0, "Ogg"),
    (b"FORM", 0, "AIFF"),
    (b"caff", 0, "CAF"),
    (b"fLaC", 0, "FLAC"),
    (b".snd", 0, "Sun AU"),
    (b"dns.", 0, "Sun AU"),
    (b"ID3", 0, "MP3"),
    (b"\xff\xfb", 0, "MP3"),
    (b"\xff\xf3", 0, "MP3"),
    (b"\xff\xf1", 0, "AAC"),
    (b"ftyp", 4, "MPEG-4"),
    (b"\x1aE\xdf\xa3", 0, "WebM or Matroska"),
    (b"#!AMR", 0, "AMR"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "Windows Media (ASF)"),
    (b"Creative Voice File", 0, "VOC"),
    (b"NIST_1A", 0, "NIST Sphere"),
    (b"wvpk", 0, "WavPack"),
    (b"MAC ", 0, "Monkey's Audio"),
    (b"TTA1", 0, "True Audio"),
    (b"DSD ", 0, "DSD"),
    (b"MThd", 0, "MIDI"),
    (b"\x0b\x77", 0, "AC-3"),
)
# What stands in the head of a container of several codecs.
CODECS = (
    (b"OpusHead", "Opus"),
    (b"A_OPUS", "Opus"),
    (b"\x01vorbis", "Vorbis"),
    (b"A_VORBIS", "Vorbis"),
    (b"\x7fFLAC", "FLAC"),
    (b"Speex   ", "Speex"),
    (b"mp4a", "AAC"),
    (b"alac", "ALAC"),
    (b"ac-3", "AC-3"),
    (b"ima4", "IMA ADPCM"),
)
WAVE_CODECS = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media",
    0x2000: "AC-3",
}
OTHER = (
    (b"version https://git-lfs", "a git-lfs pointer to it; run `git lfs pull` where it was cloned"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (a voice file of upstream's kind has a name that ends in .pt)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
)


def name_of(head: bytes) -> str | None:
    """Container and codec of the sound that begins with ``head``, such as ``"Ogg Opus"``; None for what is not known."""
    found = next((name for marker, at, name in SOUND if head.startswith(marker, at)), None)
    if found is None or (found == "WAV" and head[8:12] != b"WAVE"):
        return None
    if found == "AIFF":
        found = head[8:12].decode("ascii", "replace").strip()
    codec = next((name for marker, name in CODECS if marker in head), None) if found not in ("FLAC", "MP3") else None
    if head[8:12] == b"WAVE" and (at := head.find(b"fmt ")) > 0:
        codec = WAVE_CODECS.get(int.from_bytes(head[at + 8 : at + 10], "little"))
    return f"{found} {codec}" if codec else found


def refusal(name: str, head: bytes, reader: str, reason: str = "", path: Path | None = None) -> AudioError:
    """The error about a clip that ``reader`` does not know, for a ``reason`` of its own: what the clip is, and the way out.

    ``path`` is the file, where there is one.
    """
    other = next((text for marker, text in OTHER if head[: len(marker)].lower() == marker.lower()), None)
    if other or not head:
        return AudioError(f"{name}: not an audio file: {f'found {other}' if other else 'it is empty'}")
    what = name_of(head)
    said = "not an audio file of a known format" if what is None else f"{what}, which {reader} does not read"
    source = "IN" if path is None else shlex.quote(str(path))
    return UnsupportedAudioError(
        f"{name}: {said}{f' ({reason})' if reason else ''}; convert it: ffmpeg -i {source} -ar 24000 -ac 1 OUT.wav"
    )

"""``/v1/audio/voices`` and conversions: names are names, clips become voices once, what else lies in the directory is left alone."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import soundfile
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.audio.encode import pcm
from chatterbox_turbo_rs.errors import FileError
from chatterbox_turbo_rs.serve.app import create_app
from chatterbox_turbo_rs.serve.settings import Settings

CONSENT = "Spoken by myself."


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With foreign files in it, from the start."""
    found = tmp_path_factory.mktemp("voices")
    (found / "notes.txt").write_text("not a voice")
    (found / "broken.safetensors").write_bytes(b"not a voice either")
    (found / "Con.safetensors").write_bytes(b"")
    (found / "folder.safetensors").mkdir()
    (found / f".{'0f' * 8}.part").write_bytes(b"of a process that was killed")
    (found / "日本.safetensors").write_bytes(b"")
    return found


@pytest.fixture(scope="module")
def own(toy: ChatterboxTurbo, directory: Path) -> Iterator[Served]:
    with serving(toy, voices=directory, max_upload=2_000_000, longest_clip=30) as found:
        yield found


def upload(
    served: Served, clip: bytes | None, name: str | None = "anna", consent: str | None = CONSENT, **more: Any
) -> httpx.Response:
    data = {"name": name, "consent": consent} | more
    files = {} if clip is None else {"audio_sample": ("clip", clip)}
    fields = {key: value for key, value in data.items() if value is not None}
    if not files:
        files = {"nothing": ("", b"")}
    return httpx.post(f"{served.base}/audio/voices", data=fields, files=files, timeout=120)


def names(served: Served) -> list[str]:
    return [voice["id"] for voice in httpx.get(f"{served.base}/audio/voices").json()["voices"]]


def spoken(served: Served, **body: Any) -> httpx.Response:
    body = {"input": "Hi.", "seed": 3, "max_tokens": 10, "response_format": "pcm"} | body
    return httpx.post(f"{served.base}/audio/speech", json=body, timeout=120)


def test_a_clip_becomes_a_voice_that_speaks_until_it_is_taken_away(
    own: Served, toy: ChatterboxTurbo, clip: Path, directory: Path
) -> None:
    assert names(own) == ["default"]
    made = upload(own, clip.read_bytes(), "Anna Maria-2")
    assert made.status_code == 201, made.text
    assert made.json()["object"] == "audio.voice" and made.json()["id"] == made.json()["name"] == "Anna Maria-2"
    assert names(own) == ["default", "Anna Maria-2"]
    found = spoken(own, voice={"id": "Anna Maria-2"})
    voice = toy.voice(clip)
    assert found.headers["x-chatterbox-voice"] == "Anna Maria-2"
    assert found.content == pcm(toy.generate("Hi.", seed=3, max_tokens=10, voice=voice).samples) != spoken(own).content
    kept = Voice.load(directory / "Anna Maria-2.safetensors")
    assert kept.same_arrays(voice) and kept.metadata["consent"] == CONSENT and kept.metadata["created"]
    taken = upload(own, clip.read_bytes(), "anna maria-2")
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "voice_exists")
    gone = httpx.delete(f"{own.base}/audio/voices/Anna%20Maria-2")
    assert gone.status_code == 200 and gone.json() == {"id": "Anna Maria-2", "object": "audio.voice.deleted", "deleted": True}
    assert names(own) == ["default"] and spoken(own, voice="Anna Maria-2").status_code == 400
    assert httpx.delete(f"{own.base}/audio/voices/Anna%20Maria-2").status_code == 404


def test_a_voice_called_as_one_of_openais_is_that_voice(own: Served, clip: Path, directory: Path) -> None:
    assert spoken(own, voice="nova").headers["x-chatterbox-voice"] == "default"
    assert upload(own, clip.read_bytes(), "nova").status_code == 201
    assert spoken(own, voice="nova").headers["x-chatterbox-voice"] == "nova"
    assert httpx.delete(f"{own.base}/audio/voices/nova").status_code == 200


BAD_NAMES = [
    "../up",
    "a/b",
    "a\\b",
    "..",
    ".hidden",
    "a.b",
    "nul",
    "COM1",
    "lpt9",
    "Aux",
    "a\0b",
    "☺",
    "日本",
    "",
    " a",
    "a ",
    "-a",
    "x" * 65,
    "default",
    "a\nb",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_names(own: Served, clip: Path, directory: Path, name: str) -> None:
    before = sorted(os.listdir(directory)), sorted(os.listdir(directory.parent))
    found = upload(own, clip.read_bytes(), name)
    assert found.status_code == (409 if name == "default" else 400) and found.json()["error"]["param"] == "name", found.text
    assert spoken(own, voice=name).status_code == (200 if name == "default" else 400)
    assert httpx.delete(f"{own.base}/audio/voices/{quote(name, safe='')}").status_code in (400, 404, 405)
    assert (sorted(os.listdir(directory)), sorted(os.listdir(directory.parent))) == before


def test_foreign_files_are_left_alone(own: Served, directory: Path) -> None:
    left = {"notes.txt", "broken.safetensors", "Con.safetensors", "folder.safetensors", "日本.safetensors"}
    assert left <= set(os.listdir(directory)) and names(own) == ["default"]
    assert not [name for name in os.listdir(directory) if name.endswith(".part")], "what a killed process left is taken away"
    found = spoken(own, voice="broken")
    assert found.status_code == 400 and "not a voice file" in found.json()["error"]["message"]
    assert httpx.delete(f"{own.base}/audio/voices/broken").status_code == 409 and (directory / "broken.safetensors").exists()
    assert httpx.delete(f"{own.base}/audio/voices/folder").status_code == 404


def silence(seconds: float, rate: int = 8_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(b"\x80" * round(seconds * rate))
    return buffer.getvalue()


def test_what_is_wrong_with_an_upload_is_named(own: Served, clip: Path, directory: Path) -> None:
    good, before = clip.read_bytes(), sorted(os.listdir(directory))
    cases: list[tuple[httpx.Response, int, str | None]] = [
        (upload(own, good, consent=None), 400, "consent"),
        (upload(own, good, consent="false"), 400, "consent"),
        (upload(own, good, consent=" "), 400, "consent"),
        (upload(own, good, consent="x" * 2_001), 400, "consent"),
        (upload(own, good, name=None), 400, "name"),
        (upload(own, None), 400, "audio_sample"),
        (upload(own, None, audio_sample="text"), 400, "audio_sample"),
        (upload(own, b""), 400, "audio_sample"),
        (upload(own, b"\0" * 5_000), 400, None),
        (upload(own, good[: len(good) // 2]), 400, None),
        (upload(own, silence(6)), 400, "audio_sample"),
        (upload(own, silence(31)), 400, "audio_sample"),
        (upload(own, b"RIFF" + os.urandom(100_000)), 400, None),
        (upload(own, b"x" * 3_000_000), 413, None),
    ]
    for number, (found, status, param) in enumerate(cases):
        error = found.json().get("error", {})
        assert found.status_code == status, (number, found.text)
        assert error["param"] == param and error["type"] == "invalid_request_error", found.text
    assert sorted(os.listdir(directory)) == before
    wrong = httpx.post(f"{own.base}/audio/voices", json={"name": "x"})
    assert wrong.status_code == 415
    half = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nanna',
        b"--x\r\nnonsense\r\n\r\n--x--",
        os.urandom(500),
    ):
        found = httpx.post(f"{own.base}/audio/voices", content=body, headers=half)
        assert found.status_code == 400, (body, found.text)
    assert (
        httpx.post(f"{own.base}/audio/voices", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    )


def test_a_server_without_a_directory_keeps_no_voices(served: Served, clip: Path) -> None:
    found = upload(served, clip.read_bytes())
    assert found.status_code == 403 and found.json()["error"]["code"] == "voices_not_kept"
    assert httpx.delete(f"{served.base}/audio/voices/anna").status_code == 404


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a directory that nobody can write into")
def test_a_directory_that_cannot_be_written_into_is_read(toy: ChatterboxTurbo, clip: Path) -> None:
    with serving(toy, voices=Path("/sys/kernel")) as found:
        assert names(found) == ["default"] and spoken(found).status_code == 200
        refused = upload(found, clip.read_bytes())
        assert refused.status_code == 500 and "cannot be written" in refused.json()["error"]["message"]


def test_a_directory_that_is_not_there_is_told_before_anything_starts(toy: ChatterboxTurbo, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="expected a directory"):
        create_app(toy, Settings(voices=tmp_path / "nothing"))


def converted(served: Served, clip: bytes, **fields: str) -> httpx.Response:
    return httpx.post(f"{served.base}/audio/conversions", data=fields, files={"file": ("a.flac", clip)}, timeout=120)


def test_a_recording_is_spoken_in_another_voice(own: Served, toy: ChatterboxTurbo, clip: Path, data: Path) -> None:
    source = (data / "clips" / "stereo.flac").read_bytes()
    assert upload(own, clip.read_bytes(), "ben").status_code == 201
    found = converted(own, source, voice="ben", seed="7", response_format="flac")
    expected = toy.convert(source, voice=toy.voice(clip), seed=7).samples
    heard, _ = soundfile.read(io.BytesIO(found.content), dtype="int16")
    assert found.headers["x-chatterbox-voice"] == "ben" and found.headers["x-chatterbox-seed"] == "7"
    assert heard.astype("<i2").tobytes() == pcm(expected)
    for form in ("wav", "mp3", "opus", "aac", "pcm"):
        assert len(converted(own, source, response_format=form).content) > 10_000
    assert httpx.delete(f"{own.base}/audio/voices/ben").status_code == 200


def test_what_is_wrong_with_a_conversion_is_named(own: Served, clip: Path) -> None:
    good = clip.read_bytes()
    cases = [
        (converted(own, good, voice="nobody"), 400, "voice"),
        (converted(own, good, seed="-1"), 400, "seed"),
        (converted(own, good, response_format="ogg"), 400, "response_format"),
        (converted(own, good, watermark="no"), 400, "watermark"),
        (converted(own, np.zeros(3, np.float32).tobytes()), 400, None),
        (converted(own, silence(31)), 400, "file"),
    ]
    for found, status, param in cases:
        assert found.status_code == status and found.json()["error"]["param"] == param, found.text


def test_a_mark_that_is_required_is_not_left_out(toy: ChatterboxTurbo, clip: Path) -> None:
    with serving(toy, require_watermark=True) as found:
        for refused in (spoken(found, watermark=None), converted(found, clip.read_bytes(), watermark="none")):
            assert refused.status_code == 403 and refused.json()["error"]["code"] == "watermark_required"
        assert spoken(found).status_code == 200

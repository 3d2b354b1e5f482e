"""What a process keeps: nothing of a model that is gone, a bounded number of voices and prefixes, nothing of texts that are spoken."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.engine import registry, voices
from chatterbox_turbo_rs.errors import AudioError, FileError
from chatterbox_turbo_rs.stages.t3.decoder import prefixes
from chatterbox_turbo_rs.tts_turbo import ChatterboxTurboTTS

SHORT: dict[str, Any] = {"max_tokens": 4, "watermark": None}
PYTHON = "text=python,reference=python,voice_encoder.mel=python,s3tokenizer.mel=python,speaker_encoder.fbank=python,s3gen.prompt_mel=python"


def plans() -> list[str]:
    """Rust's, one with every Python stage that runs without PyTorch, and the networks where it is there."""
    networks = [] if registry.missing("t3.decoder", "python") else ["python,watermark=rust"]
    return ["rust", f"rust,{PYTHON},t3.sampler=python", *networks]


@pytest.mark.parametrize("plan", plans())
def test_models_that_are_dropped_are_gone(tiny_checkpoint: Path, clip: Path, plan: str) -> None:
    voice = ChatterboxTurbo.from_pretrained(tiny_checkpoint).voice(clip)

    def use(number: int) -> list[weakref.ref[Any]]:
        model = ChatterboxTurbo.from_pretrained(tiny_checkpoint, backends=plan)
        model.generate("Hello.", voice=clip if number < 2 else voice, **SHORT)
        model.generate_many(["One.", "Two."], voice, **SHORT)
        list(model.iter_many(["One.", "Two."], voice, **SHORT))
        list(model.stream("One.", voice=voice, **SHORT))
        drop_in = ChatterboxTurboTTS(model, "cpu")
        stages = [stage for stage in model._pipeline._stages.values() if type(stage).__weakrefoffset__]
        stages = [stage for stage in stages if type(stage).__module__.startswith("chatterbox_turbo_rs")]
        assert stages
        return [weakref.ref(item) for item in (model, model._pipeline, model._pipeline.resources, drop_in, *stages)]

    before, sizes = threading.active_count(), []
    for number in range(20):
        left = use(number)
        gc.collect()
        assert [reference() for reference in left] == [None] * len(left)
        sizes.append(in_use())
    assert threading.active_count() == before
    # Ten models that stay would be ten times 2 MB and more. What kernels keep for the next one comes and goes: the least of each half.
    assert min(sizes[10:]) - min(sizes[2:10]) < 2**20, sizes


class Mallinfo2(ctypes.Structure):
    """glibc's, of 2.33 and newer."""

    _fields_ = tuple(
        (name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def in_use() -> int:
    """Bytes that are allocated in this process, of all threads; 0 where the system does not say. Its resident memory would tell
    nothing: of what was freed, glibc keeps 64 MB or not, whichever thread it was that freed it.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return 0
    mallinfo.restype = Mallinfo2
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def test_a_model_that_only_speaks_is_gone_at_once(tiny_checkpoint: Path) -> None:
    """Without the garbage collector: no circle holds the weights."""
    gc.collect()
    gc.disable()
    try:
        model = ChatterboxTurbo.from_pretrained(tiny_checkpoint, backends="rust")
        resources = weakref.ref(model._pipeline.resources)
        del model
        assert resources() is None
    finally:
        gc.enable()


class Prepared:
    """Counts the clips that a model prepares."""

    def __init__(self, model: ChatterboxTurbo) -> None:
        self.sources: list[Any] = []
        usual = model._pipeline.voice

        def voice(source: Any, *arguments: Any) -> Voice:
            self.sources.append(source)
            return usual(source, *arguments)

        model._pipeline.voice = voice  # type: ignore[method-assign]


@pytest.fixture
def model() -> ChatterboxTurbo:
    return ChatterboxTurbo.from_pretrained(TOY)


def test_a_clip_is_prepared_once_by_its_content(model: ChatterboxTurbo, clip: Path, tmp_path: Path) -> None:
    prepared = Prepared(model)
    path, other = tmp_path / "voice.flac", tmp_path / "other.flac"
    shutil.copy(clip, path)
    shutil.copy(clip, other)
    expected = model.generate("Hi.", voice=path, seed=1, **SHORT).samples.tobytes()
    for voice in (str(path), other, path):
        assert model.generate("Hi.", voice=voice, seed=1, **SHORT).samples.tobytes() == expected
    assert model.generate_many(["Hi."], path, 1, **SHORT)[0].samples.tobytes() == expected
    assert len(prepared.sources) == 1
    # another content under the same name, of the same size and time
    stat, content = path.stat(), bytearray(path.read_bytes())
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples[::-1], rate, format="FLAC", subtype="PCM_16")
    assert path.read_bytes() != bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model.generate("Hi.", voice=path, seed=1, **SHORT).samples.tobytes() != expected
    assert len(prepared.sources) == 2


def test_what_makes_the_voice_is_part_of_its_name(model: ChatterboxTurbo, clip: Path) -> None:
    prepared = Prepared(model)
    for options in ({}, {"loudness": None}, {"backends": "reference.loudness=python"}, {"backends": "t3.sampler=python"}, {}):
        model.generate("Hi.", voice=clip, **options, **SHORT)
    assert len(prepared.sources) == 3, "the sampler has no part in a voice; loudness and the stages of a voice have"


def test_an_error_is_not_kept(model: ChatterboxTurbo, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    prepared = Prepared(model)
    for _ in range(2):
        with pytest.raises(AudioError, match=r"bad\.wav"):
            model.generate("Hi.", voice=tmp_path / "bad.wav", **SHORT)
    assert len(prepared.sources) == 2


def test_a_voice_file_is_read_once_and_so_keeps_its_prefix(model: ChatterboxTurbo, clip: Path, tmp_path: Path) -> None:
    for name in ("v.safetensors", "V.SAFETENSORS"):
        model.voice(clip).save(tmp_path / "v.safetensors")
        if name != "v.safetensors":
            shutil.move(tmp_path / "v.safetensors", tmp_path / name)
        one, other = (model._voices.open(tmp_path / name, model.plan, None, None) for _ in range(2))
        assert one is other


def test_voices_are_kept_up_to_a_number(model: ChatterboxTurbo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builtin = model.builtin_voice
    assert builtin is not None
    made = []
    for index in range(voices.KEPT + 3):
        dataclasses.replace(builtin, metadata={"source": str(index)}).save(tmp_path / f"{index}.safetensors")
        made.append(weakref.ref(model._voices.open(tmp_path / f"{index}.safetensors", model.plan, None, None)))
    assert [voice() is None for voice in made] == [True] * 3 + [False] * voices.KEPT


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(model: ChatterboxTurbo, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    with pytest.raises(FileError, match=r"fifo\.wav: is not a regular file"):
        model.generate("Hi.", voice=tmp_path / "fifo.wav", **SHORT)


def test_prefixes_are_kept_up_to_a_number(model: ChatterboxTurbo) -> None:
    builtin = model.builtin_voice
    assert builtin is not None
    others = [dataclasses.replace(builtin) for _ in range(prefixes.KEPT + 2)]
    decoder = model._pipeline.stage("t3.decoder", "rust")
    first, last = decoder.prefix_of(others[0]), decoder.prefix_of(others[-1])
    assert decoder.prefix_of(others[0]) is first and decoder.prefix_of(others[-1]) is last
    for voice in others[1:-1]:
        decoder.prefix_of(voice)
        assert decoder.prefix_of(others[0]) is first, "it was used last but one"
    assert decoder.prefix_of(others[-1]) is not last


def test_texts_that_share_a_voice_share_a_prefix_whatever_is_kept(
    model: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the call itself holds none of them: the core alone does, as long as it needs them."""
    builtin = model.builtin_voice
    assert builtin is not None
    decoder, asked = model._pipeline.stage("t3.decoder", "rust"), []
    usual = decoder.prefix_of
    monkeypatch.setattr(decoder, "prefix_of", lambda voice: asked.append(voice) or usual(voice))
    speakers = [dataclasses.replace(builtin) for _ in range(prefixes.KEPT + 3)]
    given: list[Any] = []
    generate_many = decoder.generate_many

    def seen(requests: Any, *arguments: Any, **options: Any) -> None:
        given.extend(requests)
        generate_many(iter(given), *arguments, **options)

    monkeypatch.setattr(decoder, "generate_many", seen)
    model.generate_many(["Hi."] * 2 * len(speakers), speakers * 2, 1, **SHORT)
    assert len(asked) == len(speakers)
    assert all(given[i][0] is given[i + len(speakers)][0] for i in range(len(speakers)))
    assert np.all([prefix.nbytes > 0 for prefix, _, _ in given])

"""A book sounds as ``generate`` does, chapter by chapter, in every format; what was spoken is not spoken again."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
from books import OPTIONS, PAUSE, TEXT, job_of, silent, spoken
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Split
from chatterbox_turbo_rs.audio.encode import FORMATS
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.errors import FileError
from chatterbox_turbo_rs.jobs.estimate import Estimate, in_words
from chatterbox_turbo_rs.jobs.local import arguments_of
from chatterbox_turbo_rs.jobs.parts import Store
from chatterbox_turbo_rs.jobs.plan import CHAPTER, Plan
from chatterbox_turbo_rs.jobs.read import of_bytes

QUICK = ["--model", TOY, "--max-tokens", "8", "--attempts", "0"]


def chapter_by_chapter(tts: ChatterboxTurbo, text: str = TEXT, options=OPTIONS) -> list[Speech]:
    """The oracle: every chapter as ``generate`` speaks it."""
    arguments = arguments_of(options) | {"split": options.split}
    chapters = of_bytes("book", text.encode(), "text").chapters
    return [
        tts.generate(chapter.text, seed=draws.derived(options.seed, number, CHAPTER), **arguments)
        for number, chapter in enumerate(chapters)
    ]


@pytest.fixture(scope="module")
def expected(toy):
    return chapter_by_chapter(toy)


def whole(speeches: list[Speech]) -> np.ndarray:
    silence = np.zeros(round(PAUSE * 24_000), np.float32)
    return np.concatenate([part for speech in speeches for part in (speech.samples, silence)][:-1])


def test_a_book_is_its_chapters_as_generate_speaks_them_in_every_format(toy, expected, tmp_path):
    for name in FORMATS:
        output = tmp_path / f"book.{name}"
        made = spoken(toy, output, subtitles=tmp_path / "book.vtt")
        replace(expected[0], samples=whole(expected)).save(tmp_path / f"expected.{name}")
        assert output.read_bytes() == (tmp_path / f"expected.{name}").read_bytes(), name
        assert made.times.samples == len(whole(expected))
    offset = len(expected[0].samples) / 24_000 + PAUSE
    times = [(s.text, s.start, s.end, s.attempts, s.faults, s.seed) for s in expected[0].segments]
    times += [(s.text, s.start + offset, s.end + offset, s.attempts, s.faults, s.seed) for s in expected[1].segments]
    found = [(s.text, s.start, s.end, s.attempts, s.faults, s.seed) for s in made.times.segments.values()]
    assert [t[0] for t in found] == [t[0] for t in times] and [t[3:] for t in found] == [t[3:] for t in times]
    assert np.allclose([t[1:3] for t in found], [t[1:3] for t in times], atol=1e-9)
    assert any(t[3] == 2 for t in found), "no segment was spoken again: the attempts are not tested"
    assert (tmp_path / "book.vtt").read_text("utf-8").count(" --> ") == len(found)


def test_an_audio_book_has_chapters(toy, expected, tmp_path):
    first = spoken(toy, tmp_path / "book.m4b")
    with av.open(str(tmp_path / "book.m4b")) as file:
        chapters = [(c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in file.chapters()]
        assert chapters == [
            ("CHAPTER I. The Well", 0.0),
            ("CHAPTER II. The Road", pytest.approx(expected[0].seconds + PAUSE, abs=1e-3)),
        ]
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    samples = whole(expected)
    assert abs(len(sound) - len(samples)) <= 2048
    length = min(len(sound), len(samples))
    assert np.corrcoef(sound[:length], samples[:length])[0, 1] > 0.9, "it is not the sound"
    before = (tmp_path / "book.m4b").read_bytes()
    again = spoken(toy, tmp_path / "book.m4b")
    assert (tmp_path / "book.m4b").read_bytes() == before
    assert (again.spoken, again.found) == (0, first.spoken)


def test_a_text_of_one_segment_is_a_book_too(toy, tmp_path):
    spoken(toy, tmp_path / "book.wav", "Just this.")
    [speech] = chapter_by_chapter(toy, "Just this.")
    assert (tmp_path / "book.wav").read_bytes() == speech.wav_bytes()


def test_rows_change_no_sample(toy, tmp_path):
    for batch in (1, 16):
        spoken(toy, tmp_path / f"{batch}.wav", batch=batch)
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "16.wav").read_bytes()


def test_other_settings_have_other_parts_in_the_same_folder(toy, tmp_path):
    output = tmp_path / "book.wav"
    first = spoken(toy, output)
    sound = output.read_bytes()
    store = Store(tmp_path / "book.wav.parts")
    count = store.count()
    assert count == first.spoken
    for other in (
        replace(OPTIONS, seed=6),
        replace(OPTIONS, temperature=0.7),
        replace(OPTIONS, watermark=None),
        replace(OPTIONS, speed=1.2),
    ):
        made = spoken(toy, output, options=other)
        assert made.found == 0 and output.read_bytes() != sound
        assert store.count() == count + made.spoken
        count = store.count()
    assert spoken(toy, output).spoken == 0 and output.read_bytes() == sound


def test_only_what_was_changed_is_spoken_again(toy, tmp_path):
    output = tmp_path / "book.wav"
    quick = replace(OPTIONS, split=Split(attempts=0))
    before = spoken(toy, output, options=quick)
    after = spoken(toy, output, TEXT.replace("Nobody did.", "Nobody did, then."), options=quick)
    assert (after.spoken, after.found) == (1, before.spoken - 1)
    words = replace(quick, pronounce={"rained": "poured"})
    assert spoken(toy, output, TEXT, options=words).spoken == 1, "a word is spoken otherwise in one segment"


def test_another_voice_or_model_shares_no_part(toy, tmp_path):
    job = job_of(toy, tmp_path)
    items = {job.plan.item(piece, 0).address for piece in job.plan.pieces}
    voice = replace(toy.builtin_voice, xvector=toy.builtin_voice.xvector + 1)
    assert voice.fingerprint != toy.builtin_voice.fingerprint
    plan = Plan(of_bytes("book", TEXT.encode(), "text"), OPTIONS, toy.fingerprint, voice.fingerprint)
    assert items.isdisjoint(plan.item(piece, 0).address for piece in plan.pieces)
    assert replace(voice, metadata={"a": "b"}).fingerprint == voice.fingerprint
    other = ChatterboxTurbo.from_pretrained(TOY, precision="int8")
    assert other.fingerprint != toy.fingerprint
    plan = job_of(other, tmp_path).plan
    assert items.isdisjoint(plan.item(piece, 0).address for piece in plan.pieces)


def test_a_fingerprint_tells_any_tensor_and_the_tokenizer(tmp_path, data):
    import shutil

    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(TOY, copy)
    usual = ChatterboxTurbo.from_pretrained(TOY).fingerprint
    assert ChatterboxTurbo.from_pretrained(copy).fingerprint == usual
    tensors = load_file(copy / "t3_turbo_v1.safetensors")
    name = sorted(tensors)[len(tensors) // 2]
    save_file({**tensors, name: tensors[name] * 1.01}, copy / "t3_turbo_v1.safetensors")
    assert ChatterboxTurbo.from_pretrained(copy).fingerprint != usual
    shutil.copy(f"{TOY}/t3_turbo_v1.safetensors", copy)
    assert ChatterboxTurbo.from_pretrained(copy).fingerprint == usual
    (copy / "added_tokens.json").write_bytes((copy / "added_tokens.json").read_bytes() + b"\n")
    assert ChatterboxTurbo.from_pretrained(copy).fingerprint != usual


def test_the_manifest_has_a_line_for_every_segment(toy, tmp_path):
    made = spoken(toy, tmp_path / "book.wav")
    about, *lines = [
        json.loads(line) for line in (tmp_path / "book.wav.parts" / "manifest.jsonl").read_text("utf-8").splitlines()
    ]
    assert about == {"book": "a"} and len(lines) == len(made.times.segments)
    for line, segment in zip(lines, made.times.segments.values(), strict=True):
        assert (line["text"], line["start"], line["end"], line["attempts"]) == (
            segment.text,
            segment.start,
            segment.end,
            segment.attempts,
        )
        assert (
            line["faults"] == list(segment.faults)
            and (tmp_path / "book.wav.parts" / "parts" / f"{line['part']}.safetensors").exists()
        )
    assert [line["chapter"] for line in lines] == sorted(line["chapter"] for line in lines)


def test_progress_counts_characters_up_to_all_of_them(toy, tmp_path):
    heard: list[tuple[str, int, int]] = []
    spoken(toy, tmp_path / "book.wav", report=lambda *told: heard.append(told))
    total = sum(len(piece.segment.text) for piece in job_of(toy, tmp_path).plan.pieces)
    told = [event for event in heard if event[0] not in ("look", "assemble")]
    assert told[0] == ("speak", 0, total) and told[-1][1:] == (total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_the_estimate_is_what_is_left_at_the_speed_so_far():
    now = [100.0]
    estimate = Estimate(lambda: now[0], fewest=4)
    assert estimate.seconds(1000, 0, 1) is None
    for _ in range(4):
        now[0] += 10
        estimate.spoken(100, False)
    assert estimate.seconds(1000, 0, 4) == pytest.approx(100)  # 10 characters a second
    for _ in range(4):
        now[0] += 10
        estimate.spoken(100, True)  # half of all attempts so far are to be repeated
    assert estimate.seconds(1000, 0, 2) == pytest.approx(150)
    assert estimate.seconds(0, 1000, 2) == pytest.approx(100)
    assert estimate.seconds(0, 0, 4) == 0
    assert [in_words(s) for s in (None, 5, 61, 3500, 4000, 7300)] == [
        "", "less than 1 min left", "about 1 min left", "about 58 min left", "about 1 h 10 min left", "about 2 h left",
    ]  # fmt: skip


def test_an_output_that_is_there_stays_until_the_new_one_is_whole(toy, tmp_path):
    output = tmp_path / "book.wav"
    output.write_bytes(b"before")

    def stop(what: str, done: int, total: int) -> None:
        assert output.read_bytes() == b"before"
        if what == "assemble" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spoken(toy, output, report=stop)
    assert output.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == ["book.wav", "book.wav.parts"]
    spoken(toy, output)
    assert soundfile.info(output).duration > 1


def test_a_book_that_wav_cannot_hold_is_refused(toy, tmp_path, monkeypatch):
    from chatterbox_turbo_rs.jobs import assemble

    monkeypatch.setitem(assemble._LARGEST, "wav", 40_000)
    with pytest.raises(FileError, match=r"book.wav: longer than WAV holds \(0.0 h\); .flac has no such limit"):
        spoken(toy, tmp_path / "book.wav")
    assert os.listdir(tmp_path) == ["book.wav.parts"]
    spoken(toy, tmp_path / "book.flac")


@pytest.fixture
def book(capsys, monkeypatch, tmp_path):
    """Runs the command ``book`` beside ``book.txt``; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(TEXT)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["book", *arguments])
        return (code, *capsys.readouterr())

    return run


def test_the_command_speaks_and_goes_on(book, tmp_path):
    code, out, err = book("book.txt", *QUICK)
    assert code == 0 and out.startswith("book.flac: 2 chapters, 7 segments, 7 attempts, ") and err.count("\n") == 1
    assert err.startswith("chatterbox-turbo: book.flac.parts/manifest.jsonl: 7 segments kept a fault")
    sound = (tmp_path / "book.flac").read_bytes()
    code, out, err = book("book.txt", "--json", "--subtitles", "book.srt", *QUICK)
    done = json.loads(out)
    assert (done["spoken"], done["found"], done["segments"]) == (0, 7, 7) and (tmp_path / "book.flac").read_bytes() == sound
    assert done["seconds"] == soundfile.info(tmp_path / "book.flac").duration and done["seed"] == 0
    assert [chapter["title"] for chapter in done["chapters"]] == ["CHAPTER I. The Well", "CHAPTER II. The Road"]
    assert (tmp_path / "book.srt").read_text().count(" --> ") == 7
    code, out, err = book("book.txt", "--discard", *QUICK)
    assert code == 0 and sorted(os.listdir(tmp_path)) == ["book.flac", "book.srt", "book.txt"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode here")
def test_a_book_whose_name_is_no_utf8(book, tmp_path):
    name = os.fsdecode(b"gr\xfcn")
    os.rename(tmp_path / "book.txt", tmp_path / f"{name}.txt")
    code, _, err = book(f"{name}.txt", *QUICK)
    assert code == 0, err
    lines = (tmp_path / f"{name}.flac.parts" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["book"] == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_cannot_become_a_file_is_refused_before_any_work(book, tmp_path):
    os.mkfifo(tmp_path / "a.srt")
    os.mkfifo(tmp_path / "a.flac")
    for arguments in (["--subtitles", "a.srt"], ["-o", "a.flac"]):
        code, out, err = book("book.txt", *arguments, "--model", "nowhere/model")
        assert (code, out) == (1, "") and "expected a file name, found a device or a pipe" in err, err


def test_the_command_lists_chapters_without_a_model(book, tmp_path):
    code, out, err = book("book.txt", "--dry-run", "--model", "/nowhere")
    assert (code, err) == (0, "") and out.splitlines()[0] == "   1 CHAPTER I. The Well  [4 segments, 131 characters]"
    assert json.loads(book("book.txt", "--dry-run", "--json")[1])["chapters"][1]["segments"] == 3
    assert os.listdir(tmp_path) == ["book.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["book.pdf"], 1, "book.pdf: No such file"),
        (["book.txt", "-o", "book.mov"], 2, "book.mov: expected a name ending in"),
        (["book.txt", "-o", "none/book.wav"], 1, "none/book.wav: cannot be written: no directory none"),
        (["book.txt", "--subtitles", "a.sub"], 2, "--subtitles: expected a file that ends in .srt or .vtt"),
        (["book.txt", "--split", "never"], 2, "--split: expected auto"),
        (["book.txt", "--batch", "0"], 2, "--batch: expected a whole number from 1 to 1024"),
        (["book.txt", "--chapter-pause", "-1"], 2, "--chapter-pause: expected seconds from 0 to 600"),
        (["book.txt", "--voice", "none.wav"], 1, "none.wav: No such file"),
        (["book.txt", "--parts", "book.txt"], 1, "book.txt: cannot be used as a job's folder"),
        ([], 2, "Missing argument 'IN'"),
    ],
)
def test_wrong_use_is_one_line(book, tmp_path, arguments, code, says):
    found, out, err = book(*arguments, "--model", TOY)
    assert (found, out) == (code, "") and says in err and err.count("\n") == 1, err
    assert os.listdir(tmp_path) == ["book.txt"]


def test_without_the_extra_the_way_to_it_is_named(book, tmp_path, monkeypatch):
    (tmp_path / "book.md").write_text("# One\n\nWords.")
    (tmp_path / "book.epub").write_bytes(b"PK")
    for name in ("av", "lxml", "lxml.etree", "markdown_it"):
        monkeypatch.setitem(sys.modules, name, None)
    for arguments, missing in ((["book.txt", "-o", "a.m4b"], "PyAV"), (["book.md"], "markdown-it-py"), (["book.epub"], "lxml")):
        code, out, err = book(*arguments, *QUICK)
        assert (
            (code, out) == (1, "")
            and missing in err
            and "pip install 'chatterbox-turbo-rs[book]'" in err
            and err.count("\n") == 1
        )
    assert book("book.txt", "-o", "a.mp3", *QUICK)[0] == 0


def test_a_pyav_that_is_too_old_is_refused_before_any_work(book, tmp_path, monkeypatch):
    monkeypatch.setattr(av, "__version__", "16.0.1")
    code, out, err = book("book.txt", "-o", "a.m4b", *QUICK)
    assert (code, out) == (1, "") and "PyAV: expected version 16.1 or newer, found 16.0.1" in err
    assert os.listdir(tmp_path) == ["book.txt"]


def test_a_segment_that_cannot_be_spoken_is_named_and_stops_no_other(book, tmp_path, monkeypatch):
    usual = ChatterboxTurbo.iter_many

    def iter_many(self, texts, *arguments, **options):  # no text of valid UTF-8 fails by itself
        return usual(self, [text.replace("rained", "\udcff") for text in texts], *arguments, **options)

    monkeypatch.setattr(ChatterboxTurbo, "iter_many", iter_many)
    code, out, err = book("book.txt", *QUICK)
    assert (code, out) == (1, "") and "1 of 7 segments cannot be spoken; chapter 2, segment 1 ('The next day it rained.')" in err
    assert Store(tmp_path / "book.flac.parts").count() == 6 and not (tmp_path / "book.flac").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert json.loads(book("book.txt", "--json", *QUICK)[1])["spoken"] == 1


def test_looking_without_anything_there_finds_nothing(toy, tmp_path):
    job = job_of(toy, tmp_path / "none")
    job.look(silent)
    assert job.found == 0 and not (tmp_path / "none").exists()

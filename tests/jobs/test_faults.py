"""What happens to a job, and what becomes of it: kills at any moment, full disks, damage, company."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from books import TEXT, job_of, silent, spoken
from toy_model import TOY

from chatterbox_turbo_rs.errors import FileError
from chatterbox_turbo_rs.jobs.parts import DamagedPart, Store

KILLS = 50
LONG = "\n\n".join(
    f"Chapter {number}\n\nIt was the evening of day {number}. Nobody had come. So we went on." for number in range(1, 9)
)
COMMAND = [sys.executable, "-c", "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main())", "book"]
QUICK = ["--model", TOY, "--max-tokens", "8", "--attempts", "1", "--longest", "40", "--first", "40", "--batch", "2", "--json"]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


# Processes that begin with everything imported, so that a random moment of a short life is a moment of the work.
NURSERY = """
import os, signal, sys, time
import filelock, safetensors.numpy, soundfile
from chatterbox_turbo_rs import model
from chatterbox_turbo_rs.cli import book
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.jobs import assemble, job, local, make, parts, plan
for line in sys.stdin:
    end = time.monotonic() + float(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open("child.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        os.dup2(1, 2)
        os._exit(main(sys.argv[1:]))
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
def test_killed_at_random_moments_it_ends_with_the_same_bytes_and_speaks_nothing_twice(tmp_path):
    """Each process lives a random while, until ``KILLS`` of them were killed and one has made the book."""
    (tmp_path / "book.txt").write_text(LONG)
    alone = command(tmp_path, "book.txt", "-o", "alone.opus", "--subtitles", "alone.srt", *QUICK)
    assert alone.returncode == 0, alone.stderr
    needed = json.loads(alone.stdout)["spoken"]
    folder = tmp_path / "book.opus.parts"
    arguments = ["book", "book.txt", "-o", "book.opus", "--subtitles", "book.srt", *QUICK]
    drawn = random.Random(17)
    killed, most, progressed = 0, 0.3, 0
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", NURSERY, *arguments],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        while True:
            before = parts_of(folder)
            code = answer(nursery, drawn.uniform(0, most))
            after = parts_of(folder)
            assert before.items() <= after.items(), "a part that was spoken is gone, or was written again"
            progressed += after != before
            if code == -signal.SIGKILL:
                killed += 1
                # Where nothing came of it the next one may live longer: how long a start takes depends on the machine.
                most = most * 1.3 if after == before and len(after) < needed else max(most * 0.8, 0.3)
                most = most * 1.3 if len(after) == needed else most
                continue
            assert code == 0, (tmp_path / "child.log").read_text()
            if killed >= KILLS:
                break
            (tmp_path / "book.opus").unlink()
            for name in drawn.sample(sorted(after), len(after) // 2):
                (folder / "parts" / name).unlink()  # the rest of the kills hit a job that is half done
    assert (tmp_path / "book.opus").read_bytes() == (tmp_path / "alone.opus").read_bytes()
    assert (tmp_path / "book.srt").read_bytes() == (tmp_path / "alone.srt").read_bytes()
    assert len(parts_of(folder)) == needed and progressed >= 10, "hardly any process lived long enough to be killed at work"
    assert [path.name for path in tmp_path.rglob(".*")] == [], "half-written files were left behind"


def answer(nursery: subprocess.Popen[str], seconds: float) -> int:
    """The exit code of a process that lived so long at most."""
    assert nursery.stdin is not None and nursery.stdout is not None
    nursery.stdin.write(f"{seconds}\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def parts_of(folder: Path) -> dict[str, int]:
    """The parts in a job's folder, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "parts").glob("[!.]*.safetensors")}


def test_every_kind_of_damage_to_a_part_is_seen_and_it_is_spoken_again(toy, tmp_path):
    output = tmp_path / "book.wav"
    spoken(toy, output)
    sound = output.read_bytes()
    folder = tmp_path / "book.wav.parts"
    first, second, *_ = sorted((folder / "parts").iterdir())
    content, samples = first.read_bytes(), Store(folder).read(first.stem)[0]
    flipped = bytearray(content)
    flipped[-1000] ^= 1
    damage = {
        "cut off": content[:-7],
        "empty": b"",
        "a bit": bytes(flipped),
        "zeros": bytes(len(content)),
        "another": second.read_bytes(),
    }
    for name, data in damage.items():
        first.write_bytes(data)
        with pytest.raises(DamagedPart, match=f"{first.stem}.safetensors: not a whole part"):
            Store(folder).read(first.stem)
        output.unlink()
        made = spoken(toy, output)
        assert (made.damaged, output.read_bytes()) == (1, sound), name
        assert np.array_equal(Store(folder).read(first.stem)[0], samples), name


def test_a_part_that_is_damaged_while_the_book_is_assembled_is_spoken_again(toy, tmp_path):
    output = tmp_path / "book.wav"
    spoken(toy, output)
    sound = output.read_bytes()
    job = job_of(toy, tmp_path / "book.wav.parts")
    job.look(silent)
    victim = job.store.path(job.best(4)[0].address)

    def report(what: str, done: int, total: int) -> None:
        if (what, done) == ("assemble", 2) and victim.exists():
            victim.write_bytes(b"nothing")

    def once(what: str, done: int, total: int) -> None:
        if not heard:
            report(what, done, total)
        heard.extend([None] if (what, done) == ("assemble", 2) else [])

    heard: list[None] = []
    made = spoken(toy, output, report=once)
    assert (made.damaged, made.spoken) == (1, 1) and output.read_bytes() == sound


@pytest.mark.parametrize("content", [b"", b"\xff\xfe nonsense", b'{"chapter": 1'])
def test_a_damaged_manifest_does_not_matter(toy, tmp_path, content):
    output = tmp_path / "book.wav"
    spoken(toy, output)
    manifest = tmp_path / "book.wav.parts" / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(content)
    assert spoken(toy, output).spoken == 0 and manifest.read_bytes() == whole


def test_a_folder_belongs_to_one_process_at_a_time(toy, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    with Store(tmp_path / "book.flac.parts").alone():
        with (
            pytest.raises(FileError, match="another process is at work on this job"),
            Store(tmp_path / "book.flac.parts").alone(),
        ):
            pass
        refused = command(tmp_path, "book.txt", *QUICK)
        assert (
            refused.returncode == 1
            and refused.stderr.count("\n") == 1
            and "another process is at work on this job" in refused.stderr
        )
    assert command(tmp_path, "book.txt", *QUICK).returncode == 0


def test_of_several_processes_that_begin_together_one_makes_the_book(tmp_path):
    (tmp_path / "book.txt").write_text(LONG)
    started = [
        subprocess.Popen([*COMMAND, "book.txt", *QUICK], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in started]
    assert any(code == 0 for _, _, code in ended)
    assert all(code == 0 or "another process is at work" in err for _, err, code in ended), ended
    alone = command(tmp_path, "book.txt", "-o", "alone.flac", *QUICK)
    assert alone.returncode == 0 and (tmp_path / "book.flac").read_bytes() == (tmp_path / "alone.flac").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource.setrlimit")
@pytest.mark.parametrize(
    ("output", "limit"),
    [("book.wav", 60_000), ("book.flac", 60_000), ("book.mp3", 60_000), ("book.m4b", 60_000), ("book.wav", 20_000)],
)
def test_a_file_that_cannot_grow_is_one_line_and_the_job_goes_on_later(tmp_path, output, limit):
    """A limit to the size of files stands for a full disk: the larger ones stop the book, the smallest one a part."""
    import resource

    (tmp_path / "book.txt").write_text(LONG)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    arguments = ["book.txt", "-o", output, *QUICK]
    full = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, preexec_fn=limited
    )
    assert full.returncode == 1 and full.stdout == "" and full.stderr.count("\n") == 1, full.stderr
    assert "cannot be written: File too large" in full.stderr and (output in full.stderr)
    kept = [] if limit == 20_000 else [f"{output}.parts"]
    assert sorted(os.listdir(tmp_path)) == sorted(["book.txt", *kept]), "half a book was left, or a folder without parts"
    done = command(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert command(tmp_path, "book.txt", "-o", f"alone.{output}", *QUICK).returncode == 0
    assert (tmp_path / output).read_bytes() == (tmp_path / f"alone.{output}").read_bytes()


@pytest.mark.skipif(
    sys.platform != "linux" or getattr(os, "geteuid", lambda: 1)() != 0, reason="needs root, to mount a small file system"
)
def test_a_disk_that_is_full(tmp_path):
    (tmp_path / "book.txt").write_text(LONG)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        arguments = ["book.txt", "-o", "disk/book.wav", *QUICK]
        full = command(tmp_path, *arguments)
        assert full.returncode == 1 and full.stderr.count("\n") == 1 and "No space left on device" in full.stderr, full.stderr
        kept = Store(disk / "book.wav.parts").count()
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        done = command(tmp_path, *arguments)
        assert done.returncode == 0 and json.loads(done.stdout)["found"] >= kept - 1 > 0
        assert command(tmp_path, "book.txt", "-o", "alone.wav", *QUICK).returncode == 0
        assert (disk / "book.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_clocks_that_jump_do_not_matter(toy, tmp_path, monkeypatch):
    spoken(toy, tmp_path / "usual.wav")
    hours = iter(range(10**6))
    usual = time.time
    monkeypatch.setattr(time, "time", lambda: usual() + (-1) ** next(hours) * 3600 * next(hours))
    folder = tmp_path / "book.wav.parts"
    spoken(toy, tmp_path / "book.wav")
    for path in (folder / "parts").iterdir():
        os.utime(path, (0, 4_000_000_000))
    assert spoken(toy, tmp_path / "book.wav").spoken == 0
    assert (tmp_path / "book.wav").read_bytes() == (tmp_path / "usual.wav").read_bytes()


def test_a_megabyte_of_text_is_planned(tmp_path):
    sentence = "It was the evening of another day, and nobody had come to the well. "
    for name, text in {
        "prose.txt": sentence * 15_000,
        "lines.txt": (sentence + "\n") * 15_000,
        "words.txt": "word " * 200_000,
        "solid.txt": "x" * 1_000_000,
        "blank.txt": "\n" * 500_000 + "Words." + " " * 500_000,
    }.items():
        (tmp_path / name).write_text(text)
        done = command(tmp_path, name, "--dry-run", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["chapters"][0]["segments"] >= (1 if name == "blank.txt" else 3000)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    (tmp_path / "book.flac.parts").mkdir()
    (tmp_path / "book.flac.parts" / "parts").write_text("a file where the folder should be")
    refused = command(tmp_path, "book.txt", *QUICK)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "cannot be used as a job's folder" in refused.stderr

"""The same job on a Ray cluster of two workers: the same bytes, and nothing is lost when workers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from books import OPTIONS, PAUSE, job_of, silent, spoken
from ray_cluster import started
from toy_model import TOY

from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError, VoiceError
from chatterbox_turbo_rs.jobs.job import Report
from chatterbox_turbo_rs.jobs.local import How, Local, arguments_of
from chatterbox_turbo_rs.jobs.make import Made, make
from chatterbox_turbo_rs.jobs.ray import Cluster, ClusterError
from chatterbox_turbo_rs.jobs.read import of_bytes

TEXT = "\n\n".join(
    f"Chapter {number}\n\nIt was the evening of day {number}. Nobody had come. So we went on." for number in range(1, 9)
)
COMMAND = [sys.executable, "-c", "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main())", "book"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A cluster of one machine that is thought to have two CPUs."""
    context = started()
    yield context.address_info["gcs_address"]
    ray.shutdown()


def how(**loading: object) -> How:
    return How({"model": TOY, "precision": "f32", **loading}, None, None, arguments_of(OPTIONS), 4)


def on_cluster(cluster: Cluster, output: Path, report: Report = silent) -> Made:
    job = job_of(TTS[0], output.with_name(f"{output.name}.parts"), TEXT)
    assert (cluster.model, cluster.voice.fingerprint) == (TTS[0].fingerprint, TTS[0].builtin_voice.fingerprint)
    with job.store.alone():
        return make(
            job,
            of_bytes("book", TEXT.encode(), "text"),
            output,
            cluster,
            pause=PAUSE,
            subtitles=None,
            report=report,
            about={"book": "a"},
        )


TTS: list = []


@pytest.fixture(scope="module")
def alone(toy, tmp_path_factory) -> tuple[bytes, int]:
    """The book as one process makes it, and how many parts it has."""
    TTS[:] = [toy]
    output = tmp_path_factory.mktemp("alone") / "book.flac"
    made = spoken(toy, output, TEXT)
    return output.read_bytes(), made.spoken


def test_two_workers_make_the_same_book_each_on_the_cpus_that_ray_gave(address, alone, tmp_path):
    with Cluster("auto", how(), 2) as cluster:
        assert cluster.cpus == 1 and len(set(cluster.pids())) == 2
        assert [ray.get(actor.about.remote())["threads"] for actor in cluster._actors] == [1, 1]
        made = on_cluster(cluster, tmp_path / "book.flac")
    assert ((tmp_path / "book.flac").read_bytes(), made.spoken) == alone
    with Cluster("auto", how()) as cluster:
        assert cluster.cpus == 2 and len(cluster.pids()) == 1, "one a machine, with all of its CPUs"
        assert on_cluster(cluster, tmp_path / "book.flac").spoken == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("victims", [1, 2])
def test_workers_that_are_killed_in_the_middle_lose_nothing(address, alone, tmp_path, victims):
    with Cluster("auto", how(), 2) as cluster:
        pids = cluster.pids()
        killed: list[int] = []

        def report(what: str, done: int, total: int) -> None:
            if total / 3 < done < total and what != "look" and not killed:
                killed.extend(pids[:victims])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        made = on_cluster(cluster, tmp_path / "book.flac", report)
        assert len(killed) == victims and set(cluster.pids()).isdisjoint(killed)
    assert ((tmp_path / "book.flac").read_bytes(), made.spoken) == alone


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_job_that_was_killed_on_a_cluster_goes_on_without_one(address, alone, toy, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    same = [
        "--max-tokens",
        "12",
        "--attempts",
        "1",
        "--longest",
        "60",
        "--first",
        "40",
        "--seed",
        "5",
        "--chapter-pause",
        str(PAUSE),
    ]
    arguments = ["book.txt", "--ray", address, "--workers", "2", "--model", TOY, "--precision", "f32", *same]
    driver = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts, end = tmp_path / "book.flac.parts" / "parts", time.monotonic() + 200
    while len(list(parts.glob("[!.]*"))) < 5 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    driver.kill()
    out, err = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, (out, err)
    made = spoken(toy, tmp_path / "book.flac", TEXT)
    assert made.found >= 5 and made.found + made.spoken == alone[1]
    assert (tmp_path / "book.flac").read_bytes() == alone[0]


def test_a_worker_with_another_model_speaks_nothing(address, alone, tmp_path):
    with Cluster("auto", how(), 1) as cluster:
        cluster.model = "another"
        job = job_of(TTS[0], tmp_path, TEXT)
        with pytest.raises(Exception, match="different models or versions"):
            list(cluster.speak([job.plan.item(job.plan.pieces[0], 0)]))


def test_what_is_wrong_with_model_or_voice_is_said_as_without_a_cluster(address, tmp_path):
    with pytest.raises(CheckpointError) as error, Cluster("auto", how(model=str(tmp_path)), 1):
        pass
    with pytest.raises(CheckpointError) as expected:
        Local.load(how(model=str(tmp_path)))
    assert str(error.value) == str(expected.value)
    (tmp_path / "voice.safetensors").write_bytes(b"nothing")
    with pytest.raises(VoiceError, match="not a voice file"):
        Cluster("auto", How({"model": TOY}, tmp_path / "voice.safetensors", None, {}, 4))


def test_a_clip_is_the_same_voice_here_and_there(address, toy, clip):
    with Cluster("auto", How({"model": TOY, "precision": "f32"}, clip, "bs1770", {}, 4), 1) as cluster:
        assert cluster.voice.fingerprint == toy.voice(clip).fingerprint


def test_workers_that_never_live_end_the_job(address, alone, tmp_path, monkeypatch):
    with Cluster("auto", how(), 1) as cluster:
        pid = cluster.pids()[0]
        monkeypatch.setattr(cluster, "_start", lambda: cluster._actors[0])  # the dead one, again and again
        os.kill(pid, signal.SIGTERM)
        job = job_of(TTS[0], tmp_path, TEXT)
        with pytest.raises(ClusterError, match="4 workers in a row did not live"):
            list(cluster.speak([job.plan.item(job.plan.pieces[0], 0)]))


def test_wrong_use_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(TEXT)
    for arguments, code, says in (
        (["--workers", "2"], 2, "--workers: expected --ray with it"),
        (["--ray", "auto", "--workers", "0"], 2, "--workers: expected a whole number"),
        (["--ray", "ray://somewhere:10001"], 2, "--ray: expected auto, or HOST:PORT"),
    ):
        assert main(["book", "book.txt", "--model", TOY, *arguments]) == code
        out, err = capsys.readouterr()
        assert out == "" and says in err and err.count("\n") == 1
    with pytest.raises(ArgumentError):
        Cluster("ray://x", how())
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["book", "book.txt", "--model", TOY, "--ray", "auto"]) == 1
    assert "pip install 'chatterbox-turbo-rs[ray]'" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    arguments = ["book.txt", "--model", TOY, "--ray", "127.0.0.1:1"]
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1 and done.stdout == "" and "--ray 127.0.0.1:1: no cluster there" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1

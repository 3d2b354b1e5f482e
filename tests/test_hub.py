"""Downloads against a small hub of our own: which files, at which revision, resumed, offline, and every refusal in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.checkpoint import locate as where
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError, FileError, VoiceError

TURBO = config.builtin("turbo")
NINE = {
    "added_tokens.json",
    "conds.pt",
    "merges.txt",
    "s3gen_meanflow.safetensors",
    "special_tokens_map.json",
    "t3_turbo_v1.safetensors",
    "tokenizer_config.json",
    "ve.safetensors",
    "vocab.json",
}
# huggingface_hub reads its environment at import: each call has its own process.
CHILD = """
import json, sys
import huggingface_hub.constants as constants
constants.DOWNLOAD_CHUNK_SIZE = 65536
from chatterbox_turbo_rs.checkpoint import locate
from chatterbox_turbo_rs.errors import ChatterboxError
exec(sys.argv[2])
try:
    directory, config = locate.locate(*json.loads(sys.argv[1]))
    print(json.dumps({"directory": str(directory), "name": config["name"]}))
except ChatterboxError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""

# Without the pauses between huggingface_hub's own attempts.
QUICK = "import time; time.sleep = lambda seconds: None"


@pytest.fixture
def repository(tmp_path: Path, tiny_checkpoint: Path, goldens: Path) -> dict[str, Path]:
    """The nine files of Turbo's repository, and what else stands there."""
    place = tmp_path / "repository"
    shutil.copytree(tiny_checkpoint, place)
    shutil.copy(goldens / "conds_fresh.pt", place / "conds.pt")
    (place / "config.json").unlink()
    for name in ("s3gen.safetensors", "README.md", "t3_turbo_v1.pt"):
        (place / name).write_bytes(b"not needed")
    return {path.name: path for path in place.iterdir()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def locate(home: Path, endpoint: str, *arguments: Any, before: str = "", **environment: str) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_")) and "proxy" not in key.lower()
    }
    own = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-c", CHILD, json.dumps(arguments), before]
    done = subprocess.run(command, env={**kept, **own}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


def failure(answer: dict[str, str], *parts: str) -> None:
    assert answer.get("error") == "DownloadError", answer
    assert "\n" not in answer["message"]
    for part in parts:
        assert part in answer["message"]


def turbo(files: dict[str, Path], **more: Any) -> Hub:
    return Hub(TURBO["repository"], files, TURBO["revision"], **more)


def test_exactly_nine_files_at_the_pinned_revision_and_nothing_the_second_time(repository, home) -> None:
    with turbo(repository) as server:
        first = locate(home, server.endpoint, "turbo")
        assert first["name"] == "turbo"
        assert {path.name for path in Path(first["directory"]).iterdir()} == NINE
        for name in NINE:
            assert (Path(first["directory"]) / name).read_bytes() == repository[name].read_bytes()
        assert set(server.transfers()) == NINE == set(server.transfers("HEAD"))
        assert {request.revision for request in server.requests} == {TURBO["revision"], None}
        assert "it/s" not in first["stderr"] and "B/s" not in first["stderr"], "a progress bar was drawn without a terminal"
        server.requests.clear()
        assert locate(home, server.endpoint, "turbo")["directory"] == first["directory"]
        assert not server.requests
    offline = locate(home, server.endpoint, "turbo", HF_HUB_OFFLINE="1")
    assert offline["directory"] == first["directory"]


def test_small_files_come_before_large_ones(repository, home) -> None:
    """A repository that lacks a tokenizer file is refused before gigabytes are transferred."""
    del repository["vocab.json"]
    with turbo(repository) as server:
        answer = locate(home, server.endpoint, "turbo")
        assert not [name for name in server.transfers() if name.endswith(".safetensors")]
    failure(answer, TURBO["repository"], TURBO["revision"], "vocab.json", "no such file", "another revision")


@pytest.mark.parametrize("name", ["s3gen_meanflow.safetensors", "t3_turbo_v1.safetensors"])
def test_a_broken_transfer_is_resumed_where_it_broke(repository, home, name: str) -> None:
    with turbo(repository, cut={name: 1_000_000}) as server:
        answer = locate(home, server.endpoint, "turbo")
        ranges = [request.range for request in server.requests if request.file == name and request.method == "GET"]
    assert len(ranges) == 2 and ranges[0] is None and ranges[1] is not None
    assert 900_000 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 1_000_000
    assert (Path(answer["directory"]) / name).read_bytes() == repository[name].read_bytes()


def test_another_revision_is_the_one_that_is_asked_for(repository, home) -> None:
    with turbo(repository, revisions=("e" * 40,)) as server:
        answer = locate(home, server.endpoint, "turbo", "e" * 40)
        assert {request.revision for request in server.requests} == {"e" * 40, None}
        failure(locate(home, server.endpoint, "turbo", "v9"), "@v9: ", "no such revision")
    assert Path(answer["directory"]).name == "e" * 40


def test_token_goes_to_the_hub_and_not_to_the_store(repository, home) -> None:
    with turbo(repository) as server:
        locate(home, server.endpoint, "turbo", HF_TOKEN="hf_secret")
    assert {(request.token, request.revision is None) for request in server.requests} == {
        ("Bearer hf_secret", False),
        (None, True),
    }


def test_repository_with_its_own_configuration(tiny_checkpoint: Path, home) -> None:
    """``conds.pt`` may be missing; of a branch that moves meanwhile, one commit is taken."""
    files = {path.name: path for path in tiny_checkpoint.iterdir()} | {"t3_nano_v1.safetensors": tiny_checkpoint / "vocab.json"}
    with Hub("some/voice-model", files, move_after="config.json") as server:
        answer = locate(home, server.endpoint, "some/voice-model")
        assert answer["name"] == "tiny" and Path(answer["directory"]).name == "c" * 40
        assert not (Path(answer["directory"]) / "conds.pt").exists()
        assert "t3_nano_v1.safetensors" not in server.transfers("HEAD")
        assert {r.revision for r in server.requests if r.file not in ("config.json", *TURBO["files"].values())} == {"c" * 40}
    offline = locate(home, server.endpoint, "some/voice-model", "c" * 40, HF_HUB_OFFLINE="1")
    assert offline["directory"] == answer["directory"]


@pytest.mark.parametrize("name", ["turbo", "nano"])
def test_repository_without_configuration_is_known_by_its_t3_file(repository, home, name: str) -> None:
    t3 = config.builtin(name)["files"]["t3"]
    repository[t3] = repository["t3_turbo_v1.safetensors"]
    if name == "nano":
        del repository["t3_turbo_v1.safetensors"]
    with Hub("some/model", repository) as server:
        assert locate(home, server.endpoint, "some/model")["name"] == name
        assert set(server.transfers()) == (NINE - {"t3_turbo_v1.safetensors"}) | {t3}
        server.requests.clear()
        locate(home, server.endpoint, "some/model")
        assert not server.transfers(), "files that are in the cache were transferred again"
    # The server is gone: what is in the cache still serves, and so it does offline.
    assert locate(home, server.endpoint, "some/model", HF_HUB_OFFLINE="1")["name"] == name
    assert locate(home, server.endpoint, "some/model", before=QUICK)["name"] == name


def test_repository_of_something_else(home, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with Hub("some/thing", {"README.md": tmp_path / "README.md"}) as server:
        failure(locate(home, server.endpoint, "some/thing"), "some/thing@main", "found none of them")


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, ["there is no repository", "HF_TOKEN"]),
        (401, {"X-Error-Code": "GatedRepo"}, ["gated", "accept its terms at", "HF_TOKEN"]),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, ["refuses the token (HTTP 401)", "HF_TOKEN"]),
        (403, {"X-Error-Message": "no"}, ["refuses the token (HTTP 403)"]),
        (418, {}, ["HTTP 418"]),
    ],
)
def test_refusals_of_the_hub(repository, home, status: int, headers: dict[str, str], says: list[str]) -> None:
    with turbo(repository, refuse=(status, headers)) as server:
        answer = locate(home, server.endpoint, "turbo")
    failure(answer, TURBO["repository"], TURBO["revision"], "vocab.json", *says)


def test_no_network_and_offline_without_a_cache(home) -> None:
    with Hub("a/b", {}) as gone:
        pass
    answer = locate(home, gone.endpoint, "turbo", before=QUICK)
    failure(answer, TURBO["repository"], "vocab.json", gone.endpoint, "cannot be reached", "onnect", "check the connection")
    answer = locate(home, gone.endpoint, "turbo", HF_HUB_OFFLINE="1")
    failure(answer, TURBO["repository"], "vocab.json", str(home), "HF_HUB_OFFLINE")


def test_offline_with_half_a_cache_names_the_missing_file(repository, home) -> None:
    without = {name: path for name, path in repository.items() if name != "ve.safetensors"}
    with turbo(without) as server:
        failure(locate(home, server.endpoint, "turbo"), "ve.safetensors")
        assert not server.transfers("GET"), "what lacks a file is refused before anything is fetched"
    with turbo(repository) as server:
        (Path(locate(home, server.endpoint, "turbo")["directory"]) / "ve.safetensors").unlink()
    failure(locate(home, server.endpoint, "turbo", HF_HUB_OFFLINE="1"), "ve.safetensors", "HF_HUB_OFFLINE")


def test_xet_that_fails_is_replaced_by_plain_http(repository, home) -> None:
    pytest.importorskip("hf_xet", reason="without hf_xet, huggingface_hub never tries Xet")
    with turbo(repository, xet=True) as server:
        answer = locate(home, server.endpoint, "turbo")
        assert "error" not in answer, answer
        assert any("xet-read-token" in request.path for request in server.requests), "Xet was not even tried"
        assert answer["stderr"].count("Xet failed") == 1, answer["stderr"]
        assert set(server.transfers()) >= NINE
    assert (Path(answer["directory"]) / "ve.safetensors").read_bytes() == repository["ve.safetensors"].read_bytes()


FULL = """
import builtins, errno, huggingface_hub.file_download as f
real = f.http_get
def http_get(url, temp_file, **more):
    if "t3_turbo" in url:
        temp_file.write(b"half")
        raise OSError({code}, "refused")
    return real(url, temp_file, **more)
f.http_get = http_get
"""


@pytest.mark.parametrize(("code", "says"), [(28, "no space left"), (13, "cannot be written"), (5, "the download failed")])
def test_system_refuses_the_cache(repository, home, code: int, says: str) -> None:
    with turbo(repository) as server:
        answer = locate(home, server.endpoint, "turbo", before=FULL.replace("{code}", str(code)))
        failure(answer, TURBO["repository"], "t3_turbo_v1.safetensors", says)
        if code != 5:
            assert str(home) in answer["message"] and "HF_HOME" in answer["message"]
        again = locate(home, server.endpoint, "turbo")
    assert (Path(again["directory"]) / "t3_turbo_v1.safetensors").read_bytes() == repository[
        "t3_turbo_v1.safetensors"
    ].read_bytes()


def test_wrong_names(home, tmp_path: Path) -> None:
    failure(locate(home, "http://127.0.0.1:9", "some/-thing-"), "some/-thing-", "expected owner/name")
    for name in ("turboo", "a/b/c", "./absent", "/absent/x", Path("some/thing")):
        with pytest.raises(CheckpointError, match="no such directory; expected turbo, nano, demo"):
            where.locate(name)
    with pytest.raises(CheckpointError, match="found a file"):
        where.locate(Path(__file__))
    with pytest.raises(CheckpointError, match=r"missing t3_turbo_v1.safetensors, .*vocab.json.*; a turbo model needs"):
        where.locate(tmp_path)
    with pytest.raises(ArgumentError, match="only models from the hub have revisions"):
        where.locate(tmp_path, revision="main")


def test_nano_and_turbo_are_pinned_to_commits() -> None:
    for name in ("turbo", "nano"):
        assert re.fullmatch("[0-9a-f]{40}", config.builtin(name)["revision"]), name


def test_the_size_is_said_before_anything_is_fetched(repository, home) -> None:
    before = "import logging; logging.basicConfig(level=logging.INFO)"
    with turbo(repository) as server:
        answer = locate(home, server.endpoint, "turbo", before=before)
        size = sum(repository[name].stat().st_size for name in NINE) / 1e9
        line = next(line for line in answer["stderr"].splitlines() if "fetching" in line)
        assert f"{TURBO['repository']}@{TURBO['revision']}: fetching {size:.2f} GB in 9 files into {home}" in line
        asked = [request.method for request in server.requests]
        assert asked[: len(NINE)] == ["HEAD"] * len(NINE), "the sizes come first"
        again = locate(home, server.endpoint, "turbo", before=before)
    assert "fetching" not in again["stderr"]


def test_a_full_disk_is_found_before_anything_is_fetched(repository, home) -> None:
    full = "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=1000)"
    with turbo(repository) as server:
        size = sum(repository[name].stat().st_size for name in NINE)
        failure(
            locate(home, server.endpoint, "turbo", before=full), f"expected {size:,} bytes", "found 1,000", str(home), "HF_HOME"
        )
        assert not server.transfers("GET")


def test_a_commit_that_the_cache_has_is_named(repository, home) -> None:
    with turbo(repository, revisions=("e" * 40,)) as server:
        locate(home, server.endpoint, "turbo", "e" * 40)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {}):
        answer = locate(home, server.endpoint, "turbo", before=QUICK, **environment)
        failure(answer, f"the cache has it of another commit: revision='{'e' * 40}'")
    assert "directory" in locate(home, server.endpoint, "turbo", "e" * 40, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("name", ["t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors", "conds.pt", "vocab.json"])
def test_a_git_lfs_pointer_is_named_as_such(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "clone"
    shutil.copytree(tiny_checkpoint, copy)
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1912612000\n")
    with pytest.raises(CheckpointError, match=rf"{name}: expected the file itself, found a git-lfs pointer.*git lfs pull"):
        where.locate(copy)


def test_a_voice_that_is_a_git_lfs_pointer(tmp_path: Path) -> None:
    for name in ("voice.safetensors", "conds.pt"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(VoiceError, match=rf"{name}: expected the file itself, found a git-lfs pointer"):
            Voice.load(tmp_path / name)


def test_a_repository_that_cannot_be_asked_for_is_not_blamed(home) -> None:
    answer = locate(home, "http://127.0.0.1:9", "some/thing", HF_HUB_OFFLINE="1")
    failure(answer, "some/thing@main", "HF_HUB_OFFLINE forbids the network")
    with pytest.raises(ArgumentError, match="expected turbo, nano or a repository id such as owner/name, got 'nosuch'"):
        where.download("nosuch")


def test_the_attempts_of_the_library_are_not_listed(home) -> None:
    assert "Retry" not in locate(home, "http://127.0.0.1:9", "turbo", before=QUICK)["stderr"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system keeps no pipes in directories")
@pytest.mark.parametrize("name", ["config.json", "conds.pt", "t3_turbo_v1.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises((FileError, CheckpointError), match=name):
        ChatterboxTurbo.from_pretrained(copy)


@pytest.mark.parametrize("name", ["config.json", "conds.pt"])
def test_a_link_that_leads_nowhere_is_not_as_good_as_no_file(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to("nowhere")
    with pytest.raises(FileError, match=name):
        ChatterboxTurbo.from_pretrained(copy)

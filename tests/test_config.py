"""Configurations: Python and Rust read the same files and refuse the same ones, naming file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.errors import ConfigError, FileError

TINY = (Path(__file__).parent / "data" / "tiny.json").read_text("utf-8")
NAN, INF = float("nan"), float("inf")


def changed(path: str, value: Any) -> str:
    """The tiny configuration with another value at ``path``; ``...`` removes the key."""
    content = json.loads(TINY)
    *outer, last = path.split(".")
    section = content
    for key in outer:
        section = section[key]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return json.dumps(content)


def python(text: str, directory: Path) -> None:
    (directory / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    config.for_directory(directory)


def rust(text: str, directory: Path) -> None:
    _core.Checkpoint(str(directory), text)


def leaves(content: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(content, dict):
        return [leaf for key, value in content.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    return [(path, content)]


SECTIONS = [
    "files",
    "text",
    "t3",
    "voice_encoder",
    "s3tokenizer",
    "speaker_encoder",
    "s3gen",
    "s3gen.encoder",
    "s3gen.estimator",
    "s3gen.vocoder",
]
BAD = {
    **{f"{path} is missing": (changed(path, ...), path.rsplit(".", 1)[-1]) for path, _ in leaves(json.loads(TINY))},
    **{
        f"{path} is a list": (changed(path, [1, 2]), path.rsplit(".", 1)[-1])
        for path, v in leaves(json.loads(TINY))
        if isinstance(v, (str, float))
    },
    **{
        f"{path} is a text": (changed(path, "1"), "")
        for path, v in leaves(json.loads(TINY))
        if not isinstance(v, (str, type(None)))
    },
    **{
        f"{path} is {value}": (changed(path, value), path)
        for path, v in leaves(json.loads(TINY))
        if isinstance(v, (int, float))
        for value in (-1, 1 << 25)
    },
    **{f"{path} is true": (changed(path, True), "") for path, v in leaves(json.loads(TINY)) if isinstance(v, (int, float))},
    **{f"{path} has another key": (changed(f"{path}.colour", 1), "colour") for path in SECTIONS},
    **{
        f"{path} is a list of its values": (changed(path, list(json.loads(TINY).get(path, {}).values())), "")
        for path in SECTIONS[:3]
    },
    "another key": (changed("colour", 1), "colour"),
    "null": (changed("name", None), ""),
    "whole number with a point": (changed("t3.layers", 2.0), ""),
    "whole number with an exponent": (TINY.replace('"layers": 3', '"layers": 3e0', 1), ""),
    "minus nought": (TINY.replace('"layers": 3', '"layers": -0', 1), ""),
    "no layers": (changed("t3.layers", 0), "t3.layers"),
    "beyond 64 bits": (changed("t3.layers", 2**70), ""),
    "thousands of digits": (TINY.replace('"layers": 3', '"layers": ' + "9" * 5000, 1), ""),
    "NaN": (changed("t3.norm_eps", NAN), ""),
    "infinity": (changed("t3.norm_eps", INF), ""),
    "beyond float64": (TINY.replace("1e-05", "1e400", 1), ""),
    "list with a hole": (changed("speaker_encoder.layers", [12, None, 16]), ""),
    "empty list": (changed("s3gen.vocoder.resblock_kernels", []), "s3gen.vocoder.resblock_kernels"),
    "other format": (changed("format", 2), "format: expected 1, found 2"),
    "heads": (changed("t3.heads", 5), "t3.hidden_size by t3.heads: 32 is not divisible by 5"),
    "codes": (changed("s3gen.vocab", 6560), "s3gen.vocab: expected 3^fsq_dims"),
    "many digits of codes": (changed("s3tokenizer.fsq_dims", 1 << 24), "s3gen.vocab"),
    "start token": (changed("t3.start_token", 6563), "t3.start_token: expected a token below 6563, found 6563"),
    "stop token": (changed("t3.stop_token", 7000), "t3.stop_token"),
    "silence token": (changed("s3gen.silence_token", 6561), "s3gen.silence_token"),
    "samples of a frame": (changed("s3gen.vocoder.upsample_rates", [8, 5, 4]), "480 samples a frame"),
    "rates that overflow": (changed("s3gen.vocoder.upsample_rates", [1 << 24] * 3), "480 samples a frame"),
    "lengths of the vocoder's lists": (changed("s3gen.vocoder.upsample_kernels", [16, 11]), "differ in length"),
    "lengths of the speaker encoder's lists": (changed("speaker_encoder.dilations", [1, 2]), "differ in length"),
    **{
        f"file name {name!r}": (changed("files.t3", name), "plain name of a file")
        for name in ("", "..", "../t3.safetensors", "/etc/passwd", "a\\b", "C:x", "a\0b", ".hidden", "a\n")
    },
    "half a surrogate pair": (changed("name", "x").replace('"x"', '"\\ud800"'), ""),
    "key twice": (TINY.replace('"format": 1', '"format": 1, "format": 1', 1), "format"),
    "a list": ("[]", ""),
    "a number": ("1", ""),
    "nothing": ("", ""),
    "a truncated file": (TINY[:-3], ""),
    "something behind it": (TINY + "x", ""),
    "a byte order mark": ("\ufeff" + TINY, ""),
    "brackets without end": ("[" * 100_000, ""),
}


@pytest.mark.parametrize("side", [python, rust])
@pytest.mark.parametrize("case", BAD)
def test_bad_configurations_are_refused(tmp_path: Path, side: Any, case: str) -> None:
    text, says = BAD[case]
    with pytest.raises(ConfigError) as caught:
        side(text, tmp_path)
    message = str(caught.value)
    assert says in message and "\n" not in message
    assert message.startswith(f"{tmp_path / 'config.json'}: " if side is python else "configuration: config: ")


GOOD = {
    "as it is": TINY,
    "whole number for a number": changed("t3.norm_eps", 1),
    "nought where it is a token": changed("t3.start_token", 0),
    "repository and revision": changed("repository", "a/b"),
    "another name of a file": changed("files.s3gen", "s3gen_meanflow.safetensors"),
    "one layer": changed("t3.layers", 1),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_configurations_are_read(tmp_path: Path, tiny_checkpoint: Path, case: str) -> None:
    python(GOOD[case], tmp_path)
    rust(GOOD[case], tiny_checkpoint)


@pytest.mark.parametrize("name", config.BUILTIN)
def test_builtin_configurations_are_good(name: str) -> None:
    content = config.builtin(name)
    config.check(content, name)
    assert content["name"] == name
    assert (content["repository"] is None) == (name == "demo")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent.json: No such file"):
        config.read(tmp_path / "absent.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match=r"config.json: expected JSON in UTF-8"):
        config.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="expected one of turbo, nano, demo"):
        config.builtin("../turbo")


def test_directory_without_configuration_is_known_by_its_t3_file(tmp_path: Path) -> None:
    assert config.for_directory(tmp_path)["name"] == "turbo"
    (tmp_path / "t3_nano_v1.safetensors").touch()
    assert config.for_directory(tmp_path)["name"] == "nano"
    (tmp_path / "t3_turbo_v1.safetensors").touch()
    assert config.for_directory(tmp_path)["name"] == "turbo"

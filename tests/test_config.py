"""Configurations: Python and Rust read the same files and refuse the same ones, naming file and key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    "other format": (changed("format", 2), "format: expected a whole number from 1 to 1, found 2"),
    "heads": (changed("t3.heads", 5), "t3.hidden_size by t3.heads: 32 is not divisible by 5"),
    "codes": (changed("s3gen.vocab", 6560), "s3gen.vocab: expected 3^fsq_dims"),
    "many digits of codes": (changed("s3tokenizer.fsq_dims", 15), "s3gen.vocab: expected 3^fsq_dims"),
    "start token": (changed("t3.start_token", 6563), "t3.start_token: expected a token below 6563, found 6563"),
    "stop token": (changed("t3.stop_token", 7000), "t3.stop_token"),
    "silence token": (changed("s3gen.silence_token", 6561), "s3gen.silence_token"),
    "samples of a frame": (changed("s3gen.vocoder.upsample_rates", [8, 5, 4]), "480 samples a frame"),
    "rates that overflow": (changed("s3gen.vocoder.upsample_rates", [480] * 3), "480 samples a frame"),
    "a kernel below its rate": (changed("s3gen.vocoder.upsample_kernels", [16, 3, 7]), "upsample_kernels: expected 5, its rate"),
    "a kernel that is odd on top": (
        changed("s3gen.vocoder.upsample_kernels", [15, 11, 7]),
        "upsample_kernels: expected 8, its rate",
    ),
    "channels that cannot be halved": (changed("s3gen.vocoder.base_channels", 36), "base_channels: expected a multiple of 8"),
    "a window shorter than its hop": (changed("s3gen.vocoder.istft_size", 2), "istft_size: expected at least istft_hop = 4"),
    "heads of one channel": (changed("s3tokenizer.heads", 128), "s3tokenizer.hidden_size by s3tokenizer.heads: expected an even"),
    "a prompt without room": (changed("t3.prompt_tokens", 2498), "t3.prompt_tokens: expected at most t3.positions - 3 = 2497"),
    "partials far apart": (
        changed("voice_encoder.partials_per_second", 0.01),
        "voice_encoder.partials_per_second: expected partials",
    ),
    "a long list": (
        changed("s3gen.vocoder.resblock_kernels", [3] * 9),
        "resblock_kernels: expected a list of 1 to 8 whole numbers",
    ),
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


def numbers() -> list[tuple[str, Any]]:
    return [(path, v) for path, v in leaves(json.loads(TINY)) if path != "format" and not isinstance(v, (str, type(None)))]


def limits(path: str) -> list[Any]:
    section: Any = config.ranges()
    for key in path.split("."):
        section = section[key]
    return section


def wrong(path: str, example: Any) -> list[Any]:
    """Just outside the range, far outside, and odd where even is needed."""
    least, largest, *kind = limits(path)
    single = example[0] if isinstance(example, list) else example
    if isinstance(single, float):
        return [least - max(abs(least), 1) * 1e-3, largest * 1.001 + 1e-3, -1.0, 1e30]
    return [least - 1, largest + 1, -1, 1 << 40, *([least + (kind[0] == "odd") + (kind[0] == "even")] if kind else [])]


@pytest.mark.parametrize("path", [path for path, _ in numbers()])
def test_every_number_has_a_range_and_its_error_names_key_range_and_value(tmp_path: Path, path: str) -> None:
    example = dict(numbers())[path]
    least, largest, *kind = limits(path)
    for value in wrong(path, example):
        text = changed(path, [value, *example[1:]] if isinstance(example, list) else value)
        for side in (python, rust):
            with pytest.raises(ConfigError) as caught:
                side(text, tmp_path)
            message = str(caught.value)
            assert f"{path}: expected a" in message and f"from {json.dumps(least)} to {json.dumps(largest)}, found" in message
            assert all(word in message for word in kind)


SWEEP = """
import json, os, sys
from pathlib import Path
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
except ImportError:
    pass
import numpy as np
from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import ChatterboxError, InternalError
directory, clip, cases = Path(sys.argv[1]), sys.argv[2], json.loads(sys.stdin.read())
spoken = 0
for path, text in cases:
    (directory / "config.json").write_text(text)
    print(path, file=sys.stderr, flush=True)
    try:
        tts = ChatterboxTurbo.from_pretrained(directory, precision="f32")
        tts.generate("Hello.", voice=tts.voice(clip), seed=1, max_tokens=4)
        spoken += 1
    except InternalError as error:
        sys.exit(f"{path}: {error}")
    except ChatterboxError:
        pass
print(spoken)
"""


def test_no_number_ends_in_a_panic_an_abort_or_a_great_allocation(tmp_path: Path, tiny_checkpoint: Path, clip: Path) -> None:
    """Every number at the edges of its range and around the right one: the model speaks, or an error says why not."""
    for file in tiny_checkpoint.iterdir():
        if file.name != "config.json":
            os.link(file, tmp_path / file.name)
    cases = []
    for path, example in numbers():
        least, largest, *_ = limits(path)
        single = example[0] if isinstance(example, list) else example
        for value in {0, 1, least, largest, single + 1, single * 2, single / 2 if isinstance(single, float) else single // 2}:
            cases.append((f"{path} = {value}", changed(path, [value, *example[1:]] if isinstance(example, list) else value)))
    environment = {**os.environ, "CHATTERBOX_CACHE": "off"}
    command = [sys.executable, "-c", SWEEP, str(tmp_path), str(clip)]
    done = subprocess.run(command, input=json.dumps(cases), text=True, capture_output=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > len(cases) // 20, "some of them are good, such as another start token"


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
    assert content["repository"] and content["revision"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent.json: No such file"):
        config.read(tmp_path / "absent.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match=r"config.json: expected JSON in UTF-8"):
        config.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="expected one of turbo, nano$"):
        config.builtin("../turbo")


def test_directory_without_configuration_is_known_by_its_t3_file(tmp_path: Path) -> None:
    assert config.for_directory(tmp_path)["name"] == "turbo"
    (tmp_path / "t3_nano_v1.safetensors").touch()
    assert config.for_directory(tmp_path)["name"] == "nano"
    (tmp_path / "t3_turbo_v1.safetensors").touch()
    assert config.for_directory(tmp_path)["name"] == "turbo"

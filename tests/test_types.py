"""What type checkers see: the README's Python is right in mypy's strict sense, and no public signature says nothing."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import chatterbox_turbo_rs
from chatterbox_turbo_rs import ChatterboxTurbo, Chunk, Plan, Speech, Voice
from chatterbox_turbo_rs.options import GenerationOptions

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(chatterbox_turbo_rs.__file__).parent


def mypy(program: str, folder: Path) -> tuple[int, str]:
    """Exit status and report of mypy on a program of somebody who has installed the package."""
    pytest.importorskip("mypy", reason="the development tools have mypy")
    (folder / "program.py").write_text(program, "utf-8")
    strict = ["--strict", "--follow-imports=silent", "--cache-dir", str(folder / "cache"), "program.py"]
    environment = os.environ | {"MYPYPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *strict],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return result.returncode, result.stdout + result.stderr


def test_the_examples_of_the_readme_are_strictly_typed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    assert mypy("\n".join(blocks), tmp_path) == (0, "Success: no issues found in 1 source file\n")


def test_types_follow_the_arguments(tmp_path: Path) -> None:
    program = """
        from pathlib import Path
        from chatterbox_turbo_rs import ChatterboxTurbo
        tts = ChatterboxTurbo.from_pretrained(Path("model"), device="mps", precision="int8")
        tts.generate("Hi.", voice=Path("v.wav"), loudness=None, watermark="perth", progress=print)
        reveal_type(tts.generate_many(["a"], seeds=1, batch=3))
        reveal_type(tts.generate_many(["a"], errors="return"))
        reveal_type(next(tts.iter_many(["a"], top_k=3)))
        reveal_type(next(tts.iter_many(["a"], errors="return", batch=3)))
        reveal_type(next(tts.stream("a", latency="low", chunk=1)))
        reveal_type(tts.astream("a", voice=Path("v.wav"), cancel=None))
        tts.detect_watermark([0.1, 0.2], 24_000)
        tts.voice(open("v.wav", "rb"))
        tts.voice(b"RIFF")
        tts.voice(3)
        tts.generate("Hi.", loudness="ebu")
        tts.generate_many(["a"], errors="ignore")
        tts.generate_many(["a"], temperature="hot")
        tts.astream("a", latency="soon")
        ChatterboxTurbo.from_pretrained(precision="f16")
        reveal_type(tts.convert(b"RIFF", voice=Path("v.wav"), watermark=None))
        tts.convert(3)
        ChatterboxTurbo.from_pretrained(t3="no")
    """
    code, report = mypy(textwrap.dedent(program), tmp_path)
    revealed = re.findall(r'Revealed type is "(.*)"', report)
    assert [re.sub(r"chatterbox_turbo_rs\.\w+\.|builtins\.", "", kind) for kind in revealed] == [
        "list[Speech]",
        "list[Speech | ChatterboxError]",
        "tuple[int, Speech]",
        "tuple[int, Speech | ChatterboxError]",
        "Chunk",
        "typing.AsyncGenerator[Chunk, None]",
        "Speech",
    ]
    wrong = sorted({int(line) for line in re.findall(r"program.py:(\d+): error", report)})
    assert code == 1 and wrong == [15, 16, 17, 18, 19, 20, 22, 23], report


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("owner", [ChatterboxTurbo, Speech, Chunk, Voice, Plan, GenerationOptions])
def test_no_public_signature_says_any(owner: type) -> None:
    """But for the model's configuration, a JSON document, in ``ChatterboxTurbo.config`` and ``Voice.check``."""
    loose = [f"{name}: {kind}" for name, kind in owner.__annotations__.items() if re.search(r"\bAny\b", kind)]
    for name, member in vars(owner).items():
        function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
        if inspect.isfunction(function) and (not name.startswith("_") or name in ("__init__", "__array__")):
            loose += [f"{name}: {kind}" for kind in function.__annotations__.values() if re.search(r"\bAny\b", str(kind))]
    assert set(loose) <= {"config: dict[str, Any]", "check: Mapping[str, Any]"}

"""One noun, many places: every stage key of the registry has its folder, modules, binding, test and golden; nothing else does."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.engine.registry import TABLE
from chatterbox_turbo_rs.plan import IMPLEMENTATIONS

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(registry.__file__).parents[1] / "stages"
CORE = ROOT / "rust" / "core" / "src" / "stages"
BINDING = ROOT / "rust" / "binding" / "src" / "stages"
GROUPS = {key.partition(".")[0] for key in TABLE}
# Public modules of the core that are parts of a stage, and bindings of what is no stage.
CORE_PARTS = {"t3.batch", "t3.generate", "t3.many", "watermark.perth", "watermark.polyphase"}
OTHER_BINDINGS = {"draws", "mod", "text_segments"}


def folder(key: str) -> Path:
    return PYTHON.joinpath(*key.split("."))


def test_keys_are_those_of_the_design() -> None:
    assert list(TABLE) == [
        "text.normalize",
        "text.tokenize",
        "reference.load",
        "reference.loudness",
        "reference.resample",
        "voice_encoder.mel",
        "voice_encoder.embedding",
        "s3tokenizer.mel",
        "s3tokenizer.tokens",
        "speaker_encoder.fbank",
        "speaker_encoder.xvector",
        "s3gen.prompt_mel",
        "t3.decoder",
        "t3.sampler",
        "s3gen.encoder",
        "s3gen.flow",
        "s3gen.vocoder",
        "watermark",
    ]


@pytest.mark.parametrize("key", TABLE)
def test_a_stage_has_its_contract_and_its_implementations(key: str) -> None:
    assert set(TABLE[key]) <= set(IMPLEMENTATIONS) and "rust" in TABLE[key]
    files = {path.stem for path in folder(key).glob("*.py")} & set(IMPLEMENTATIONS)
    assert files == set(TABLE[key]), f"{key}: the registry and the folder differ"
    contract = ast.get_docstring(ast.parse((folder(key) / "__init__.py").read_text("utf-8"))) or ""
    assert len(contract.splitlines()) >= 5, f"{key}: its __init__.py does not say what goes in and comes out"
    assert "5de7a54" in contract or "upstream" in contract.lower() or "resemble-perth" in contract, (
        f"{key}: the contract names no source"
    )
    for name, module in TABLE[key].items():
        assert module == f"chatterbox_turbo_rs.stages.{key}.{name}"
        # read, not imported: a network's Python side needs PyTorch
        body = ast.parse((folder(key) / f"{name}.py").read_text("utf-8")).body
        [create] = [f for f in body if isinstance(f, ast.FunctionDef) and f.name == "create"]
        assert [argument.arg for argument in create.args.args] == ["resources"]


@pytest.mark.parametrize("key", TABLE)
def test_adapters_are_thin(key: str) -> None:
    lines = (folder(key) / "rust.py").read_text("utf-8").splitlines()
    assert len(lines) <= 50
    assert any("_core" in line for line in lines)


def test_no_folder_is_unlisted() -> None:
    found = {".".join(path.parent.relative_to(PYTHON).parts) for path in PYTHON.rglob("__init__.py")} - {"."}
    assert found - {"", "shared"} == set(TABLE) | GROUPS
    implementations = {path for name in IMPLEMENTATIONS for path in PYTHON.rglob(f"{name}.py")}
    assert {".".join(path.parent.relative_to(PYTHON).parts) for path in implementations} == set(TABLE)


def public(file: Path) -> set[str]:
    return set(re.findall(r"^pub mod (\w+);", file.read_text("utf-8"), re.MULTILINE))


def test_the_core_has_the_same_stages() -> None:
    assert public(CORE / "mod.rs") == GROUPS == {path.name for path in CORE.iterdir() if path.is_dir()}
    found = {f"{group}.{name}" for group in GROUPS for name in public(CORE / group / "mod.rs")}
    assert found - CORE_PARTS == set(TABLE) - {"watermark"}
    assert found >= CORE_PARTS
    for key in set(TABLE) - {"watermark"}:
        path = CORE.joinpath(*key.split("."))
        assert path.with_suffix(".rs").is_file() != (path / "mod.rs").is_file(), (
            f"{key}: expected one of {path}.rs and {path}/mod.rs"
        )


def test_every_stage_has_one_binding() -> None:
    files = {path.stem for path in BINDING.glob("*.rs")}
    assert files - OTHER_BINDINGS == {key.replace(".", "_") for key in TABLE}
    text = (BINDING / "mod.rs").read_text("utf-8")
    for name in files - {"mod"}:
        assert f"{name}::register(module)?" in text, f"{name} is not registered"


def test_functions_of_the_core_are_named_after_their_stage() -> None:
    keys = {key.replace(".", "_") for key in TABLE}
    functions = {name for name in dir(_core) if inspect.isbuiltin(getattr(_core, name))}
    others = {
        "build_info",
        "cache_clear",
        "cache_info",
        "devices",
        "memory_read_rate",
        "read_torch_archive",
        "taps_begin",
        "taps_end",
        "text_segments",
        "text_sentences",
    }
    stray = {
        name for name in functions - others if not name.startswith("draws_") and not any(name.startswith(key) for key in keys)
    }
    assert not stray


@pytest.mark.parametrize("key", TABLE)
def test_a_stage_has_its_test_and_its_golden(key: str) -> None:
    name = key.replace(".", "_")
    assert (ROOT / "tests" / "stages" / f"test_{name}.py").is_file()
    assert any((ROOT / "tests" / "goldens" / f"{name}{ending}").is_file() for ending in (".npz", ".json"))


def import_graph() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_graph", ROOT / "tools" / "import_graph.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_import_goes_in_a_circle_and_the_document_shows_the_rooms() -> None:
    tool = import_graph()
    edges = tool.graph()
    assert tool.circle(edges) is None
    document = tool.DOCUMENT.read_text("utf-8").partition(tool.BEGIN)[2].partition(tool.END)[0]
    assert document.strip() == tool.text(edges), "run tools/import_graph.py --write"


def test_a_circle_is_found() -> None:
    assert sorted(import_graph().circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})[1:]) == ["a", "b", "c"]

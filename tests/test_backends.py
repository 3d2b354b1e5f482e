"""The switch: what it understands, who wins, and what it says of an implementation that cannot run."""

from __future__ import annotations

import itertools
import pickle
import random
import sys
from typing import Any

import pytest

from chatterbox_turbo_rs import Plan, available
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.engine.registry import TABLE, resolve
from chatterbox_turbo_rs.errors import BackendError
from chatterbox_turbo_rs.parity.recording import NETWORKS
from chatterbox_turbo_rs.plan import parse

BOTH = [key for key in TABLE if key not in NETWORKS]


@pytest.fixture(autouse=True)
def everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listed can run, whatever is installed here, unless a test says otherwise."""

    def missing(key: str, name: str) -> str | None:
        return None if name in TABLE[key] else f"stage {key} has no {name} implementation in this version"

    monkeypatch.setattr(registry, "missing", missing)
    monkeypatch.setattr(registry, "_RUNS", set())


real_missing = registry.missing


def sides(plan: Plan) -> dict[str, str]:
    return {key: name for key, name in plan.items() if name != "rust"}


@pytest.mark.parametrize(
    ("spec", "python"),
    [
        (None, []),
        ("", []),
        ("auto", []),
        ("rust", []),
        ({}, []),
        ("text=python", ["text.normalize", "text.tokenize"]),
        ({"text": "python"}, ["text.normalize", "text.tokenize"]),
        (" auto , text.normalize = python ,", ["text.normalize"]),
        ("text=python,text.tokenize=rust", ["text.normalize"]),
        ("text.tokenize=rust,text=python", ["text.normalize"]),
        ("reference=python,reference.load=auto,watermark=python", ["reference.loudness", "reference.resample", "watermark"]),
        ("python,voice_encoder.embedding=rust,s3tokenizer.tokens=rust,speaker_encoder.xvector=rust,t3.decoder=rust,"
         "s3gen.encoder=rust,s3gen.flow=rust,s3gen.vocoder=rust", BOTH),
    ],
)  # fmt: skip
def test_what_a_switch_means(spec: Any, python: list[str]) -> None:
    assert set(sides(resolve(spec))) == set(python)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("t4=rust", "backends: unknown stage 't4'; the stages are text.normalize, text.tokenize, reference.load, .*, watermark$"),
        ("tex=python", "unknown stage 'tex'"),
        ("text.=python", "unknown stage 'text.'"),
        ("text.normalize.more=python", "unknown stage"),
        ({"t4": "rust"}, "unknown stage 't4'"),
        ({4: "rust"}, "unknown stage 4"),
        ("torch", "backends: expected auto, python or rust, got 'torch'"),
        ("t3=torch", "expected auto, python or rust for t3, got 'torch'"),
        ("t3=", "for t3, got ''"),
        ("t3=rust=rust", "for t3, got 'rust=rust'"),
        ("Rust", "got 'Rust'"),
        ({"t3": None}, "for t3, got None"),
        ({"t3": ["rust"]}, r"for t3, got \['rust'\]"),
        ("=rust", "expected a stage before '=rust'"),
        ("text=python,text=rust", "text is to be python and rust"),
        ("auto,rust", "the whole is to be auto and rust"),
        (["rust"], "expected a string or a dict, got list"),
        (True, "expected a string or a dict, got bool"),
    ],
)
def test_what_a_switch_does_not_mean(spec: Any, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        resolve(spec)


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """``generate(backends=…)``, then the constructor, then the environment, then auto; each speaks only of what it names."""
    monkeypatch.setenv(registry.ENVIRONMENT, "text=python,reference=python,watermark=python")
    plan = resolve("text.normalize=rust", "text=python,reference.load=rust,watermark=auto")
    assert sides(plan) == dict.fromkeys(["text.tokenize", "reference.loudness", "reference.resample"], "python")
    assert sides(resolve("rust", "text=python")) == {}
    assert sides(resolve("auto", "text=python")) == {}
    assert sides(resolve({"text": "auto"}, "text=python,t3.sampler=python"))["t3.sampler"] == "python"
    monkeypatch.setenv(registry.ENVIRONMENT, "t4=python")
    with pytest.raises(BackendError, match="CHATTERBOX_BACKENDS: unknown stage 't4'"):
        resolve("rust")


def test_by_name_is_an_error_and_auto_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {("text.normalize", "rust"): "it is broken; repair it"}
    monkeypatch.setattr(registry, "missing", lambda key, name: broken.get((key, name)))
    assert sides(resolve("auto")) == {"text.normalize": "python"}
    assert sides(resolve(None)) == {"text.normalize": "python"}
    for spec in ("rust", "text=rust", "auto,text.normalize=rust", {"text.normalize": "rust"}):
        with pytest.raises(BackendError, match=r"^text.normalize=rust: it is broken; repair it$"):
            resolve(spec)
    with pytest.raises(BackendError, match=r"^text.normalize=rust: "):
        resolve("text.tokenize=rust", "text=rust")
    assert sides(resolve("text.normalize=auto", "rust")) == {"text.normalize": "python"}


def test_a_stage_that_cannot_run_at_all_stops_only_those_who_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", lambda key, name: "not installed" if key == "watermark" else None)
    assert resolve("auto")["watermark"] == "rust"
    with pytest.raises(BackendError, match=r"^watermark=rust: not installed$"):
        registry.load("watermark", "rust", Resources(".", {}))


def test_an_implementation_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", real_missing)
    module = "chatterbox_turbo_rs.stages.t3.decoder.python"
    monkeypatch.delitem(sys.modules, module, raising=False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        without.delitem(sys.modules, "chatterbox_turbo_rs.stages.shared.torch_network", raising=False)
        with pytest.raises(BackendError, match=r"^t3.decoder=python: .*torch.*; pip install 'chatterbox-turbo-rs\[torch\]'$"):
            resolve("t3.decoder=python")
        assert resolve("auto")["t3.decoder"] == "rust"
    monkeypatch.delitem(sys.modules, module, raising=False)
    from chatterbox_turbo_rs.stages.watermark import python

    monkeypatch.setitem(python.NEEDS, "torch_of_another_world", "pip install torch-of-another-world")
    with pytest.raises(BackendError, match=r"watermark=python: .*torch_of_another_world: pip install torch-of-another-world"):
        resolve("watermark=python")
    with pytest.raises(BackendError, match=r"watermark=python: .*torch_of_another_world"):
        registry.load("watermark", "python", Resources(".", {}))
    module = "chatterbox_turbo_rs.stages.reference.loudness.python"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    reason = real_missing("reference.loudness", "python")
    assert reason is not None and reason.endswith("; pip install pyloudnorm")
    assert real_missing("reference.loudness", "rust") is None
    with pytest.raises(BackendError, match=r"unknown stage 'loudness'; the stages are text.normalize"):
        real_missing("loudness", "rust")


def test_available_says_it_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", real_missing)
    found = available()
    assert list(found) == list(TABLE) and all(list(entry) == ["python", "rust"] for entry in found.values())
    for key, entry in found.items():
        for name, reason in entry.items():
            assert reason is None or (isinstance(reason, str) and "\n" not in reason)
            assert name in TABLE[key] or reason is not None
    assert all(entry["rust"] is None for key, entry in found.items() if key != "watermark"), found


def test_a_plan_is_a_frozen_map() -> None:
    plan = resolve("text=python")
    assert list(plan) == list(TABLE) and len(plan) == len(TABLE) and "t3.decoder" in plan and "t4" not in plan
    assert plan == resolve({"text": "python"}) and hash(plan) == hash(resolve({"text": "python"}))
    assert plan != resolve("rust") and len({plan, resolve("rust"), resolve("text=python")}) == 2
    with pytest.raises(TypeError):
        plan["text.normalize"] = "rust"  # type: ignore[index]
    with pytest.raises(BackendError, match="unknown stage 't4'"):
        plan["t4"]
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert repr(plan) == "Plan('rust,text.normalize=python,text.tokenize=python')"
    for wrong, says in [
        ({}, "expected python or rust for text.normalize, got ''"),
        ({**plan, "t4": "rust"}, "unknown stage 't4'"),
    ]:
        with pytest.raises(BackendError, match=says):
            Plan(wrong)
    with pytest.raises(BackendError, match=r"for t3.decoder, got 'auto'"):
        Plan({**plan, "t3.decoder": "auto"})


def test_a_plan_is_itself_a_switch_and_so_is_its_text() -> None:
    chooser = random.Random(1)
    plans = [Plan({key: chooser.choice(list(names)) for key, names in TABLE.items()}) for _ in range(50)]
    plans += [Plan(dict.fromkeys(TABLE, "rust")), Plan({key: "python" if key in BOTH else "rust" for key in TABLE})]
    for plan, weaker in itertools.product(plans, ("python,t3=auto", None)):
        assert resolve(plan, weaker) == plan
        assert resolve(str(plan), weaker) == plan
        assert resolve(dict(plan), weaker) == plan
    assert parse(plans[0]) == dict(plans[0])

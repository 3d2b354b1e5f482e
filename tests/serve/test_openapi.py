"""Whatever a program sends that reads ``/openapi.json``, it has one of the answers that are described there, and never a defect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.serve.fields import FIELDS
from chatterbox_turbo_rs.serve.openapi import document

schema = schemathesis.openapi.from_dict(document("toy", False))


@pytest.fixture(scope="module")
def any_request(toy: ChatterboxTurbo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(toy, model="toy", voices=tmp_path_factory.mktemp("voices"), max_upload=100_000, max_input=2_000) as found:
        yield found


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described(any_request: Served, case: Case) -> None:
    asked = case.body.get("max_tokens", 1000) if isinstance(case.body, dict) else None
    if type(asked) is int and 1 <= asked <= 1000:  # what is wrong stays wrong
        case.body["max_tokens"] = 5  # a second of work for each would be long
    response = case.call(base_url=any_request.url, timeout=120)
    case.validate_response(response, excluded_checks=EXCLUDED)
    assert response.status_code != 500, response.text
    state = any_request.app.state.serve
    assert state.batch.stuck() < 60 and httpx.get(f"{any_request.url}/health").status_code == 200


EXCLUDED = [
    schemathesis.checks.CHECKS.get_one(
        "positive_data_acceptance"
    ),  # a model and a voice of any name are described, two of them there
    schemathesis.checks.CHECKS.get_one("missing_required_header"),
]


def test_it_is_served_as_it_is_tested(any_request: Served, toy: ChatterboxTurbo, tmp_path: Path) -> None:
    assert httpx.get(f"{any_request.url}/openapi.json").json() == document("toy", False)
    described = document("toy", True)
    assert described["security"] == [{"key": []}] and set(document("toy", False)) == {"openapi", "info", "paths"}
    properties = described["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]
    assert properties.keys() == FIELDS.keys()
    paths = {route.path for route in any_request.app.routes}
    assert {path for path in described["paths"]} <= paths | {path.replace("{name}", "{name:path}") for path in paths} | {
        "/v1/models/{name}"
    }

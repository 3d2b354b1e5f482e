"""The page's files as a server sends them: its own alone, under a policy that allows nothing else, for whoever has no key yet."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.serve import site

FILES = Path(site.__file__).parent / "page"


def test_the_page_may_load_its_own_files_alone(served: Served) -> None:
    found = httpx.get(f"{served.url}/")
    assert found.status_code == 200 and found.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in found.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    assert "unsafe" not in str(policy) and found.headers["x-content-type-options"] == "nosniff"
    # What such a policy would block: scripts and styles in the text.
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", found.text)
    assert site.SLOT not in found.text and 'id="comparison"' in found.text


def test_every_file_that_the_page_names_is_there(served: Served) -> None:
    text = httpx.get(f"{served.url}/").text
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', text)
    assert len(named) > 10
    for name in named:
        found = httpx.get(f"{served.url}/{name}")
        assert found.status_code == 200, name
        assert found.headers["content-type"] == site.TYPES[name.rpartition(".")[2]]
        assert found.content == (FILES / name.removeprefix("page/")).read_bytes()
    # All but the one-file comparison's own, and what other files name.
    assert {f"page/{name}" for name in site.names()} - set(named) == {"page/abx_file.js", "page/recorder.js"}


@pytest.mark.parametrize("file", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_address(file: Path) -> None:
    found = set(re.findall(r"(?:https?:)?//[a-z0-9][a-z0-9.-]*\.[a-z]{2,}", file.read_text("utf-8")))
    assert found <= {"http://www.w3.org"}  # the namespace of SVG
    assert "eval(" not in file.read_text("utf-8") and "innerHTML" not in file.read_text("utf-8")


@pytest.mark.parametrize("name", ["index.html", "abx.html", "..%2Fsite.py", "../site.py", "nothing.js", "style.css/", ""])
def test_nothing_else_is_to_be_had(served: Served, name: str) -> None:
    assert httpx.get(f"{served.url}/page/{name}").status_code == 404


def test_a_file_that_is_known_is_not_sent_again(served: Served) -> None:
    first = httpx.get(f"{served.url}/page/style.css")
    again = httpx.get(f"{served.url}/page/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert httpx.get(f"{served.url}/page/dom.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_the_page_is_told_what_the_server_is(served: Served) -> None:
    found = httpx.get(f"{served.url}/page/about").json()
    assert found["model"] == "demo" and found["demo"] is True and found["compares"] is True
    assert found["tags"][:2] == ["[angry]", "[fear]"] and len(found["tags"]) == 19
    assert found["keeps_voices"] is False and found["max_input"] == 100_000 and found["sample_rate"] == 24_000


def test_the_page_needs_no_key_and_the_rest_does(demo: ChatterboxTurbo) -> None:
    with serving(demo, api_key="open sesame") as served:
        for path in ("/", "/page/about", "/page/style.css", "/openapi.json"):
            assert httpx.get(served.url + path).status_code == 200
        for path in ("/v1/audio/voices", "/v1/audio/comparisons"):
            assert httpx.get(served.url + path).status_code == 401

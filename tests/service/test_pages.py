"""The pages load nothing from outside and can be used without a mouse or eyes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api.ops import FILES, UI_FOLDER


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_and_what_they_name_are_served(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert links
    for link in links:
        if not link.startswith("data:"):
            assert client.get("/" + link.lstrip("./")).status_code == 200, link
    assert client.head(path).status_code == 200


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_comes_from_outside(name: str) -> None:
    text = (UI_FOLDER / name).read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"""["'(]//""", text)
    assert not re.search(r"\son[a-z]+=|style=|innerHTML", text)


def test_the_translate_page_is_labelled() -> None:
    text = (UI_FOLDER / "index.html").read_text()
    assert '<html lang="en">' in text
    fields = re.findall(
        r'<(?:textarea|select|input (?!type="file"|aria-label)).*?id="([^"]+)"', text
    )
    assert {"text", "source", "target"} <= set(fields)
    assert set(fields) == set(re.findall(r'<label for="([^"]+)"', text))
    assert 'role="status"' in text


def test_modules_are_small_preloaded_and_all_there() -> None:
    page = (UI_FOLDER / "index.html").read_text()
    modules = {name for name in FILES if b"\nimport " in FILES[name] or b"\nexport " in FILES[name]}
    named = {name for one in modules for name in re.findall(rb'from "\./([^"]+)"', FILES[one])}
    assert {name.decode() for name in named} == modules - {"app.js"}
    preloaded = re.findall(r'rel="modulepreload" href="ui/([^"]+)"', page)
    assert preloaded == sorted(modules - {"app.js"})
    assert all(FILES[name].count(b"\n") < 250 for name in modules)
    documentation = {"docs.html", "docs.js"}
    assert sum(len(FILES[name]) for name in set(FILES) - documentation) <= 60_000


def test_an_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/ui/app.js")
    again = client.get("/ui/app.js", headers={"If-None-Match": f'"x", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/ui/api.js", headers={"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


def test_the_api_is_described(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    assert {"/v1/translate", "/v1/models", "/healthz", "/readyz"} <= set(spec["paths"])
    responses = spec["paths"]["/v1/translate"]["post"]["responses"]
    assert {"200", "413", "422", "503", "504"} <= set(responses)
    assert "HTTPValidationError" not in str(responses)


def test_every_path_is_documented(client: TestClient) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    for path in client.get("/docs.json").json()["paths"]:
        assert f"{path}`" in text, path


@pytest.mark.parametrize("name", ["nothing.js", "..%2fservice.py", "%2e%2e/service.py"])
def test_only_the_pages_files_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/ui/{name}").status_code == 404

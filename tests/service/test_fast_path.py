"""The fast path answers as FastAPI does."""

from __future__ import annotations

import json
from typing import Any

import httpx
from fastapi.testclient import TestClient

from service.middleware import FastPath, RequestMiddleware
from tests.service.conftest import MakeClient

JSON = "application/json"
TEXT = "the old blue street cat."
REQUESTS: list[tuple[str, str, str | bytes]] = [
    ("/v1/translate", JSON, json.dumps({"text": TEXT})),
    ("/v1/translate", "application/json; charset=utf-8", json.dumps({"text": [TEXT, "", "42"]})),
    (
        "/v1/translate",
        JSON,
        json.dumps(
            {
                "text": f"<p>{TEXT}</p>",
                "format": "html",
                "source": "auto",
                "target": "de",
                "alternatives": 2,
                "beam_size": 2,
                "glossary": {"cat": "Katze"},
                "return": ["scores", "sentences"],
            }
        ),
    ),
    ("/v1/translate", JSON, json.dumps({"text": "größer\u2028 Ü"}, ensure_ascii=False)),
    ("/v1/translate", JSON, "{"),
    ("/v1/translate", JSON, "[]"),
    ("/v1/translate", JSON, ""),
    ("/v1/translate", JSON, b'{"text": "\xff"}'),
    ("/v1/translate", JSON, json.dumps({"text": TEXT}).encode("utf-16")),
    ("/v1/translate", JSON, '{"text": "\\ud800"}'),
    ("/v1/translate", JSON, '{"text": "the cat", "text": "the dog"}'),
    ("/v1/translate", JSON, '{"text": "the cat", "beam_size": 1.0}'),
    ("/v1/translate", JSON, '{"text": "the cat", "beam_size": "1"}'),
    ("/v1/translate", JSON, '{"text": "the cat", "beam_size": NaN}'),
    ("/v1/translate", JSON, '{"text": "the cat", "return_scores": 1}'),
    ("/v1/translate", JSON, json.dumps({"text": TEXT, "wishes": ["scores"]})),
    ("/v1/translate", JSON, json.dumps({"text": TEXT, "more": 1})),
    ("/v1/translate", JSON, json.dumps({"text": ["a", 1]})),
    ("/v1/translate", JSON, json.dumps({"text": TEXT, "target": "ja"})),
    ("/v1/translate", JSON, json.dumps({"text": "a" * 20_001})),
    ("/v1/translate", "text/plain", json.dumps({"text": TEXT})),
    ("/translate", JSON, json.dumps({"q": TEXT, "source": "en", "target": "de"})),
    ("/translate", JSON, json.dumps({"q": [TEXT], "source": "auto", "target": "de"})),
    ("/translate", JSON, json.dumps({"q": TEXT, "source": "en"})),
    ("/translate?q=the+dog.&source=en&target=de", JSON, "{}"),
    ("/translate", "application/x-www-form-urlencoded", "q=the+cat.&source=en&target=de"),
    ("/v2/translate", JSON, json.dumps({"text": [TEXT], "target_lang": "DE"})),
    ("/v2/translate", JSON, json.dumps({"text": [TEXT], "target_lang": "JA"})),
    ("/v2/translate", JSON, json.dumps({"text": [TEXT], "target_lang": "DE", "glossary_id": "1"})),
]


def test_the_fast_path_answers_as_fastapi(make_client: MakeClient) -> None:
    client = make_client(max_text_chars=20_000)
    assert isinstance(client.app, RequestMiddleware)
    assert isinstance(client.app._app, FastPath)
    app = client.app._app._app
    app.state.translator.detector.load()  # a second or two, which count to the first request else
    slow = TestClient(RequestMiddleware(app, 1_000_000))
    for path, kind, body in REQUESTS:
        headers = {"Content-Type": kind}
        fast, other = (one.post(path, content=body, headers=headers) for one in (client, slow))
        assert fast.status_code == other.status_code, (path, body)
        assert _comparable(fast) == _comparable(other), (path, body)


def _comparable(answer: httpx.Response) -> tuple[dict[str, str], Any]:
    """Headers and body, less what is another of every request."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    body = answer.json()
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body["error"].pop("request_id", None)
        headers.pop("content-length")
    return headers, body


def test_pages_of_other_origins_are_answered_by_the_middleware(make_client: MakeClient) -> None:
    client = make_client(cors_origins=["https://example.org"])
    assert isinstance(client.app, RequestMiddleware)
    assert not isinstance(client.app._app, FastPath)
    headers = {"Origin": "https://example.org"}
    answer = client.post("/v1/translate", json={"text": TEXT}, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://example.org"

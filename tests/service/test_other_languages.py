"""A text in a language that is not served: what each API says of it with `auto`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
ITALIAN = "Il cane è molto grande e dorme."


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/translate", {"text": ITALIAN, "source": "auto", "target": "de"}, 422),
        ("/v1/translate/stream", {"text": ITALIAN, "source": "auto", "target": "de"}, 422),
        ("/translate", {"q": ITALIAN, "source": "auto", "target": "de"}, 400),
        ("/v2/translate", {"text": [ITALIAN], "target_lang": "DE"}, 400),
    ],
)
def test_it_is_refused_with_what_was_detected(
    make_client: MakeClient, path: str, body: dict[str, Any], status: int
) -> None:
    engine = StubEngine()
    answer = make_client(engine).post(path, json=body)
    assert answer.status_code == status
    assert "Italian (it)" in answer.text
    assert not any(ITALIAN in batch for batch in engine.batches)


def test_a_file_is_refused(make_client: MakeClient) -> None:
    files = {"file": ("dog.txt", ITALIAN.encode())}
    form = {"source": "auto", "target": "de"}
    answer = make_client(StubEngine()).post("/v1/translate/file", files=files, data=form)
    assert answer.status_code == 422
    assert "Italian (it)" in answer.text


@pytest.mark.parametrize("setting", ["keep", "translate"])
def test_it_can_be_kept_or_translated(make_client: MakeClient, setting: str) -> None:
    client = make_client(StubEngine(), other_language=setting)
    answer = client.post("/v1/translate", json={"text": ITALIAN, "source": "auto", "target": "de"})
    (item,) = answer.json()["translations"]
    assert item["text"] == (ITALIAN if setting == "keep" else ITALIAN.upper())
    assert "other_language" in [warning["code"] for warning in item["warnings"]]


def test_a_named_source_is_not_judged(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    answer = client.post("/v1/translate", json={"text": ITALIAN, "source": "en", "target": "de"})
    assert answer.status_code == 200
    assert answer.json()["translations"][0]["text"] == ITALIAN.upper()


def test_numbers_that_differ_are_told(make_client: MakeClient) -> None:
    class Forgetful(StubEngine):
        def translate_batch(self, sentences: Any, options: Any) -> Any:
            found = super().translate_batch(sentences, options)
            return [
                type(one)("".join(c for c in one.text if not c.isdigit()), 1, -1.0) for one in found
            ]

    answer = make_client(Forgetful()).post("/v1/translate", json={"text": "We saw 47 dogs."})
    (item,) = answer.json()["translations"]
    assert [warning["code"] for warning in item["warnings"]] == ["number_mismatch"]

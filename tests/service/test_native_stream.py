"""Server-sent events: sentences in order and as they are ready, then whole texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from export.runtime.engines import TranslateOptions, Translation
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
URL = "/v1/translate/stream"


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_sentences_then_the_text(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), max_batch_sentences=1)
    text = "One two.  Three four.\n\n42"
    answer = client.post(URL, json={"text": text, "return": ["sentences"]})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [name for name, _ in found] == ["sentence", "sentence", "text", "end"]
    assert found[0][1] == {
        "text": 0,
        "index": 0,
        "count": 2,
        "source": "One two.",
        "target": "ONE TWO.",
        "progress": 0.5,
    }
    whole = client.post("/v1/translate", json={"text": text, "return": ["sentences"]}).json()
    assert found[2][1] == {"index": 0, **whole["translations"][0]}
    assert found[3][1] == {"model": "tiny", "source": "en", "target": "de"}


def test_a_list_one_text_after_the_other(make_client: MakeClient) -> None:
    texts = ["one.", "", "Das Wetter ist heute sch\u00f6n.", "The weather is nice today."]
    found = events(make_client(StubEngine()).post(URL, json={"text": texts, "source": "auto"}).text)
    whole = [data["text"] for name, data in found if name == "text"]
    assert whole == ["ONE.", "", texts[2], "THE WEATHER IS NICE TODAY."]
    progress = [data["progress"] for name, data in found if name == "sentence"]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert found[-1][1]["source"] == "auto"


class FailsAt(StubEngine):
    """Fails at a sentence with `fail` in it."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        if any("fail" in sentence for sentence in sentences):
            raise RuntimeError("secret detail")
        return super().translate_batch(sentences, options)


def test_what_goes_wrong_later_is_the_last_event(make_client: MakeClient) -> None:
    client = make_client(FailsAt())
    found = events(client.post(URL, json={"text": "One.\nThis must fail.\nThree."}).text)
    assert [name for name, _ in found] == ["sentence", "error"]
    assert found[1][1]["error"]["code"] == "internal"
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("body", "status"), [({"text": 5}, 422), ({"text": "a", "target": "fr"}, 422)]
)
def test_what_goes_wrong_before_has_a_status(
    make_client: MakeClient, body: dict[str, Any], status: int
) -> None:
    assert make_client(StubEngine()).post(URL, json=body).status_code == status

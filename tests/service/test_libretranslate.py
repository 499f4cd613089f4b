"""LibreTranslate's shapes in process: JSON and forms, lists, alternatives, its errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api_keys import KeyStore
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
HELLO = "the weather is nice today."
BASE = {"q": HELLO, "source": "en", "target": "de"}


@pytest.fixture
def stub(make_client: MakeClient) -> TestClient:
    return make_client(StubEngine())


def test_a_text_as_json_as_a_form_and_in_the_query(stub: TestClient) -> None:
    expected = {"translatedText": HELLO.upper()}
    multipart = {name: (None, value) for name, value in BASE.items()}
    for answer in (
        stub.post("/translate", json=BASE),
        stub.post("/translate", data=BASE),
        stub.post("/translate", files=multipart),
        stub.post("/translate", params=BASE),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json() == expected


def test_a_list_is_one_piece_of_work(make_client: MakeClient) -> None:
    engine = StubEngine()
    texts = ["one two.", "a|b.", "three four."]
    answer = make_client(engine).post("/translate", json={**BASE, "q": texts})
    assert answer.json() == {"translatedText": ["ONE TWO.", "A|B.", "THREE FOUR."]}
    assert engine.batches == [texts]


def test_a_list_of_one_stays_a_list(stub: TestClient) -> None:
    assert stub.post("/translate", json={**BASE, "q": ["a|b"]}).json() == {
        "translatedText": ["A|B"]
    }
    assert stub.post("/translate", json={**BASE, "q": "a|b"}).json() == {"translatedText": "A|B"}
    assert stub.post("/translate", data={**BASE, "q": ["a", "b"]}).json() == {
        "translatedText": ["A", "B"]
    }


def test_auto_tells_what_it_found(stub: TestClient) -> None:
    one = stub.post("/translate", json={**BASE, "source": "auto"}).json()
    assert one["detectedLanguage"]["language"] == "en"
    assert 50 < one["detectedLanguage"]["confidence"] <= 100
    german = "das Wetter ist heute schön."
    many = stub.post("/translate", json={**BASE, "q": [german, HELLO, "42"], "source": "auto"})
    assert many.json()["translatedText"] == [german, HELLO.upper(), "42"]
    found = many.json()["detectedLanguage"]
    assert [one["language"] for one in found] == ["de", "en", "en"]
    assert found[2]["confidence"] == 0


def test_the_same_language_comes_back(stub: TestClient) -> None:
    answer = stub.post("/translate", json={**BASE, "target": "en"})
    assert answer.json() == {"translatedText": HELLO}


def test_alternatives_only_where_asked_for(stub: TestClient) -> None:
    for asked in (1, "2"):
        answer = stub.post("/translate", json={**BASE, "alternatives": asked}).json()
        assert isinstance(answer["alternatives"], list)
    for asked in (0, "", None):
        answer = stub.post("/translate", json={**BASE, "alternatives": asked})
        assert list(answer.json()) == ["translatedText"]
    many = stub.post("/translate", json={**BASE, "q": ["a", "b"], "alternatives": 1}).json()
    assert len(many["alternatives"]) == 2


def test_a_greedy_model_answers_without_alternatives(make_client: MakeClient) -> None:
    greedy = make_client(StubEngine(supported_options=frozenset()))
    for body in (BASE, {**BASE, "source": "auto"}):
        answer = greedy.post("/translate", json={**body, "alternatives": 3})
        assert answer.status_code == 200
        assert answer.json()["translatedText"] == HELLO.upper()
        assert answer.json()["alternatives"] == []
    many = greedy.post("/translate", json={**BASE, "q": ["a", "b"], "alternatives": 1}).json()
    assert many == {"translatedText": ["A", "B"], "alternatives": [[], []]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": None}, "`q`"),
        ({"q": []}, "`q`"),
        ({"q": 5}, "`q`"),
        ({"q": ["a", 5]}, "`q`"),
        ({"source": None}, "`source`"),
        ({"target": ""}, "`target`"),
        ({"format": "pdf"}, "`format`"),
        ({"alternatives": "x"}, "`alternatives`"),
        ({"alternatives": -1}, "`alternatives`"),
        ({"source": "fr"}, "'fr'"),
        ({"target": "fr"}, "en → de"),
        ({"q": "a" * 20_000}, "too many"),
    ],
)
def test_a_wrong_parameter_is_400(stub: TestClient, change: dict[str, Any], words: str) -> None:
    answer = stub.post("/translate", json={**BASE, **change})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


@pytest.mark.parametrize("name", list(BASE))
def test_what_is_missing_is_named(stub: TestClient, name: str) -> None:
    body = {key: value for key, value in BASE.items() if key != name}
    for answer in (stub.post("/translate", json=body), stub.post("/translate", data=body)):
        assert answer.status_code == 400
        assert answer.json() == {"error": f"`{name}` is required"}


@pytest.mark.parametrize("content", [b'{"q": ', b"[]", b'{"q": "\\ud800"}', b'{"q": "\xff"}'])
def test_what_is_no_json_is_400(stub: TestClient, content: bytes) -> None:
    answer = stub.post("/translate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_detect(stub: TestClient) -> None:
    (best, *_) = stub.post("/detect", json={"q": HELLO}).json()
    assert best["language"] == "en"
    assert 50 < best["confidence"] <= 100
    assert stub.post("/detect", data={"q": "😀"}).json() == [{"confidence": 0, "language": "en"}]
    assert stub.post("/detect", json={}).status_code == 400


def test_languages_health_and_settings(stub: TestClient) -> None:
    served = [
        {"code": "de", "name": "German", "targets": ["de"]},
        {"code": "en", "name": "English", "targets": ["de", "en"]},
    ]
    assert stub.get("/languages").json() == served
    assert stub.post("/languages", json={}).json() == served
    german = {"q": "Hallo", "source": "de", "target": "de"}
    assert stub.post("/translate", json=german).json() == {"translatedText": "Hallo"}
    assert stub.get("/health").json() == {"status": "ok"}
    settings = stub.get("/frontend/settings").json()
    assert settings["charLimit"] == 10_000
    assert settings["language"]["target"] == {"code": "de", "name": "German"}


def test_suggestions_are_turned_off(stub: TestClient) -> None:
    answer = stub.post("/suggest")
    assert answer.status_code == 403
    assert "disabled" in answer.json()["error"]


@pytest.mark.parametrize(("trusted", "scheme"), [(0, "http"), (1, "https")])
def test_the_address_of_a_file_is_the_trusted_proxys(
    make_client: MakeClient, trusted: int, scheme: str
) -> None:
    sent = make_client(StubEngine(), trusted_proxies=trusted).post(
        "/translate_file",
        files={"file": ("cats.txt", "One cat.\n")},
        data={"source": "en", "target": "de"},
        headers={"X-Forwarded-Proto": "https", "Host": "translate.example"},
    )
    assert sent.json()["translatedFileUrl"].startswith(f"{scheme}://translate.example/")


def test_a_file_is_waited_for_and_fetched_without_a_key(
    make_client: MakeClient, tmp_path: Path
) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    key = keys.add("somebody")
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db", require_key=True)
    files = {"file": ("cats.txt", "One cat.\n")}
    data = {"source": "en", "target": "de"}
    assert client.post("/translate_file", files=files, data=data).status_code == 400
    wrong = client.post("/translate_file", files=files, data={**data, "api_key": "qs_wrong"})
    assert wrong.status_code == 403
    sent = client.post("/translate_file", files=files, data={**data, "api_key": key})
    assert sent.status_code == 200, sent.text
    found = client.get(sent.json()["translatedFileUrl"])
    assert found.content == b"ONE CAT.\n"
    assert keys.usage(1).characters == 9
    gone = client.get("/download_file/nothing")
    assert (gone.status_code, list(gone.json())) == (404, ["error"])


def test_a_file_that_cannot_be_translated(make_client: MakeClient, stub: TestClient) -> None:
    settings = stub.get("/frontend/settings").json()
    assert {".txt", ".docx"} <= set(settings["supportedFilesFormat"])
    data = {"source": "en", "target": "de"}
    for files, fields, words in (
        ({"file": ("a.exe", "a")}, data, "exe"),
        ({"file": ("a.txt", "a")}, {"source": "en"}, "`target` is required"),
        ({}, data, "`file` is required"),
    ):
        answer = stub.post("/translate_file", files=files, data=fields)
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    off = make_client(StubEngine(), max_file_bytes=0)
    assert off.get("/frontend/settings").json()["filesTranslation"] is False
    assert off.post("/translate_file", files={"file": ("a.txt", "a")}, data=data).status_code == 403


def test_its_errors_have_its_shape_whatever_raises_them(make_client: MakeClient) -> None:
    stub = make_client(StubEngine(fails=True), max_body_bytes=1024)
    for answer, status in (
        (stub.get("/translate"), 405),
        (stub.post("/translate", json=BASE), 500),
        (stub.post("/translate", json={**BASE, "q": "a" * 5000}), 400),
    ):
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)
        assert "secret" not in answer.text

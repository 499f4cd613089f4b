"""DeepL's shapes in process: JSON and forms, languages, its errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.stub import PoliteEngine, StubEngine

MakeClient = Callable[..., TestClient]
URL = "/v2/translate"
TEXTS = ["the weather is nice today.", "one two\nthree"]
BASE = {"text": TEXTS, "target_lang": "DE"}


@pytest.fixture
def stub(make_client: MakeClient) -> TestClient:
    return make_client(StubEngine())


def test_texts_in_order_as_json_and_as_a_form(stub: TestClient) -> None:
    expected = [{"detected_source_language": "EN", "text": text.upper()} for text in TEXTS]
    for answer in (stub.post(URL, json=BASE), stub.post(URL, data=BASE)):
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"translations": expected}
    one = stub.post(URL, data={"text": "a b", "target_lang": "de", "source_lang": "en"})
    assert [item["text"] for item in one.json()["translations"]] == ["A B"]


def test_billed_characters_where_asked_for(stub: TestClient) -> None:
    answer = stub.post(URL, json={**BASE, "show_billed_characters": True}).json()
    assert [item["billed_characters"] for item in answer["translations"]] == [26, 13]


def test_a_text_in_the_target_language_comes_back(stub: TestClient) -> None:
    german = "Das Wetter ist heute schön."
    (item,) = stub.post(URL, json={**BASE, "text": [german]}).json()["translations"]
    assert item == {"detected_source_language": "DE", "text": german}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"text": None}, 400, "`text`"),
        ({"text": []}, 400, "`text`"),
        ({"text": [5]}, 400, "`text`"),
        ({"target_lang": None}, 400, "`target_lang`"),
        ({"target_lang": "FR"}, 400, "`target_lang` is 'FR'"),
        ({"source_lang": "FR"}, 400, "`source_lang` is 'FR'"),
        ({"split_sentences": "2"}, 400, "`split_sentences`"),
        ({"tag_handling": "pdf"}, 400, "`tag_handling`"),
        ({"formality": "less"}, 400, "`formality` is not supported"),
        ({"formality": "more"}, 400, "`formality` is not supported"),
        ({"formality": "formal"}, 400, "`formality`"),
        ({"glossary_id": "abc"}, 404, "no glossary 'abc'"),
        ({"text": ["a" * 20_000]}, 413, "too many"),
    ],
)
def test_a_wrong_parameter(
    stub: TestClient, change: dict[str, Any], status: int, words: str
) -> None:
    answer = stub.post(URL, json={**BASE, **change})
    assert answer.status_code == status
    assert set(answer.json()) == {"message"}
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"formality": "prefer_less"},
        {"formality": "prefer_more"},
        {"formality": "default"},
        {"context": "about the weather"},
        {"preserve_formatting": "1"},
        {"split_sentences": "nonewlines"},
        {"split_sentences": "0"},
        {"something_new": 1},
        {"target_lang": "de-DE"},
    ],
)
def test_what_is_taken(stub: TestClient, change: dict[str, Any]) -> None:
    assert stub.post(URL, json={**BASE, **change}).status_code == 200


@pytest.mark.parametrize(
    ("how", "sentences"),
    [
        (None, ["one two.", "three.", "four.", "five."]),
        ("1", ["one two.", "three.", "four.", "five."]),
        (1, ["one two.", "three.", "four.", "five."]),
        ("nonewlines", ["one two.", "three four.", "five."]),
        ("0", ["one two.", "three four.", "five."]),
    ],
)
def test_split_sentences(make_client: MakeClient, how: Any, sentences: list[str]) -> None:
    text = "one two. Three\nfour. five."
    stub = StubEngine()
    body = {"text": [text], "target_lang": "DE", "source_lang": "EN", "split_sentences": how}
    answer = make_client(stub, fallback_decoding=False).post(URL, json=body).json()
    assert [one.lower() for batch in stub.batches for one in batch] == sentences
    (found,) = answer["translations"]
    within_sentences = how in ("nonewlines", "0")
    assert found["text"] == text.upper().replace("\n", " " if within_sentences else "\n")


def test_blank_lines_part_sentences_in_any_case(make_client: MakeClient) -> None:
    stub = StubEngine()
    body = {"text": ["one\n\ntwo"], "target_lang": "DE", "source_lang": "EN"}
    client = make_client(stub, fallback_decoding=False)
    client.post(URL, json={**body, "split_sentences": "0"})
    assert sorted(one for batch in stub.batches for one in batch) == ["one.", "two."]


def test_languages(make_client: MakeClient, stub: TestClient) -> None:
    assert stub.get("/v2/languages").json() == [{"language": "EN", "name": "English"}]
    assert stub.get("/v2/languages?type=target").json() == [
        {"language": "DE", "name": "German", "supports_formality": False}
    ]
    wrong = stub.get("/v2/languages?type=both")
    assert wrong.status_code == 400
    assert set(wrong.json()) == {"message"}


@pytest.mark.parametrize(
    ("wish", "form"),
    [
        ("more", "formal "),
        ("prefer_more", "formal "),
        ("less", "informal "),
        ("prefer_less", "informal "),
        ("default", ""),
        (None, ""),
    ],
)
def test_formality(make_client: MakeClient, wish: str | None, form: str) -> None:
    polite = make_client(PoliteEngine())
    body = {**BASE, "text": ["one two."], "source_lang": "EN", "formality": wish}
    assert polite.post(URL, json=body).json()["translations"][0]["text"] == f"{form}ONE TWO."
    data = {name: value for name, value in body.items() if value is not None}
    assert polite.post(URL, data=data).json()["translations"][0]["text"] == f"{form}ONE TWO."
    (target,) = polite.get("/v2/languages?type=target").json()
    assert target["supports_formality"] is True


@pytest.mark.parametrize("wish", ["less", "prefer_less"])
def test_formality_of_documents(make_client: MakeClient, wish: str) -> None:
    assert _document(make_client(PoliteEngine()), wish) == b"informal ONE CAT.\n"


def test_a_preferred_formality_of_documents(stub: TestClient) -> None:
    assert _document(stub, "prefer_less") == b"ONE CAT.\n"


def _document(client: TestClient, wish: str) -> bytes:
    files = {"file": ("cats.txt", "One cat.\n")}
    data = {"target_lang": "DE", "source_lang": "EN", "formality": wish}
    sent = client.post("/v2/document", files=files, data=data).json()
    url, key = f"/v2/document/{sent['document_id']}", {"document_key": sent["document_key"]}
    for _ in range(500):
        if client.post(url, json=key).json()["status"] == "done":
            break
        time.sleep(0.02)
    content: bytes = client.post(f"{url}/result", json=key).content
    return content


def test_usage_without_keys(stub: TestClient) -> None:
    usage = stub.get("/v2/usage").json()
    assert usage["character_count"] < usage["character_limit"]


def test_its_errors_have_its_shape_whatever_raises_them(make_client: MakeClient) -> None:
    engine = StubEngine(seconds=5)
    stub = make_client(engine, max_body_bytes=1024, timeout_s=0.05)
    answers = [
        (stub.post(URL, json=BASE), 503),
        (stub.get(URL), 405),
        (stub.get("/v2/nothing"), 404),
        (stub.post(URL, json={**BASE, "text": ["a" * 5000]}), 413),
    ]
    engine.release.set()
    for answer, status in answers:
        assert answer.status_code == status
        assert set(answer.json()) == {"message"}


def test_ignored_tags_keep_their_content(stub: TestClient) -> None:
    text = '<p>one <keep a="1">two</keep> three</p><keeper>four</keeper>'
    body = {**BASE, "text": [text], "source_lang": "EN", "tag_handling": "xml"}
    (item,) = stub.post(URL, json={**body, "ignore_tags": ["keep"]}).json()["translations"]
    assert '<keep a="1">two</keep>' in item["text"]
    assert "FOUR" in item["text"]
    (item,) = stub.post(URL, json=body).json()["translations"]
    assert '<keep a="1">TWO</keep>' in item["text"]


def test_documents(stub: TestClient) -> None:
    files = {"file": ("cats.txt", "One cat.\n")}
    sent = stub.post("/v2/document", files=files, data={"target_lang": "DE", "source_lang": "EN"})
    assert sent.status_code == 200, sent.text
    url, key = f"/v2/document/{sent.json()['document_id']}", sent.json()["document_key"]
    for end in ("", "/result"):
        assert stub.post(url + end, json={"document_key": "x"}).status_code == 404
        assert stub.post(url + end).status_code == 400
    for _ in range(500):
        status = stub.post(url, json={"document_key": key}).json()
        if status["status"] == "done":
            break
        time.sleep(0.02)
    assert status == {"document_id": url[13:], "status": "done", "billed_characters": 9}
    assert stub.post(f"{url}/result", data={"document_key": key}).content == b"ONE CAT.\n"


def test_a_document_is_not_ready(make_client: MakeClient) -> None:
    engine = StubEngine(seconds=20)
    client = make_client(engine)
    data = {"target_lang": "DE", "source_lang": "EN"}
    sent = client.post("/v2/document", files={"file": ("a.txt", "One cat.")}, data=data).json()
    url = f"/v2/document/{sent['document_id']}"
    early = client.post(f"{url}/result", json={"document_key": sent["document_key"]})
    engine.release.set()
    assert early.status_code == 503
    assert "not translated yet" in early.json()["message"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("a.exe", {}, "exe"),
        ("a.txt", {"target_lang": "FR"}, "`target_lang` is 'FR'"),
        ("a.txt", {"formality": "more", "source_lang": "EN"}, "`formality`"),
        ("a.txt", {"output_format": "pdf"}, "`output_format`"),
        ("a.txt", {"target_lang": ""}, "`target_lang`"),
    ],
)
def test_a_wrong_document(stub: TestClient, name: str, change: dict[str, str], words: str) -> None:
    data = {"target_lang": "DE", **change}
    answer = stub.post("/v2/document", files={"file": (name, "a")}, data=data)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def translated(client: TestClient, text: str, **change: Any) -> str:
    body = {"text": [text], "target_lang": "DE", "source_lang": "EN", **change}
    answer = client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["translations"][0]["text"]
    return found


@pytest.mark.parametrize(
    ("option", "sentences"),
    [
        ({}, ["one.", "two.", "three.", "four."]),
        ({"non_splitting_tags": "par"}, ["one two.", "three.", "four."]),
        ({"non_splitting_tags": ["par", "doc"]}, ["one two.", "three.", "four."]),
        ({"splitting_tags": ["i"]}, ["one.", "two.", "three.", "four."]),
        ({"outline_detection": True}, ["one.", "two.", "three.", "four."]),
        ({"outline_detection": False}, ["one two three four."]),
        ({"outline_detection": "0", "splitting_tags": "par,x"}, ["one.", "two.", "three four."]),
    ],
)
def test_tags_that_part_sentences(
    make_client: MakeClient, option: dict[str, Any], sentences: list[str]
) -> None:
    engine = StubEngine()
    client = make_client(engine, fallback_decoding=False)
    text = '<doc><par a="1">one</par> <par>two</par> <row>three</row> <row>four</row></doc>'
    found = translated(client, text, tag_handling="xml", **option)
    assert found == text.replace("one", "ONE").replace("two", "TWO").replace(
        "three", "THREE"
    ).replace("four", "FOUR")
    assert sorted(one for batch in engine.batches for one in batch) == sorted(sentences)


def test_a_tag_of_html_that_parts_sentences(make_client: MakeClient) -> None:
    engine = StubEngine()
    client = make_client(engine, fallback_decoding=False)
    text = "<p>one <span>two</span> <i>three</i></p>"
    assert translated(client, text, tag_handling="html", splitting_tags=["span"]) == text.replace(
        "one", "ONE"
    ).replace("two", "TWO").replace("three", "THREE")
    assert sorted(one for batch in engine.batches for one in batch) == ["one.", "three.", "two."]


def test_marks_in_tags_count_for_nothing(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), max_text_chars=60)
    text = "<row>one</row><row>two</row><row>three</row><row>x</row>"
    body = {"text": [text], "target_lang": "DE", "source_lang": "EN", "tag_handling": "xml"}
    answer = client.post(URL, json={**body, "outline_detection": False})
    assert answer.status_code == 200, answer.text
    detected = client.post(
        URL,
        json={
            "text": ["<a>the weather</a> <b>is nice</b> <row>today.</row>"],
            "target_lang": "DE",
            "tag_handling": "xml",
            "outline_detection": False,
            "ignore_tags": "row",
        },
    ).json()["translations"][0]
    assert detected == {
        "detected_source_language": "EN",
        "text": "<a>THE WEATHER</a> <b>IS NICE</b> <row>today.</row>",
    }


@pytest.mark.parametrize("model", ["latency_optimized", "prefer_quality_optimized"])
def test_the_model_that_was_used(stub: TestClient, model: str) -> None:
    (first, _) = stub.post(URL, json={**BASE, "model_type": model}).json()["translations"]
    assert first["model_type_used"] == "latency_optimized"
    (first, _) = stub.post(URL, json=BASE).json()["translations"]
    assert "model_type_used" not in first


REFUSED: list[tuple[str, Any, int]] = [
    ("style_id", "abc", 404),
    ("translation_memory_id", "abc", 404),
    ("custom_instructions", ["Be brief."], 400),
    ("custom_instructions", "Be brief.", 400),
    ("model_type", "quality_optimized", 400),
    ("model_type", "best", 400),
    ("tag_handling_version", "v3", 400),
    ("enable_beta_languages", "perhaps", 400),
    ("glossary_ids", ["00000000-0000-0000-0000-000000000000"], 404),
    ("glossary_id", "00000000-0000-0000-0000-000000000000", 404),
]
NO_EFFECT: list[tuple[str, Any]] = [
    ("tag_handling_version", "v1"),
    ("tag_handling_version", "v2"),
    ("context", "about the weather"),
    ("style_id", ""),
    ("glossary_ids", []),
    ("custom_instructions", []),
    ("translation_memory_id", ""),
    ("translation_memory_threshold", 75),
    ("outline_detection", True),
    ("enable_beta_languages", True),
    ("enable_beta_languages", "0"),
]


def test_options_that_would_change_a_translation_are_refused(stub: TestClient) -> None:
    for option, value, status in REFUSED:
        answer = stub.post(URL, json={**BASE, "source_lang": "EN", option: value})
        assert (answer.status_code, list(answer.json())) == (status, ["message"]), option
        assert option in answer.json()["message"] or "glossary" in option
        data = {"target_lang": "DE", "source_lang": "EN", option: value}
        sent = stub.post("/v2/document", files={"file": ("a.txt", "a")}, data=data)
        assert (sent.status_code, list(sent.json())) == (status, ["message"]), option


def test_options_without_an_effect(stub: TestClient) -> None:
    base = {**BASE, "source_lang": "EN"}
    expected = stub.post(URL, json=base).json()
    for option, value in NO_EFFECT:
        assert stub.post(URL, json={**base, option: value}).json() == expected, option
    data = {"target_lang": "DE", "source_lang": "EN", **dict(NO_EFFECT)}
    sent = stub.post("/v2/document", files={"file": ("a.txt", "one cat.")}, data=data)
    assert sent.status_code == 200, sent.text


@pytest.mark.parametrize(
    ("option", "value"),
    [("splitting_tags", "p"), ("non_splitting_tags", "p"), ("outline_detection", "0")],
)
def test_documents_are_parted_as_their_format_is(stub: TestClient, option: str, value: str) -> None:
    data = {"target_lang": "DE", option: value}
    sent = stub.post("/v2/document", files={"file": ("a.html", "<p>a")}, data=data)
    assert (sent.status_code, option in sent.json()["message"]) == (400, True)


@pytest.mark.parametrize("named", ["blob", "cats.bin"])
def test_the_form_may_name_the_document(stub: TestClient, named: str) -> None:
    data = {"target_lang": "DE", "source_lang": "EN", "filename": "cats.txt"}
    sent = stub.post("/v2/document", files={"file": (named, "One cat.")}, data=data)
    assert sent.status_code == 200, sent.text
    assert fetched(stub, sent.json()) == "ONE CAT."


def test_a_document_in_a_part_without_a_name(stub: TestClient) -> None:
    def send(content: bytes) -> Any:
        fields = {b"target_lang": b"DE", b"source_lang": b"EN", b"filename": b"a.txt"}
        fields[b"file"] = content
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field
            for field in fields.items()
        )
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        return stub.post("/v2/document", content=body + b"--b--\r\n", headers=headers)

    sent = send("One größer cat.".encode())
    assert sent.status_code == 200, sent.text
    assert fetched(stub, sent.json()) == "ONE GRÖSSER CAT."
    binary = send(bytes(range(256)))
    assert (binary.status_code, "not UTF-8" in binary.json()["message"]) == (400, True)


def fetched(client: TestClient, sent: dict[str, str]) -> str:
    url, key = f"/v2/document/{sent['document_id']}", {"document_key": sent["document_key"]}
    for _ in range(500):
        if client.post(url, json=key).json()["status"] == "done":
            break
        time.sleep(0.02)
    return client.post(f"{url}/result", json=key).text

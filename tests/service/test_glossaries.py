"""Stored glossaries in process: DeepL's shapes, and every request that uses them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api_keys import KeyStore
from tests.service.conftest import MakePair
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
V2, V3 = "/v2/glossaries", "/v3/glossaries"
CAT = {"name": "cats", "source_lang": "EN", "target_lang": "DE", "entries": "cat\tKatze"}
NOBODY = "00000000-0000-0000-0000-000000000000"


def key(word: str) -> dict[str, str]:
    return {"Authorization": f"DeepL-Auth-Key {word}"}


@pytest.fixture
def stub(make_client: MakeClient) -> TestClient:
    client = make_client(StubEngine())
    client.headers.update(key("word"))
    return client


def store(client: TestClient, **change: Any) -> str:
    answer = client.post(V2, json={**CAT, **change})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["glossary_id"]
    return id


def test_a_glossary_of_one_pair(stub: TestClient) -> None:
    made = stub.post(V2, json=CAT).json()
    assert made["name"] == "cats"
    assert (made["source_lang"], made["target_lang"], made["entry_count"]) == ("en", "de", 1)
    assert made["ready"] is True
    time.strptime(made["creation_time"], "%Y-%m-%dT%H:%M:%S.%fZ")
    id = made["glossary_id"]
    assert stub.get(f"{V2}/{id}").json() == made
    assert stub.get(V2).json() == {"glossaries": [made]}
    entries = stub.get(f"{V2}/{id}/entries", headers={"Accept": "text/tab-separated-values"})
    assert entries.text == "cat\tKatze"
    assert entries.headers["content-type"].startswith("text/tab-separated-values")
    assert stub.delete(f"{V2}/{id}").status_code == 204
    for gone in (stub.get(f"{V2}/{id}"), stub.get(f"{V2}/{id}/entries"), stub.delete(f"{V2}/{id}")):
        assert gone.status_code == 404
        assert list(gone.json()) == ["message"]
    assert stub.get(V2).json() == {"glossaries": []}


def test_the_pairs_are_those_that_are_translated(stub: TestClient) -> None:
    pairs = [{"source_lang": "en", "target_lang": "de"}]
    assert stub.get("/v2/glossary-language-pairs").json() == {"supported_languages": pairs}


@pytest.mark.parametrize("form", ["json", "data"])
def test_csv_as_json_and_as_a_form(stub: TestClient, form: str) -> None:
    entries = '\ufeff"a ""b"", c",Tee\r\n\r\ndog,Hund,en,de\r\n'
    body = {**CAT, "entries": entries, "entries_format": "csv"}
    made = stub.post(V2, **{form: body})
    assert made.status_code == 201, made.text
    found = stub.get(f"{V2}/{made.json()['glossary_id']}/entries").text
    assert found == 'a "b", c\tTee\ndog\tHund'


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"name": " "}, 400, "`name`: the name is empty: give the glossary one"),
        ({"name": "a" * 1025}, 400, "`name`"),
        ({"target_lang": "FR"}, 400, "`target_lang` is 'FR'"),
        ({"entries": ""}, 400, "there are no terms"),
        ({"entries": "cat Katze"}, 400, "line 1 has 1 columns"),
        ({"entries": "a\tb\ncat\tKatze\tx"}, 400, "line 2 has 3 columns"),
        ({"entries": "cat\tKatze\ncat\tKater"}, 400, "two translations"),
        ({"entries": "cat\t"}, 400, "empty"),
        ({"entries": "c\x00at\tKatze"}, 400, "control character"),
        ({"entries": "cat\tKat\u2028ze"}, 400, "control character"),
        ({"entries": f"{'a' * 201}\tb"}, 400, "longer than 200"),
        ({"entries": "\n".join(f"t{n}\tu" for n in range(1001))}, 400, "more than 1000"),
        ({"entries": 'a,"b', "entries_format": "csv"}, 400, "not CSV"),
        ({"entries": "a,b,c", "entries_format": "csv"}, 400, "line 1 has 3"),
        ({"entries_format": "xml"}, 400, "`entries_format`"),
        ({"entries": "\ud800\tb"}, 400, ""),
    ],
)
def test_a_wrong_glossary(
    stub: TestClient, change: dict[str, Any], status: int, words: str
) -> None:
    body = json.dumps({**CAT, **change}).encode()
    answer = stub.post(V2, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["message"]
    assert words in answer.json()["message"]
    assert stub.get(V2).json() == {"glossaries": []}


@pytest.fixture
def many(make_client: MakeClient, make_pair: MakePair) -> TestClient:
    """A client of a service that translates en → de and fr → en, and fr → de through English."""
    client = make_client(StubEngine(), pairs=[make_pair("fr", "en")])
    client.headers.update(key("word"))
    return client


def test_a_glossary_of_several_pairs(many: TestClient) -> None:
    cat = {"source_lang": "en", "target_lang": "de", "entries": "cat\tKatze\ndog\tHund"}
    chat = {"source_lang": "fr", "target_lang": "en", "entries": "chat\tcat"}
    made = many.post(V3, json={"name": "pets", "dictionaries": [cat, chat]})
    assert made.status_code == 201, made.text
    glossary = made.json()
    url = f"{V3}/{glossary['glossary_id']}"
    counts = [
        (d["source_lang"], d["target_lang"], d["entry_count"]) for d in glossary["dictionaries"]
    ]
    assert counts == [("en", "de", 2), ("fr", "en", 1)]
    assert many.get(url).json() == glossary
    assert many.get(V3).json() == {"glossaries": [glossary]}
    assert many.get(V2).json() == {"glossaries": []}
    assert "/v3/" in many.get(f"{V2}/{glossary['glossary_id']}").json()["message"]

    pair = {"source_lang": "EN", "target_lang": "DE"}
    added = {**cat, "entries": "dog\tKöter\nbird\tVogel"}
    changed = many.patch(url, json={"name": "animals", "dictionaries": [added]}).json()
    assert (changed["name"], changed["dictionaries"][0]["entry_count"]) == ("animals", 3)
    (found,) = many.get(f"{url}/entries", params=pair).json()["dictionaries"]
    assert found["entries"] == "cat\tKatze\ndog\tKöter\nbird\tVogel"

    replaced = many.put(f"{url}/dictionaries", json={**cat, "entries": "cow\tKuh"})
    assert replaced.json() == {"source_lang": "en", "target_lang": "de", "entry_count": 1}
    (found,) = many.get(f"{url}/entries", params=pair).json()["dictionaries"]
    assert (found["entries"], found["entries_format"]) == ("cow\tKuh", "tsv")

    assert many.delete(f"{url}/dictionaries", params=pair).status_code == 204
    for answer in (
        many.delete(f"{url}/dictionaries", params=pair),
        many.get(f"{url}/entries", params=pair),
    ):
        assert answer.status_code == 404
        assert "en → de" in answer.json()["message"]
    assert many.get(f"{url}/entries").status_code == 400
    assert many.delete(url).status_code == 204
    assert many.get(url).status_code == 404


def test_unknown_paths_of_version_3_have_its_errors(stub: TestClient) -> None:
    for answer, status in (
        (stub.get("/v3/nothing"), 404),
        (stub.delete(V3), 405),
        (stub.get(f"{V3}/{NOBODY}"), 404),
        (stub.get(f"{V3}/{'a' * 5000}"), 404),
        (stub.post(V3, content="{"), 400),
    ):
        assert answer.status_code == status
        assert list(answer.json()) == ["message"]


def requests_with(id: str) -> list[tuple[str, dict[str, Any]]]:
    """Every shape that takes a glossary."""
    ours = {"text": "one cat.", "source": "en", "target": "de", "glossary_id": id}
    libre = {"q": "one cat.", "source": "en", "target": "de", "glossary_id": id}
    deepl = {"text": ["one cat."], "source_lang": "EN", "target_lang": "DE"}
    file = {"files": {"file": ("a.txt", "one cat.")}}
    languages = {"source": "en", "target": "de", "glossary_id": id}
    return [
        ("/v1/translate", {"json": ours}),
        ("/v1/translate/stream", {"json": ours}),
        ("/translate", {"json": libre}),
        ("/translate", {"data": libre}),
        ("/v2/translate", {"json": {**deepl, "glossary_id": id}}),
        ("/v2/translate", {"data": {**deepl, "glossary_id": id}}),
        ("/v2/translate", {"json": {**deepl, "glossary_ids": [id]}}),
        ("/v2/translate", {"data": {**deepl, "glossary_ids": id}}),
        ("/v1/translate/file", {**file, "data": languages}),
        ("/translate_file", {**file, "data": languages}),
        ("/v2/document", {**file, "data": {**deepl, "text": "", "glossary_id": id}}),
        ("/v2/document", {**file, "data": {**deepl, "text": "", "glossary_ids": f"{id},"}}),
    ]


def translation(client: TestClient, path: str, answer: Any) -> str:
    """The text that comes of a request, of whatever shape."""
    if "file" not in path and "document" not in path:
        return str(answer.text)
    sent = answer.json()
    if path == "/translate_file":
        return client.get(sent["translatedFileUrl"]).text
    post_key = {"document_key": sent.get("document_key", "")}
    for _ in range(500):
        if path == "/v2/document":
            status = client.post(f"{path}/{sent['document_id']}", json=post_key).json()
        else:
            status = client.get(f"/v1/files/{sent['id']}").json()
        if status["status"] in ("done", "failed", "error"):
            break
        time.sleep(0.02)
    if path == "/v2/document":
        return client.post(f"{path}/{sent['document_id']}/result", json=post_key).text
    return client.get(f"/v1/files/{sent['id']}/result").text


def test_every_shape_follows_a_glossary(stub: TestClient) -> None:
    for path, request in requests_with(store(stub)):
        answer = stub.post(path, **request)
        assert answer.status_code in (200, 202), (path, answer.text)
        assert "ONE Katze." in translation(stub, path, answer), path


def test_every_shape_refuses_a_glossary_that_is_not_there(stub: TestClient) -> None:
    for path, request in requests_with(NOBODY):
        answer = stub.post(path, **request)
        assert answer.status_code == 404, (path, answer.text)
        assert "no glossary" in answer.text
        shape = {"/v1": "error", "/v2": "message", "/tr": "error"}[path[:3]]
        assert list(answer.json()) == [shape]


def test_a_glossary_needs_a_source_and_terms_of_the_pair(many: TestClient) -> None:
    id = store(many)
    body = {"text": ["chat"], "target_lang": "DE", "glossary_id": id}
    detected = many.post("/v2/translate", json=body)
    assert (detected.status_code, "`source_lang`" in detected.text) == (400, True)
    other = many.post("/v2/translate", json={**body, "source_lang": "FR"})
    assert (other.status_code, "no terms for fr → de, but for en → de" in other.text) == (400, True)
    ours = many.post("/v1/translate", json={"text": "a", "source": "auto", "glossary_id": id})
    assert (ours.status_code, ours.json()["error"]["field"]) == (422, "source")


def test_terms_through_english_may_differ_in_capitals(many: TestClient) -> None:
    glossary = {"chat": "Katze", "chaton": "katze"}
    body = {"text": "chat chaton", "source": "fr", "target": "de", "glossary": glossary}
    answer = many.post("/v1/translate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["translations"][0]["text"] == "Katze katze"


def test_of_several_glossaries_the_first_counts_and_a_request_s_own_before(
    stub: TestClient,
) -> None:
    first, second = store(stub), store(stub, entries="cat\tKater\ndog\tHund")
    deepl = {"text": ["cat dog"], "source_lang": "EN", "target_lang": "DE"}

    def both(*ids: str) -> str:
        answer = stub.post("/v2/translate", json={**deepl, "glossary_ids": list(ids)})
        text: str = answer.json()["translations"][0]["text"]
        return text

    assert both(first, second) == "Katze Hund"
    assert both(second, first) == "Kater Hund"
    ours = {"text": "cat dog", "glossary": {"cat": "Mieze"}, "glossary_id": second}
    answer = stub.post("/v1/translate", json=ours).json()
    assert answer["translations"][0]["text"] == "Mieze Hund"
    refused = stub.post(
        "/v2/translate", json={**deepl, "glossary_id": first, "glossary_ids": [second]}
    )
    assert (refused.status_code, "`glossary_ids`" in refused.text) == (400, True)
    assert (
        stub.post("/v2/translate", json={**deepl, "glossary_ids": [first] * 6}).status_code == 400
    )


def test_what_is_changed_counts_at_once(stub: TestClient) -> None:
    id = store(stub)
    body = {"text": ["cat"], "source_lang": "EN", "target_lang": "DE", "glossary_id": id}

    def translated() -> str:
        text: str = stub.post("/v2/translate", json=body).json()["translations"][0]["text"]
        return text

    assert translated() == "Katze"
    new = {"source_lang": "EN", "target_lang": "DE", "entries": "cat\tKater"}
    assert stub.put(f"{V3}/{id}/dictionaries", json=new).status_code == 200
    assert translated() == "Kater"


def test_glossaries_are_their_key_s_alone(make_client: MakeClient, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    mine, other = key(keys.add("one")), key(keys.add("two"))
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db")
    id = client.post(V2, json=CAT, headers=mine).json()["glossary_id"]
    body = {"text": "cat", "source_lang": "EN", "target_lang": "DE", "glossary_id": id}
    for headers in (other, {}):
        assert client.get(V2, headers=headers).json() == {"glossaries": []}
        assert client.get(f"{V3}/{id}", headers=headers).status_code == 404
        assert client.delete(f"{V2}/{id}", headers=headers).status_code == 404
        assert client.post("/v2/translate", json=body, headers=headers).status_code == 404
    assert client.get(V2, headers=key("qs_wrong")).status_code == 403
    assert client.post("/v2/translate", json=body, headers=mine).status_code == 200
    libre = {"q": "cat", "source": "en", "target": "de", "glossary_id": id}
    secret = mine["Authorization"].split()[1]
    answer = client.post("/translate", json={**libre, "api_key": secret})
    assert answer.json() == {"translatedText": "Katze"}


def test_without_keys_the_id_is_enough_and_the_word_has_the_list(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    id = client.post(V2, json=CAT, headers=key("one")).json()["glossary_id"]
    assert len(client.get(V2, headers=key("one")).json()["glossaries"]) == 1
    for headers in (key("two"), {}):
        assert client.get(V2, headers=headers).json() == {"glossaries": []}
        assert client.get(f"{V2}/{id}", headers=headers).status_code == 200


def test_a_list_is_bounded_whoever_shares_a_word(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), max_glossaries=2, trusted_proxies=1)
    ids = []
    for number in range(3):
        headers = {**key("word"), "X-Forwarded-For": f"192.0.2.{number}"}
        ids.append(client.post(V2, json=CAT, headers=headers).json()["glossary_id"])
    listed = client.get(V2, headers=key("word")).json()["glossaries"]
    assert [one["glossary_id"] for one in listed] == ids[1:]


def test_without_a_key_half_of_the_room_is_left_to_keys(
    make_client: MakeClient, tmp_path: Path
) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    client = make_client(
        StubEngine(), glossaries_bytes=65_536, keys_file=tmp_path / "keys.db", trusted_proxies=1
    )
    statuses = [
        client.post(V2, json=CAT, headers={"X-Forwarded-For": f"192.0.2.{number // 8}"}).status_code
        for number in range(20)
    ]
    assert statuses == [201] * 16 + [503] * 4
    assert client.post(V2, json=CAT, headers=key(keys.add("one"))).status_code == 201


def test_what_a_client_may_store_is_bounded(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), max_glossaries=2, glossaries_bytes=65_536)
    ids = [store(client), store(client)]
    full = client.post(V2, json=CAT)
    assert full.status_code == 456
    assert "2 glossaries" in full.json()["message"]
    assert client.delete(f"{V2}/{ids[0]}").status_code == 204
    long = "\n".join(f"{number:03}{'a' * 90}\t{'b' * 90}" for number in range(80))
    assert client.post(V2, json={**CAT, "entries": long}).status_code == 456
    put = {"source_lang": "EN", "target_lang": "DE", "entries": long}
    assert client.put(f"{V3}/{ids[1]}/dictionaries", json=put).status_code == 456
    assert client.patch(f"{V3}/{ids[1]}", json={"dictionaries": [put]}).status_code == 456
    assert client.get(f"{V2}/{ids[1]}/entries").text == "cat\tKatze"
    assert store(client)


def test_a_merge_is_bounded(stub: TestClient) -> None:
    id = store(stub, entries="\n".join(f"t{n}\tu" for n in range(1000)))
    more = {"source_lang": "EN", "target_lang": "DE", "entries": "x\ty"}
    answer = stub.patch(f"{V3}/{id}", json={"dictionaries": [more]})
    assert (answer.status_code, "more than 1000" in answer.text) == (400, True)
    other = store(stub)
    body = {"text": ["cat"], "source_lang": "EN", "target_lang": "DE", "glossary_ids": [id, other]}
    answer = stub.post("/v2/translate", json=body)
    assert (answer.status_code, "1001 terms" in answer.text) == (400, True)


def test_glossaries_can_be_turned_off(make_client: MakeClient) -> None:
    answer = make_client(StubEngine(), max_glossaries=0).post(V2, json=CAT)
    assert (answer.status_code, list(answer.json())) == (403, ["message"])


def test_glossaries_outlive_a_restart_in_a_folder_that_lasts(
    make_client: MakeClient, tmp_path: Path
) -> None:
    first = make_client(StubEngine(), jobs_dir=tmp_path / "jobs")
    id = store(first)
    assert first.portal is not None
    first.portal.call(first.app_state["jobs"].close)
    second = make_client(StubEngine(), jobs_dir=tmp_path / "jobs")
    assert second.get(f"{V2}/{id}/entries").text == "cat\tKatze"
    assert (tmp_path / "jobs" / "glossaries.db").stat().st_mode & 0o077 == 0

"""The HTTP API in process: what goes in, what comes out, how it says no."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from export.runtime.bundle import Bundle, sha256_of
from export.runtime.engines import Engine, TranslateOptions, Translation
from export.runtime.manifest import MANIFEST_FILE, SEARCH_OPTIONS, Domain
from service.api.native import model_list
from service.api_keys import KeyStore
from service.app import create_app
from service.models import Model, ModelSet
from service.settings import Settings
from service.translator import Translator
from tests.service.conftest import MakePair
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
URL = "/v1/translate"


def error_of(response: Any) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field", "request_id"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return body["error"]


def test_a_text_and_a_list(client: TestClient) -> None:
    one = client.post(URL, json={"text": "the old blue street cat.", "source": "EN"})
    assert one.status_code == 200
    assert one.json()["model"] == "tiny"
    assert (one.json()["source"], one.json()["target"]) == ("en", "de")
    item = one.json()["translations"][0]
    assert set(item) == {"text", "truncated", "score", "warnings"}
    assert item["score"] is None
    many = client.post(URL, json={"text": ["old cat.", "the old blue street cat."]})
    assert many.json()["translations"][1] == item


def test_lines_and_spaces_come_back(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    text = "  one two.  three.\r\n\r\n42\n\tfour "
    answer = client.post(URL, json={"text": text}).json()
    assert answer["translations"][0]["text"] == "  ONE TWO.  THREE.\r\n\r\n42\n\tFOUR "


@pytest.mark.parametrize("text", ["", "   ", "\n", "42"])
def test_nothing_to_translate_comes_back(client: TestClient, text: str) -> None:
    answer = client.post(URL, json={"text": text, "return_scores": True})
    assert answer.status_code == 200
    assert answer.json()["translations"] == [
        {"text": text, "truncated": False, "score": None, "warnings": []}
    ]


def test_beam_and_scores(client: TestClient) -> None:
    body = {"text": "old cat. the old blue street.", "beam_size": 3, "return_scores": True}
    item = client.post(URL, json=body).json()["translations"][0]
    assert item["score"] < 0


def test_a_long_sentence_is_translated_to_its_end(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    text = " ".join(f"word{'x' * (index % 3)}" for index in range(750))
    assert client.post(URL, json={"text": text}).json()["translations"][0]["text"] == text.upper()


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "text", "is required"),
        ({"text": 5}, "text", "give a string"),
        ({"text": None}, "text", "give a string"),
        ({"text": []}, "text", "one or more strings"),
        ({"text": ["a", 1]}, "text", "give a string"),
        ({"text": "a", "beam_size": 0}, "beam_size", "greater than or equal to 1"),
        ({"text": "a", "beam_size": 9}, "beam_size", "less than or equal to 8"),
        ({"text": "a", "beam_size": "2"}, "beam_size", "valid integer"),
        ({"text": "a", "beam": 2}, "beam", "leave it out"),
        ({"text": "a", "return_scores": "yes"}, "return_scores", "valid boolean"),
        ([], None, "not a JSON object"),
        ("text", None, "not a JSON object"),
    ],
)
def test_a_wrong_request_is_explained(
    client: TestClient, body: object, field: str | None, words: str
) -> None:
    answer = client.post(URL, json=body)
    assert answer.status_code == 422
    error = error_of(answer)
    assert error["field"] == field
    assert words in error["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b'{"text": ', 422),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "\xff"}', 400),
        (b"[" * 50_000, 400),
    ],
)
def test_what_is_no_json_is_explained(client: TestClient, content: bytes, status: int) -> None:
    answer = client.post(URL, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert error_of(answer)["code"] == "invalid_request"


def test_the_content_type_is_asked_for(client: TestClient) -> None:
    answer = client.post(URL, content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in error_of(answer)["message"]


@pytest.mark.parametrize(("field", "value"), [("source", "fr"), ("target", "pt"), ("target", "")])
def test_other_languages_are_named(client: TestClient, field: str, value: str) -> None:
    answer = client.post(URL, json={"text": "a", field: value})
    assert answer.status_code == 422
    error = error_of(answer)
    assert (error["code"], error["field"]) == ("unsupported_language", field)
    assert "en → de" in error["message"]


def test_sizes_have_bounds(make_client: MakeClient) -> None:
    client = make_client(max_texts=2, max_text_chars=10, max_request_chars=15)
    assert client.post(URL, json={"text": ["a cat", "a cat"]}).status_code == 200
    for text in (["a"] * 3, "a" * 11, ["a" * 8] * 2):
        answer = client.post(URL, json={"text": text})
        assert answer.status_code == 413
        assert error_of(answer)["code"] == "too_large"


def test_a_late_translation_is_504(make_client: MakeClient) -> None:
    engine = StubEngine(seconds=5)
    client = make_client(engine, timeout_s=0.05)
    answer = client.post(URL, json={"text": "slow"})
    engine.release.set()
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "timeout"


def test_a_full_queue_is_503(make_client: MakeClient) -> None:
    engine = StubEngine(seconds=9)
    client = make_client(engine, queue_size=1, retry_after_s=3)
    threads = []
    for waiting in (0, 1):
        threads.append(
            threading.Thread(
                target=client.post, args=(URL,), kwargs={"json": {"text": f"a{waiting}"}}
            )
        )
        threads[-1].start()
        deadline = time.monotonic() + 5
        while queue_of(client) != waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
    answer = client.post(URL, json={"text": "b"})
    engine.release.set()
    for thread in threads:
        thread.join()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"
    assert error_of(answer)["code"] == "overloaded"


def test_a_client_that_has_gone_is_not_waited_for(
    tiny_bundle: Bundle,
) -> None:
    stub = StubEngine(seconds=9)
    settings = Settings(inter_threads=1)
    translator = Translator(ModelSet([Model.of(tiny_bundle, stub, settings)]), settings)
    app = create_app(settings, translator)
    sent: list[Any] = []
    messages = [
        {"type": "http.request", "body": b'{"text": "a"}', "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def scenario() -> None:
        await app(scope, receive, send)
        await asyncio.sleep(0)
        assert translator.waiting == 0
        stub.release.set()
        await translator.close()

    asyncio.run(asyncio.wait_for(scenario(), 5))
    assert sent[0]["status"] == 499


def queue_of(client: TestClient) -> int:
    lines = client.get("/metrics").text.splitlines()
    value = next(line for line in lines if line.startswith("quickstudy_queue_sentences "))
    return int(float(value.split()[1]))


def test_an_engine_that_fails_is_500_and_tells_nothing(make_client: MakeClient) -> None:
    client = make_client(StubEngine(fails=True))
    answer = client.post(URL, json={"text": "a"})
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal"
    assert "secret" not in answer.text
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_ready_after_a_real_translation(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}


def test_not_ready_before_a_model_is_loaded() -> None:
    client = TestClient(create_app(Settings()))
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


def test_models(client: TestClient, engine: Engine) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["source"], model["target"]) == ("tiny", "en", "de")
    assert model["engine"] == "ctranslate2-int8"
    assert model["precision"] == "int8-7bit"
    assert model["size_bytes"] > 0


def test_models_have_their_quality_by_domain(tiny_bundle: Bundle, engine: Engine) -> None:
    scored = {"system": "student", "decoding": "greedy", "bleu_low": 1, "bleu_high": 90}
    domains = [
        Domain(
            name=name,
            sentences=7,
            text_sha256="a" * 64,
            bleu_signature="nrefs:1",
            chrf2_signature="nc:6",
            scores=({**scored, "bleu": bleu, "chrf2": bleu + 20},),
        )
        for name, bleu in (("law", 22.25), ("medicine", 31.5))
    ]
    manifest = tiny_bundle.manifest.model_copy(update={"domains": tuple(domains)})
    served = Model.of(Bundle(tiny_bundle.path, manifest), engine, Settings())
    (model,) = model_list((served,)).model_dump(mode="json")["models"]
    shown = [(one["name"], one["scores"][0]["bleu"]) for one in model["domains"]]
    assert shown == [("law", 22.25), ("medicine", 31.5)]


def test_unknown_paths_and_methods_are_json(client: TestClient) -> None:
    missing = client.get("/v1/nothing")
    assert missing.status_code == 404
    assert error_of(missing)["code"] == "not_found"
    wrong = client.get(URL)
    assert wrong.status_code == 405
    assert wrong.headers["Allow"] == "POST"
    assert error_of(wrong)["code"] == "method_not_allowed"


def test_metrics_say_what_runs_and_what_it_takes(client: TestClient) -> None:
    text = client.get("/metrics").text
    build = r'^quickstudy_build_info{python="3\.\d+.*",version="[\d.]+.*"} 1\.0$'
    assert re.search(build, text, re.M)
    assert re.search(r"^process_resident_memory_bytes [1-9]", text, re.M)
    assert re.search(r"^process_cpu_seconds_total [0-9]", text, re.M)


def test_metrics_name_the_bundles_that_are_served(
    make_client: MakeClient, make_pair: MakePair, tmp_path: Path
) -> None:
    def bundles() -> list[str]:
        text = client.get("/metrics").text
        return [line for line in text.splitlines() if line.startswith("quickstudy_bundle_info{")]

    client = make_client(keys_file=tmp_path / "keys.db")
    [line] = bundles()
    assert line.startswith(
        'quickstudy_bundle_info{engine="ctranslate2-int8",name="tiny",revision="'
    )
    assert 'source="en",target="de",version="' in line
    french = make_pair("en", "fr")
    key = KeyStore(tmp_path / "keys.db").add("operator", admin=True)
    headers = {"Authorization": f"Bearer {key}"}
    swapped = client.post("/admin/models", json={"models": [str(french.path)]}, headers=headers)
    assert swapped.status_code == 200
    [line] = bundles()
    assert 'target="fr"' in line
    assert f'revision="{sha256_of(french.path / MANIFEST_FILE)[:12]}"' in line


def test_metrics_keep_few_labels(client: TestClient) -> None:
    for index in range(3):
        client.get(f"/made-up/{index}")
    text = client.get("/metrics").text
    assert 'route="other",status="404"' in text
    assert "made-up" not in text


def test_a_language_is_detected_for_each_text(make_client: MakeClient) -> None:
    texts = ["the weather is nice today.", "Das Wetter ist heute schön.", ""]
    answer = make_client(StubEngine()).post(URL, json={"text": texts, "source": "auto"}).json()
    assert answer["source"] == "auto"
    items = answer["translations"]
    assert [item["text"] for item in items] == [texts[0].upper(), texts[1], ""]
    assert [item["detected"]["language"] for item in items] == ["en", "de", "en"]
    assert items[2]["detected"]["confidence"] == 0


def test_pairs_of_sentences_and_times_where_asked_for(make_client: MakeClient) -> None:
    body = {"text": "One two.  Three.\n\n42", "return": ["sentences", "timings", "scores"]}
    answer = make_client(StubEngine()).post(URL, json=body).json()
    (item,) = answer["translations"]
    assert item["sentences"] == [
        {"source": "One two.", "target": "ONE TWO."},
        {"source": "Three.", "target": "THREE."},
    ]
    assert item["score"] == -1.0
    assert set(answer["timings"]) == {"detect_ms", "translate_ms", "total_ms"}
    assert answer["timings"]["total_ms"] > 0


def test_pairs_of_sentences_in_html_are_as_a_reader_sees_them(make_client: MakeClient) -> None:
    text = "<p>One <b>two</b>. Three &amp; four.</p>\n<ul><li>five</li><li>6</li></ul>"
    body = {"text": [text, "seven"], "format": "html", "return": ["sentences"]}
    first, second = make_client(StubEngine()).post(URL, json=body).json()["translations"]
    assert first["sentences"] == [
        {"source": "One two.", "target": "ONE TWO."},
        {"source": "Three & four.", "target": "THREE & FOUR."},
        {"source": "five", "target": "FIVE"},
    ]
    assert second["sentences"] == [{"source": "seven", "target": "SEVEN"}]


def test_detect(client: TestClient) -> None:
    answer = client.post("/v1/detect", json={"text": ["Das Wetter ist schön.", "42"]})
    german, number = answer.json()["detections"]
    assert german[0]["language"] == "de"
    assert 0.5 < german[0]["confidence"] <= 1
    assert number == [{"language": "und", "confidence": 0}]
    assert client.post("/v1/detect", json={"text": 5}).status_code == 422


def test_languages(client: TestClient) -> None:
    english = {"code": "en", "name": "English", "targets": ["de"]}
    assert client.get("/v1/languages").json() == {
        "languages": [{**english, "alternatives": ["de"], "formality": []}]
    }


@pytest.mark.parametrize("text", ["a b.", ["a b.", "c"], "1"])
@pytest.mark.parametrize(
    ("search", "field", "supported"),
    [
        ({"beam_size": 2}, "beam_size", set()),
        ({"alternatives": 1}, "alternatives", set()),
        ({"beam_size": 2, "alternatives": 1}, "alternatives", {"beam_size"}),
    ],
)
def test_a_search_that_the_engine_has_not(
    make_client: MakeClient,
    text: str | list[str],
    search: dict[str, int],
    field: str,
    supported: set[str],
) -> None:
    engine = StubEngine(supported_options=frozenset(supported))
    client = make_client(engine)
    for url in (URL, f"{URL}/stream"):
        answer = client.post(url, json={"text": text, **search})
        assert answer.status_code == 422
        error = error_of(answer)
        assert (error["code"], error["field"]) == ("unsupported_search", field)
        assert error["message"].startswith(f"{field} is {search[field]}, but the engine ")
    assert engine.batches == []
    plain = client.post(URL, json={"text": text, "beam_size": 1, "alternatives": 0})
    assert plain.status_code == 200


def test_what_can_be_asked_is_listed(make_client: MakeClient) -> None:
    for supported, fields, targets in (
        (SEARCH_OPTIONS, ["beam_size", "alternatives"], ["de"]),
        (frozenset({"beam_size"}), ["beam_size"], []),
        (frozenset[str](), [], []),
    ):
        client = make_client(StubEngine(supported_options=supported))
        assert client.get("/v1/models").json()["models"][0]["supports"] == fields
        assert client.get("/v1/languages").json()["languages"][0]["alternatives"] == targets


def test_markup_and_glossary(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    body = {
        "text": "<p>open the <b>new</b> page</p>",
        "format": "html",
        "glossary": {"page": "Seite"},
    }
    (item,) = client.post(URL, json=body).json()["translations"]
    assert "<b>NEW</b>" in item["text"]
    assert "Seite" in item["text"]
    wrong = client.post(URL, json={"text": "a", "glossary": {" ": "b"}})
    assert wrong.status_code == 422
    assert error_of(wrong)["field"] == "glossary"


def test_alternatives(client: TestClient) -> None:
    body = {"text": "the old blue street cat.", "alternatives": 2}
    (item,) = client.post(URL, json=body).json()["translations"]
    assert 1 <= len(item["alternatives"]) <= 2
    assert item["text"] not in item["alternatives"]


def test_warnings_have_a_code_and_a_message(make_client: MakeClient) -> None:
    class Repeating(StubEngine):
        def translate_batch(
            self, sentences: Sequence[str], options: TranslateOptions
        ) -> list[Translation]:
            return [Translation("so so so so so so.", 8, -0.5) for _ in sentences]

    (item,) = (
        make_client(Repeating())
        .post(URL, json={"text": "one two three four."})
        .json()["translations"]
    )
    assert "repetition" in [warning["code"] for warning in item["warnings"]]
    assert all(set(warning) == {"code", "message"} for warning in item["warnings"])

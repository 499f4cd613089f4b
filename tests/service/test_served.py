"""A served process, by itself and by `bentoml serve`, asked over a socket by real clients."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator, Sequence
from pathlib import Path

import bentoml
import deepl
import httpx
import pytest
from libretranslatepy import LibreTranslateAPI

from export.runtime.bundle import Bundle
from tests.export import tiny
from tests.service.conftest import MakePair
from tests.service.serving import BENTOML, OURS, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[OURS, BENTOML], ids=["quickstudy", "bentoml"])
def served(
    request: pytest.FixtureRequest,
    tiny_bundle: Bundle,
    make_pair: MakePair,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    models = f"{tiny_bundle.path},{make_pair('fr', 'en').path}"
    with serving(tmp_path_factory.mktemp("served"), request.param, models=models) as one:
        yield one.client


def test_it_translates(served: httpx.Client) -> None:
    answer = served.post("/v1/translate", json={"text": "the old blue street cat.\n\n42"})
    assert answer.status_code == 200
    assert answer.json()["translations"][0]["text"].endswith("\n\n42")
    assert served.get("/v1/models").json()["models"][0]["name"] == "tiny"


def test_its_own_pages_and_errors_are_ours(served: httpx.Client) -> None:
    assert "<textarea" in served.get("/").text
    assert served.get("/docs").status_code == 200
    assert served.get("/nothing").json()["error"]["code"] == "not_found"
    assert served.get("/v1/translate").status_code == 405
    for path in ("/livez", "/healthz"):
        assert served.get(path).json() == {"status": "ok"}
    assert served.get("/readyz").json() == {"status": "ready"}
    assert "quickstudy_requests_total" in served.get("/metrics").text


def test_heads_are_those_of_the_answers_to_get(served: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/v1/models", "/nothing"):
        head, answer = served.head(path), served.get(path)
        assert (head.status_code, head.content) == (answer.status_code, b"")
        assert head.headers["content-type"] == answer.headers["content-type"]
    assert served.head("/v1/translate").status_code == 405


def test_large_bodies_are_refused(served: httpx.Client) -> None:
    body = iter([b" " * 100_000] * 5)
    answer = served.post("/v1/translate", content=body)
    assert answer.status_code == 413


def test_libretranslates_client(served: httpx.Client) -> None:
    client = LibreTranslateAPI(str(served.base_url))
    text = "the old blue street cat."
    expected = served.post("/v1/translate", json={"text": text}).json()["translations"][0]["text"]
    assert client.translate(text, "en", "de") == expected
    assert client.translate(text, "auto", "de") == expected
    assert client.translate(text, "fr", "de")
    assert client.detect(text)[0]["language"] == "en"
    assert client.languages() == [
        {"code": "en", "name": "English", "targets": ["de"]},
        {"code": "fr", "name": "French", "targets": ["de", "en"]},
    ]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        client.translate(text, "en", "ja")


def test_deepls_client(served: httpx.Client) -> None:
    client = deepl.DeepLClient("any key", server_url=str(served.base_url))
    texts = ["the old blue street cat.", "the red dog rides."]
    found = client.translate_text(texts, target_lang="DE", source_lang="EN")
    expected = served.post("/v1/translate", json={"text": texts}).json()["translations"]
    assert isinstance(found, list)
    assert [one.text for one in found] == [one["text"] for one in expected]
    assert [one.billed_characters for one in found] == [24, 18]
    one = client.translate_text(texts[0], target_lang="EN-US", source_lang="FR")
    assert not isinstance(one, list)
    assert one.detected_source_lang == "FR"
    assert [one.code for one in client.get_source_languages()] == ["EN", "FR"]
    assert [one.code for one in client.get_target_languages()] == ["DE", "EN-GB", "EN-US"]
    assert not client.get_usage().any_limit_reached
    with pytest.raises(deepl.DeepLException, match="'JA'"):
        client.translate_text("a", target_lang="JA")
    assert not any(one.supports_formality for one in client.get_target_languages())
    with pytest.raises(deepl.DeepLException, match="`formality` is not supported for de"):
        client.translate_text("a", target_lang="DE", source_lang="EN", formality="more")
    preferred = client.translate_text(
        texts[0], target_lang="DE", source_lang="EN", formality=deepl.Formality.PREFER_LESS
    )
    assert not isinstance(preferred, list)
    assert preferred.text == expected[0]["text"]


def test_deepls_client_asks_for_a_form_of_address(tmp_path: Path) -> None:
    bundle = tiny.make_tagged_bundle(tmp_path / "tiny", engines=["onnx-int8"])
    with serving(tmp_path, model=bundle.path) as one:
        client = deepl.DeepLClient("any key", server_url=str(one.client.base_url))
        (target,) = client.get_target_languages()
        assert target.supports_formality
        for formality, text in (
            (deepl.Formality.LESS, tiny.INFORMAL),
            (deepl.Formality.PREFER_LESS, tiny.INFORMAL),
            (deepl.Formality.MORE, tiny.FORMAL),
            (deepl.Formality.DEFAULT, tiny.FORMAL),
        ):
            found = client.translate_text(
                tiny.sentences()[0], source_lang="EN", target_lang="DE", formality=formality
            )
            assert not isinstance(found, list)
            assert found.text == text
        source, result = tmp_path / "cats.txt", tmp_path / "cats.de.txt"
        source.write_text(tiny.sentences()[0])
        client.translate_document_from_filepath(
            source, result, source_lang="EN", target_lang="DE", formality=deepl.Formality.LESS
        )
        assert result.read_text() == tiny.INFORMAL


def test_deepls_client_translates_documents(
    served: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.1)))
    client = deepl.DeepLClient("any key", server_url=str(served.base_url))
    text = "the old blue street cat."
    source, target = tmp_path / "cats.txt", tmp_path / "cats.de.txt"
    source.write_text(text)
    status = client.translate_document_from_filepath(
        source, target, source_lang="EN", target_lang="DE"
    )
    assert (status.done, status.billed_characters) == (True, len(text))
    expected = served.post("/v1/translate", json={"text": text}).json()["translations"][0]["text"]
    assert target.read_text() == expected
    with pytest.raises(deepl.DeepLException, match="exe"):
        client.translate_document_upload(text, filename="cats.exe", target_lang="DE")


def test_bentomls_client(served: httpx.Client) -> None:
    with bentoml.SyncHTTPClient(str(served.base_url)) as client:
        found = client.translate(text="the old blue street cat.", source="en", target="de")
    expected = served.post("/v1/translate", json={"text": "the old blue street cat."}).json()
    assert found == expected
    spec = served.get("/docs.json").json()
    assert spec["paths"]["/v1/translate"]
    assert spec == served.get("/openapi.json").json()


@pytest.mark.parametrize("command", [OURS, BENTOML], ids=["quickstudy", "bentoml"])
def test_nothing_but_the_setting_says_which_proxies_to_believe(
    tiny_bundle: Bundle, tmp_path: Path, command: Sequence[str]
) -> None:
    """The peer is local, which uvicorn would believe by itself, and by the environment."""
    with serving(
        tmp_path, command, model=tiny_bundle.path, rate_limit="2/hour", FORWARDED_ALLOW_IPS="*"
    ) as one:
        statuses = [
            one.client.post(
                "/v1/translate",
                json={"text": "cat"},
                headers={"X-Forwarded-For": f"192.0.2.{number}"},
            ).status_code
            for number in range(3)
        ]
        assert statuses == [200, 200, 429]

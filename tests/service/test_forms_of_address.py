"""Forms of address in the service: what is asked for, what is refused, what shares what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from export.runtime.bundle import Bundle
from export.runtime.engines import Engine
from export.runtime.manifest import Formality, FormalityTags
from quickstudy.form_of_address import formality_of_german
from service.models import Model, ModelSet, load_models
from service.pivot import SearchError, TranslatedText, TranslationRequest
from service.settings import Settings
from service.translator import Translator
from tests.service.conftest import MakePair
from tests.service.stub import PoliteEngine, StubEngine

MakeClient = Callable[..., TestClient]
URL = "/v1/translate"
SETTINGS = Settings(inter_threads=1, fallback_decoding=False)
SHIPPED = Path(__file__).parents[2] / "models" / "en-de"
FORMS: tuple[Formality, ...] = ("formal", "informal")


@pytest.fixture
def polite() -> PoliteEngine:
    return PoliteEngine()


def model_of(bundle: Bundle, engine: Engine, tags: FormalityTags | None = None) -> Model:
    manifest = bundle.manifest.model_copy(update={"formality": tags})
    return Model.of(replace(bundle, manifest=manifest), engine, SETTINGS)


def run(models: list[Model], *requests: TranslationRequest) -> list[list[TranslatedText]]:
    """The requests' translations, all asked for at the same time."""

    async def scenario() -> list[list[TranslatedText]]:
        translator = Translator(ModelSet(models), SETTINGS)
        try:
            results = await asyncio.gather(*map(translator.translate, requests))
        finally:
            await translator.close()
        return [list(result.texts) for result in results]

    return asyncio.run(scenario())


def test_forms_share_neither_cache_nor_batch(make_pair: MakePair, polite: PoliteEngine) -> None:
    model = model_of(make_pair("en", "de"), polite)
    texts = ["one two.", "three four."]
    asked = [TranslationRequest(texts, formality=form) for form in (*FORMS, None)]
    found = [[text.text for text in result] for result in run([model], *asked, *asked)]
    expected = [[form + text.upper() for text in texts] for form in ("formal ", "informal ", "")]
    assert found == [*expected, *expected]
    assert sorted(map(str, polite.asked)) == ["None", "formal", "informal"]
    assert polite.batches == [texts] * 3


def test_the_models_own_form_is_the_one_that_nobody_asks_for(
    make_pair: MakePair, polite: PoliteEngine
) -> None:
    tags = FormalityTags(formal="<f>", informal="<i>", default="informal")
    model = model_of(make_pair("en", "de"), polite, tags)
    asked = [TranslationRequest(["one two."], formality=form) for form in (None, "informal")]
    assert run([model], *asked)[0][0].text == "ONE TWO."
    assert polite.asked == [None]


def test_what_looks_wrong_is_decoded_again_in_the_same_form(
    make_pair: MakePair, polite: PoliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SETTINGS", Settings(inter_threads=1))
    model = model_of(make_pair("en", "de"), polite)
    run([model], TranslationRequest(["so " * 20], formality="informal"))
    assert len(polite.asked) > 1
    assert set(polite.asked) == {"informal"}


def test_the_form_that_is_looked_for(make_pair: MakePair, polite: PoliteEngine) -> None:
    tags = FormalityTags(formal="<f>", informal="<i>", default="informal")
    german = model_of(make_pair("en", "de"), polite, tags)
    for formality, form in ((None, "informal"), ("formal", "formal"), ("informal", "informal")):
        asked = german.asked_form(formality)
        assert asked is not None
        assert asked.form == form
        assert asked.is_missed_by("Bitte warten Sie.") is (form == "informal")
        assert asked.is_missed_by("Bitte warte.") is (form == "formal")
        assert not asked.is_missed_by("Es regnet.")
    assert model_of(make_pair("en", "de"), polite).asked_form("formal") is None, "it has one form"
    assert model_of(make_pair("en", "fr"), polite, tags).asked_form(None) is None, "it has no rules"


def test_through_english_the_last_model_has_the_form(make_pair: MakePair) -> None:
    first, last = PoliteEngine(), PoliteEngine()
    models = [model_of(make_pair("fr", "en"), first), model_of(make_pair("en", "de"), last)]
    request = TranslationRequest(["un deux."], "fr", "de", formality="informal")
    assert run(models, request)[0][0].text == "INFORMAL UN DEUX."  # all capitals, as the source
    assert (first.asked, last.asked) == ([None], ["informal"])
    models[0] = model_of(make_pair("fr", "en"), StubEngine())
    assert run(models, request)[0][0].text == "INFORMAL UN DEUX."
    models = [model_of(make_pair("fr", "en"), first), model_of(make_pair("en", "de"), StubEngine())]
    with pytest.raises(SearchError, match="not supported for de") as refused:
        run(models, request)
    assert (refused.value.field, refused.value.code) == ("formality", "unsupported_formality")
    assert run(models, replace(request, needs_formality=False))[0][0].text == "UN DEUX."


REQUESTS = [
    "Please turn off the lights.",
    "Please try again later.",
    "Please give me the key.",
    "Please write your name here.",
    "Help me!",
    "Are you ready?",
]


@pytest.mark.parametrize("form", FORMS)
def test_the_shipped_model_writes_requests_in_the_asked_form(form: Formality) -> None:
    settings = Settings(inter_threads=1, model=SHIPPED)
    translator = Translator(load_models([SHIPPED], settings), settings)

    async def scenario() -> list[str]:
        try:
            found = await translator.translate(TranslationRequest(REQUESTS, formality=form))
        finally:
            await translator.close()
        return [text.text for text in found.texts]

    texts = asyncio.run(scenario())
    assert [formality_of_german(text) for text in texts] == [form] * len(REQUESTS), texts


@pytest.mark.parametrize("url", [URL, f"{URL}/stream"])
def test_our_own_api(make_client: MakeClient, polite: PoliteEngine, url: str) -> None:
    client = make_client(polite)
    for form in FORMS:
        answer = client.post(url, json={"text": "one two.", "source": "en", "formality": form})
        assert answer.status_code == 200
        assert f"{form} ONE TWO." in answer.text
    wrong = client.post(url, json={"text": "one", "formality": "more"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "formality")
    refused = make_client(StubEngine()).post(url, json={"text": "one", "formality": "formal"})
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["field"]) == ("unsupported_formality", "formality")
    assert "leave it out" in error["message"]


def test_what_can_be_asked_is_listed(make_client: MakeClient, polite: PoliteEngine) -> None:
    for engine, targets in ((polite, ["de"]), (StubEngine(), [])):
        client = make_client(engine)
        assert client.get("/v1/languages").json()["languages"][0]["formality"] == targets
        supports = client.get("/v1/models").json()["models"][0]["supports"]
        assert ("formality" in supports) is bool(targets)


def test_deepls_languages_promise_it_for_every_source(make_pair: MakePair) -> None:
    from service.api.deepl import _has_formality

    polite, plain = PoliteEngine(), StubEngine()
    models = [model_of(make_pair("en", "de"), polite), model_of(make_pair("fr", "en"), plain)]
    assert _has_formality(ModelSet(models), "de")
    assert not _has_formality(ModelSet(models), "en")
    direct = model_of(make_pair("fr", "de"), plain)
    assert not _has_formality(ModelSet([*models, direct]), "de")


def send(client: TestClient, **fields: str) -> Any:
    files = {"file": ("cats.txt", "One cat.\n")}
    data = {"source": "en", "target": "de", **fields}
    return client.post(f"{URL}/file", files=files, data=data)


def test_files(make_client: MakeClient, polite: PoliteEngine) -> None:
    client = make_client(polite)
    sent = send(client, formality="informal")
    assert sent.status_code == 202, sent.text
    url = f"/v1/files/{sent.json()['id']}"
    for _ in range(500):
        if client.get(url).json()["status"] == "done":
            break
        time.sleep(0.02)
    assert client.get(f"{url}/result").content == b"informal ONE CAT.\n"
    assert send(client, formality="less").status_code == 422
    refused = send(make_client(StubEngine()), formality="formal")
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "unsupported_formality"

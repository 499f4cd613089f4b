"""A model whose vocabulary has gaps, behind every way to translate: nothing unknown reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

import quickstudy
from export.runtime.bundle import Bundle
from service.models import Model, ModelSet
from service.pivot import UNKNOWN_CHARACTERS, TranslationRequest
from service.settings import Settings
from service.translator import Translator
from tests.service.small_vocabulary import SmallVocabularyEngine
from tests.service.stub import StubEngine

TEXT = "we saw Jürgen Müller’s “house” – it costs about €3 😀! and 中国, #tag, x^2…\n\nsee Köln"
TRANSLATED = (
    "WE SAW Jürgen Müller’s “HOUSE” – IT COSTS ABOUT €3 😀! AND 中国, #tag, x^2…\n\nSEE Köln"
)
SETTINGS = Settings(inter_threads=1)


@pytest.fixture
def engine() -> Iterator[SmallVocabularyEngine]:
    engine = SmallVocabularyEngine()
    yield engine
    assert engine.sentences
    assert not engine.unread


def test_a_text(make_client: Callable[..., TestClient], engine: SmallVocabularyEngine) -> None:
    client = make_client(engine)
    (translation,) = client.post("/v1/translate", json={"text": TEXT}).json()["translations"]
    assert translation["text"] == TRANSLATED
    assert UNKNOWN_CHARACTERS.code not in {item["code"] for item in translation["warnings"]}


def test_a_stream(make_client: Callable[..., TestClient], engine: SmallVocabularyEngine) -> None:
    response = make_client(engine).post("/v1/translate/stream", json={"text": "see Köln – now"})
    assert response.text.count("SEE Köln – NOW") == 2


def test_markup(make_client: Callable[..., TestClient], engine: SmallVocabularyEngine) -> None:
    client = make_client(engine)
    html = "<p>we saw <b>M&uuml;ller</b> &ndash; for <i>about</i> &euro;3</p>"
    answer = client.post("/v1/translate", json={"text": html, "format": "html"}).json()
    assert answer["translations"][0]["text"] == (
        "<p>WE SAW <b>M&uuml;ller</b> – FOR <i>ABOUT</i> &euro;3</p>"
    )


def test_the_python_api(tiny_bundle: Bundle, engine: SmallVocabularyEngine) -> None:
    with quickstudy.Model(Model.of(tiny_bundle, engine, SETTINGS), SETTINGS) as model:
        assert model.translate(TEXT) == TRANSLATED
        pairs = model.translate_with_details("see “Köln” now").sentences
    assert pairs == (("see “Köln” now", "SEE “Köln” NOW"),)


def test_behind_another_model(
    make_pair: Callable[[str, str], Bundle], engine: SmallVocabularyEngine
) -> None:
    """The text between two models is the first one's output, which the second may not read."""

    async def translate() -> str:
        first, second = make_pair("de", "en"), make_pair("en", "fr")
        models = ModelSet(
            [Model.of(first, StubEngine(), SETTINGS), Model.of(second, engine, SETTINGS)]
        )
        translator = Translator(models, SETTINGS)
        result = await translator.translate(TranslationRequest(["im Café “über”"], "de", "fr"))
        await translator.close_now()
        return result.texts[0].text

    assert asyncio.run(translate()) == "IM CAFÉ “ÜBER”"


def test_what_it_could_not_be_given_is_a_warning(tiny_bundle: Bundle) -> None:
    """Here a vocabulary that reads what it is asked about, and then does not."""
    engine = SmallVocabularyEngine()
    find = engine.unknown_spans
    engine.unknown_spans = lambda text: [] if "and" in text else find(text)  # type: ignore[method-assign]
    model = Model.of(tiny_bundle, engine, SETTINGS)
    engine.unknown_spans = find  # type: ignore[method-assign]
    assert model.coverage is not None

    async def translate() -> list[str]:
        translator = Translator(ModelSet([model]), SETTINGS)
        result = await translator.translate(
            TranslationRequest(["we saw Köln. and then Köln", "see Köln"])
        )
        await translator.close_now()
        return [[warning.code for warning in text.warnings] for text in result.texts]

    assert asyncio.run(translate()) == [[UNKNOWN_CHARACTERS.code], []]

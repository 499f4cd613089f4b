"""Several pairs, the way through English, and swapping under the requests' feet."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from export.runtime.bundle import Bundle, load_bundle, write_bundle
from export.runtime.engines import TranslateOptions, Translation, load_engine
from export.runtime.manifest import (
    CARD_FILE,
    SEARCH_OPTIONS,
    BundleError,
    BundleInfo,
    Domain,
    DomainScore,
    Origin,
)
from service.languages import language_name, match_language
from service.models import LanguageError, Model, ModelSet, load_models
from service.pivot import SearchError, TranslatedText, TranslationRequest
from service.settings import Settings
from service.text.placeholders import EN_DE
from service.translator import Translator
from tests.export import tiny

SETTINGS = Settings(inter_threads=1)
MakePair = Callable[[str, str], Bundle]


class Tagging:
    """Puts its target language in front of every sentence; waits on demand."""

    max_input_tokens = 100
    runtime = "stub"
    reads_all_text = True

    def __init__(self, target: str) -> None:
        self.target = target
        self.supported_options = SEARCH_OPTIONS
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.tokens, self.score = 2, -1.0
        self.cut: tuple[str, ...] = ()
        """Words of sentences that come out truncated."""

    def count_tokens(self, sentence: str) -> int:
        return len(sentence.split())

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        return []

    def output_limit(self, source_tokens: int) -> int:
        return 100

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        self.begun.set()
        assert self.go.wait(9)
        return [
            Translation(
                f"{self.target} {text}",
                self.tokens,
                self.score if options.return_scores else None,
                any(word in text for word in self.cut),
            )
            for text in sentences
        ]


def tagging(bundle: Bundle) -> Model:
    return Model.of(bundle, Tagging(bundle.manifest.target_lang), SETTINGS)


@pytest.fixture
def models(make_pair: MakePair) -> ModelSet:
    return ModelSet([tagging(make_pair(*pair)) for pair in (("de", "en"), ("en", "fr"))])


def test_pairs_and_the_way_through_english(models: ModelSet) -> None:
    assert models.targets == {"de": ["en", "fr"], "en": ["fr"]}
    assert [model.pair for model in models.route("de", "fr")] == [("de", "en"), ("en", "fr")]
    assert [model.pair for model in models.route("de", "en")] == [("de", "en")]
    assert models.pair(None, None) == ("de", "en")
    assert models.pair("EN-GB", None) == ("en", "fr")
    assert models.pair(None, "FR") == ("de", "fr")
    for source, target, field in (("fr", None, "source"), ("en", "de", "target")):
        with pytest.raises(LanguageError, match="de → en, de → fr, en → fr") as caught:
            models.pair(source, target)
        assert caught.value.field == field


def test_a_direct_model_is_preferred(make_pair: MakePair) -> None:
    pairs = (("de", "en"), ("en", "fr"), ("de", "fr"))
    models = ModelSet([tagging(make_pair(*pair)) for pair in pairs])
    assert [model.pair for model in models.route("de", "fr")] == [("de", "fr")]


def test_two_models_for_a_pair_are_refused(make_pair: MakePair) -> None:
    with pytest.raises(BundleError, match="both translate de → en"):
        ModelSet([tagging(make_pair("de", "en")), tagging(make_pair("de", "en"))])


class Wavering(Tagging):
    """Its alternatives are its translation again, and one of them twice."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        return [Translation(text, 1, alternatives=(text, "no", "no")) for text in sentences]


def test_alternatives_differ_from_the_translation_and_each_other(make_pair: MakePair) -> None:
    model = Model.of(make_pair("en", "de"), Wavering("de"), SETTINGS)

    async def translate() -> TranslatedText:
        translator = Translator(ModelSet([model]), SETTINGS)
        result = await translator.translate(TranslationRequest(["yes"], alternatives=3))
        await translator.close_now()
        return result.texts[0]

    assert list(asyncio.run(translate()).alternatives) == ["no"]


def shown(model: Model, **chrf2: float) -> Model:
    """A model whose card shows these figures of domains."""
    domains = tuple(
        Domain(
            name=name,
            sentences=1,
            text_sha256="0" * 64,
            bleu_signature="b",
            chrf2_signature="c",
            scores=(
                DomainScore(
                    system="own", decoding="greedy", bleu=1, bleu_low=0, bleu_high=2, chrf2=value
                ),
                DomainScore(
                    system="other", decoding="greedy", bleu=1, bleu_low=0, bleu_high=2, chrf2=99
                ),
            ),
        )
        for name, value in chrf2.items()
    )
    manifest = model.manifest.model_copy(update={"domains": domains})
    return replace(model, bundle=replace(model.bundle, manifest=manifest))


def test_a_page_begins_with_the_direction_that_is_best(make_pair: MakePair) -> None:
    first, second, third = (
        tagging(make_pair(*pair)) for pair in (("de", "en"), ("en", "fr"), ("en", "it"))
    )
    assert ModelSet([first, second]).best is first
    good = shown(second, news=60.0, ui=40.0)
    better = shown(third, news=51.0)
    models = ModelSet([first, good, better])
    assert models.best is better
    assert models.default is first
    assert models.pair(None, None) == first.pair


def test_the_card_says_whether_headings_get_a_full_stop(make_pair: MakePair) -> None:
    model = tagging(make_pair("de", "en"))
    assert model.adds_stop
    manifest = model.manifest.model_copy(update={"reads_fragments": True})
    assert not replace(model, bundle=replace(model.bundle, manifest=manifest)).adds_stop


def test_a_text_goes_through_both_models(models: ModelSet) -> None:
    async def scenario() -> None:
        translator = Translator(models, SETTINGS)
        text = "Eins zwei.\n\nDrei vier."
        done = await translator.translate(TranslationRequest([text], "de", "fr", scores=True))
        (item,) = done.texts
        assert item.text == "fr en Eins zwei.\n\nfr en Drei vier."
        assert item.sentences == [
            ("Eins zwei.", "fr en Eins zwei."),
            ("Drei vier.", "fr en Drei vier."),
        ]
        assert (item.score, item.tokens) == (-1.0, 8)
        assert done.models == ["de-en", "en-fr"]
        await translator.close()

    asyncio.run(scenario())


def through_english(
    models: ModelSet, texts: list[str], scores: bool = True
) -> list[TranslatedText]:
    async def scenario() -> list[TranslatedText]:
        translator = Translator(models, SETTINGS)
        done = await translator.translate(TranslationRequest(texts, "de", "fr", scores=scores))
        await translator.close()
        return done.texts

    return asyncio.run(scenario())


def test_a_text_cut_off_on_either_way_is_truncated(models: ModelSet) -> None:
    first, second = models.models
    first.engine.cut, second.engine.cut = ("eins",), ("en zwei",)
    found = through_english(models, ["eins.", "zwei.", "drei.", "drei. eins."])
    assert [item.truncated for item in found] == [True, True, False, True]


def test_the_message_of_an_echo_is_true(make_pair: MakePair) -> None:
    class Echoing(Tagging):
        def translate_batch(
            self, sentences: Sequence[str], options: TranslateOptions
        ) -> list[Translation]:
            translations = super().translate_batch(sentences, options)
            return [
                Translation(sentence, 3) if sentence.startswith(self.cut) else translation
                for sentence, translation in zip(sentences, translations, strict=True)
            ]

    bundles = [make_pair(*pair) for pair in (("de", "en"), ("en", "fr"))]
    models = ModelSet(
        [Model.of(one, Echoing(one.manifest.target_lang), SETTINGS) for one in bundles]
    )
    same, other = "wir sehen sie.", "Das ist es."

    def messages(target: str, texts: list[str]) -> list[list[str]]:
        async def scenario() -> list[list[str]]:
            translator = Translator(models, SETTINGS)
            done = await translator.translate(TranslationRequest(texts, "de", target))
            await translator.close()
            return [
                [warning.message for warning in text.warnings if warning.code == "echo"]
                for text in done.texts
            ]

        return asyncio.run(scenario())

    models.models[0].engine.cut = ("wir",)
    assert messages("en", [same, f"{same} {other}", other]) == [
        ["The translation is the source text."],
        ["A part of the translation is the source text."],
        [],
    ]
    step = "On the way through English, a text came back as it was."
    assert messages("fr", [same, f"{same} {other}"]) == [[step], [step]]
    models.models[1].engine.cut = ("wir",)
    assert messages("fr", [same]) == [["The translation is the source text."]]


def test_the_score_through_english_is_the_mean_of_all_tokens(models: ModelSet) -> None:
    """6 tokens of −1 a sentence into English, 2 of −3 from there: (6 · −1 + 2 · −3) / 8."""
    first, second = models.models
    first.engine.tokens, first.engine.score = 6, -1.0
    second.engine.tokens, second.engine.score = 2, -3.0
    one, two, none = through_english(models, ["Eins.", "Eins. Zwei.", ""])
    assert (one.tokens, one.score) == (8, -1.5)
    assert (two.tokens, two.score) == (16, -1.5)
    assert (none.tokens, none.score) == (0, None)
    assert through_english(models, ["Eins."], scores=False)[0].score is None


def test_each_text_of_a_list_has_a_source_of_its_own(models: ModelSet) -> None:
    texts = [
        "Das Wetter ist heute schön.",
        "The weather is nice today.",
        "Il fait beau aujourd'hui.",
        "Погода сегодня хорошая, и мы идём гулять.",
        "",
    ]

    async def scenario() -> None:
        translator = Translator(models, SETTINGS.model_copy(update={"other_language": "translate"}))
        done = await translator.translate(TranslationRequest(texts, "auto", "fr"))
        assert [item.source for item in done.texts] == ["de", "en", "fr", "de", "de"]
        assert done.texts[0].text == f"fr en {texts[0]}"
        assert done.texts[1].text == f"fr {texts[1]}"
        assert done.texts[2].text == texts[2]
        assert "Russian" in done.texts[3].warnings[0].message
        assert done.texts[3].detected is not None
        assert done.texts[3].detected.confidence < 0.01
        assert [item.warnings for item in done.texts[:3]] == [[], [], []]
        assert done.texts[4].text == ""
        await translator.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["Погода сегодня хорошая.", "Привет", "El perro es muy grande."])
def test_a_text_in_a_language_that_is_not_served_is_refused_or_kept(
    models: ModelSet, text: str
) -> None:
    async def scenario() -> None:
        translator = Translator(models, SETTINGS)
        with pytest.raises(LanguageError, match="looks like") as raised:
            await translator.translate(TranslationRequest(["Hello there.", text], "auto", "fr"))
        assert raised.value.field == "source"
        await translator.close()
        keeping = Translator(models, SETTINGS.model_copy(update={"other_language": "keep"}))
        (kept,) = (await keeping.translate(TranslationRequest([text], "auto", "fr"))).texts
        assert kept.text == text
        assert [warning.code for warning in kept.warnings] == ["other_language"]
        await keeping.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["José Ramírez", "São Paulo", "OK", "42", "Hello"])
def test_a_name_is_not_refused(models: ModelSet, text: str) -> None:
    async def scenario() -> None:
        translator = Translator(models, SETTINGS)
        result = await translator.translate(TranslationRequest([text], "auto", "fr"))
        await translator.close()
        assert text in result.texts[0].text  # translated, or kept

    asyncio.run(scenario())


def test_a_swap_lets_requests_end_with_the_former_model(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_pair("en", "fr"), make_pair("en", "de")
    slow = Tagging("fr")
    slow.go.clear()

    async def scenario() -> None:
        settings = Settings(inter_threads=2)
        translator = Translator(ModelSet([Model.of(old, slow, settings)]), settings)
        before = asyncio.create_task(translator.translate(TranslationRequest(["One two."])))
        assert await asyncio.to_thread(slow.begun.wait, 5)
        await translator.swap([new.path])
        after = await translator.translate(TranslationRequest(["the old cat."]))
        assert after.target == "de"
        assert not before.done()
        slow.go.set()
        assert (await before).texts[0].text == "fr One two."
        with pytest.raises(LanguageError):
            await translator.translate(TranslationRequest(["a"], target="fr"))
        await translator.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_broken_bundle_changes_nothing(make_pair: MakePair, tmp_path: Path) -> None:
    good = make_pair("en", "fr")
    broken = tmp_path / "broken"
    shutil.copytree(good.path, broken)
    (broken / "tokenizer.model").write_bytes(b"")

    async def scenario() -> None:
        translator = Translator(ModelSet([tagging(good)]), SETTINGS)
        models = translator.models
        for folders in ([broken], [tmp_path / "nothing"]):
            with pytest.raises(BundleError):
                await translator.swap(folders)
        assert translator.models is models
        await translator.close()

    asyncio.run(scenario())


def test_a_bundle_that_has_not_changed_is_not_loaded_again(
    make_pair: MakePair, tmp_path: Path
) -> None:
    bundle = make_pair("en", "fr")
    model = Model.of(bundle, load_engine(bundle), SETTINGS)
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    (again,) = load_models([copy], SETTINGS, [model]).models
    assert again.engine is model.engine
    assert again.bundle == load_bundle(copy)


def test_imported_models_get_headings_as_they_are(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[str] = []

    def translate_batch(
        self: Tagging, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        received.extend(sentences)
        return [Translation(sentence, 1) for sentence in sentences]

    async def translated(bundle: Bundle) -> str:
        translator = Translator(ModelSet([tagging(bundle)]), SETTINGS)
        result = await translator.translate(TranslationRequest(["Stop"]))
        await translator.close()
        return result.texts[0].text

    monkeypatch.setattr(Tagging, "translate_batch", translate_batch)
    bundle = make_pair("en", "de")
    origin = Origin(format="marian", name="x", files={})
    imported = replace(bundle, manifest=bundle.manifest.model_copy(update={"origin": origin}))
    assert [asyncio.run(translated(one)) for one in (bundle, imported)] == ["Stop", "Stop"]
    assert received == ["Stop.", "Stop"]


@pytest.fixture(scope="module")
def onnx_pair(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle pt → en with an ONNX engine alone, whose own beam is for others."""
    folder = tmp_path_factory.mktemp("onnx")
    tokenizer = tiny.train_tokenizer(folder / "tokenizer.model")
    made = tiny.make_bundle(folder / "made", tokenizer, engines=["onnx-float32"])
    manifest = made.manifest
    fields = {name: getattr(manifest, name) for name in BundleInfo.model_fields}
    decoding = manifest.decoding.model_copy(update={"beam_size": 4})
    info = BundleInfo(**{**fields, "source_lang": "pt", "target_lang": "en", "decoding": decoding})

    def fill(draft: Path) -> None:
        for name in set(manifest.files) - {CARD_FILE}:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made.path / name, draft / name)

    return write_bundle(folder / "pt-en", info, fill=fill, verify=lambda _: None)


def test_a_bundle_without_the_engine_of_the_settings_is_served_by_its_default(
    make_pair: MakePair, onnx_pair: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [make_pair("en", "de").path, onnx_pair.path]
    settings = Settings(inter_threads=1, engine="ctranslate2-int8")
    names = [model.engine_name for model in load_models(folders, settings).models]
    assert names == ["ctranslate2-int8", "onnx-float32"]
    (line,) = caplog.messages
    assert line == f"{onnx_pair.path} has no engine ctranslate2-int8: serving it by onnx-float32"
    load_models(folders, SETTINGS)
    assert len(caplog.messages) == 1
    nobody = Settings(inter_threads=1, engine="faster")
    every = "ctranslate2-int8, ctranslate2-float32, onnx-float32"
    with pytest.raises(BundleError, match=f"has an engine 'faster': choose one of {every}, or"):
        load_models(folders, nobody)
    with pytest.raises(BundleError, match="pt-en has no engine 'faster': choose one of onnx-float"):
        load_models(folders[1:], nobody)


def test_a_greedy_engine_is_asked_for_no_beam_of_its_bundle(onnx_pair: Bundle) -> None:
    async def scenario() -> None:
        translator = Translator(load_models([onnx_pair.path], SETTINGS), SETTINGS)
        assert (await translator.translate(TranslationRequest(["old cat."]))).texts[0].text
        with pytest.raises(SearchError, match=r"only decodes greedily: leave it out$"):
            await translator.translate(TranslationRequest(["old cat."], beam_size=2))
        await translator.close()

    asyncio.run(scenario())


def test_a_search_is_for_every_model_on_the_way(make_pair: MakePair) -> None:
    """A beam is for both models of a route, alternatives for the last."""
    first, last = tagging(make_pair("de", "en")), tagging(make_pair("en", "fr"))
    requests = {
        "beam_size": TranslationRequest(["a b."], "de", "fr", beam_size=2),
        "alternatives": TranslationRequest(["a b."], "de", "fr", alternatives=2),
    }

    async def refused() -> set[str]:
        translator = Translator(ModelSet([first, last]), SETTINGS)
        fields = set()
        for request in requests.values():
            try:
                await translator.translate(request)
            except SearchError as error:
                fields.add(error.field)
        await translator.close()
        return fields

    assert asyncio.run(refused()) == set()
    first.engine.supported_options = frozenset()
    assert asyncio.run(refused()) == {"beam_size"}
    first.engine.supported_options = SEARCH_OPTIONS
    last.engine.supported_options = frozenset({"beam_size"})
    assert asyncio.run(refused()) == {"alternatives"}
    last.engine.supported_options = frozenset()
    assert asyncio.run(refused()) == {"beam_size", "alternatives"}


@pytest.mark.parametrize("is_imported", [False, True])
def test_placeholder_words_are_known_for_our_own_english_to_german_only(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch, is_imported: bool
) -> None:
    bundle = make_pair("en", "de")
    origin = Origin(format="marian", name="x", files={}) if is_imported else None
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"origin": origin}))
    monkeypatch.setattr("service.models.load_bundle", lambda _: bundle)
    model = load_models([bundle.path], SETTINGS).default
    assert (model.placeholder_words == EN_DE) is not is_imported
    assert model.coverage is None or not model.coverage.unknown_spans("Łódź")


@pytest.mark.parametrize(
    ("code", "served", "found"),
    [
        ("EN", ["de", "en"], "en"),
        ("en_US", ["en"], "en"),
        ("pt", ["pt-BR"], "pt-BR"),
        ("pt-br", ["pt", "pt-BR"], "pt-BR"),
        ("pt-PT", ["pt-BR"], None),
        ("fr", ["en"], None),
        ("", ["en"], None),
    ],
)
def test_codes_as_clients_write_them(code: str, served: list[str], found: str | None) -> None:
    assert match_language(code, served) == found


def test_names() -> None:
    assert language_name("de") == "German"
    assert language_name("pt-BR") == "Portuguese (BR)"
    assert language_name("xyz") == "xyz"

"""Forms of address: tags before sources, and texts that only look like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as spm

from export.exporter import upgrade_bundle
from export.quality_gate import EvalSet
from export.runtime.bundle import Bundle, BundleError, parse_manifest
from export.runtime.card import render_card
from export.runtime.engines import Engine, TranslateOptions, load_engine
from export.runtime.engines.base import Decoded, SentenceEngine
from export.runtime.formality import is_one_piece, text_tokenizer
from export.runtime.manifest import Formality, FormalityTags, Manifest
from tests.export import tiny
from tests.export.node import call, needs_node

ENGINES = ["ctranslate2-int8", "ctranslate2-float32", "onnx-int8-beam"]
SENTENCES = ["the old cat.", tiny.sentences()[3], "dog"]
FORMAL, INFORMAL = TranslateOptions(formality="formal"), TranslateOptions(formality="informal")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with an engine of each kind, which passed the gate: torch gets the tag too."""
    sentences = tiny.sentences()[:20]
    return tiny.make_tagged_bundle(
        tmp_path_factory.mktemp("tagged") / "tiny",
        engines=ENGINES,
        held_out=EvalSet("made up", sentences, [tiny.FORMAL] * len(sentences)),
    )


@pytest.fixture(scope="module")
def whole_tokenizer(tagged: Bundle) -> Any:
    """The tokenizer that cuts texts at tags, as training does."""
    return spm.SentencePieceProcessor(model_file=str(tagged.tokenizer_path))


class Recording(SentenceEngine):
    """Keeps the sources that it is given."""

    def __init__(self, bundle: Bundle, token_type: type) -> None:
        self.token_type = token_type
        super().__init__(bundle)
        self.sources: list[list[Any]] = []

    def decode(
        self, sources: list[list[Any]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        self.sources += sources
        return [Decoded([]) for _ in sources]


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_writes_the_form_that_is_asked_for(tagged: Bundle, name: str) -> None:
    engine = load_engine(tagged, name)

    def written(options: TranslateOptions) -> set[str]:
        return {one.text for one in engine.translate_batch(SENTENCES, options)}

    assert written(FORMAL) == written(TranslateOptions()) == {tiny.FORMAL}
    assert written(INFORMAL) == {tiny.INFORMAL}
    assert written(TranslateOptions(beam_size=2, formality="informal")) == {tiny.INFORMAL}


@pytest.mark.parametrize("token_type", [int, str])
def test_tag_and_text_are_cut_as_in_training(
    tagged: Bundle, whole_tokenizer: Any, token_type: type
) -> None:
    engine = Recording(tagged, token_type)
    engine.translate_batch(SENTENCES[:1], INFORMAL)
    engine.translate_batch(SENTENCES[:1], TranslateOptions())
    assert engine.sources == [
        whole_tokenizer.encode(f"{tag} {SENTENCES[0]}", out_type=token_type)
        for tag in ("<informal>", "<formal>")
    ]


def test_the_default_form_is_the_bundles(tagged: Bundle, tmp_path: Path) -> None:
    tags = tiny.TAGS.model_copy(update={"default": "informal"})
    manifest = tagged.manifest.model_copy(update={"formality": tags})
    engine = load_engine(Bundle(tagged.path, manifest))
    assert engine.translate_batch(["dog"], TranslateOptions())[0].text == tiny.INFORMAL
    assert "The form of address is informal unless" in render_card(manifest)


@pytest.mark.parametrize(
    "text",
    [
        "<informal> the old cat.",
        "the<informal>cat <formal>",
        "<informal>",
        "<<informal>>",
        "<formal><informal>",
    ],
)
def test_a_tag_in_a_text_is_text(tagged: Bundle, whole_tokenizer: Any, text: str) -> None:
    tag_ids = {whole_tokenizer.piece_to_id(tag) for tag in ("<formal>", "<informal>")}
    engine = Recording(tagged, int)
    engine.translate_batch([text], FORMAL)
    (source,) = engine.sources
    prefix = whole_tokenizer.encode("<formal>")
    assert source[: len(prefix)] == prefix
    assert not tag_ids & set(source[len(prefix) :])
    assert whole_tokenizer.decode(source[len(prefix) :]) == text
    assert tag_ids & set(whole_tokenizer.encode(text)), "the tokenizer itself cuts at the tag"
    assert engine.count_tokens(text) == len(source) - len(prefix)
    assert engine.unknown_spans(text) == []


@pytest.mark.parametrize("name", ENGINES)
def test_a_tag_in_a_text_asks_for_nothing(tagged: Bundle, name: str) -> None:
    engine = load_engine(tagged, name)
    (one,) = engine.translate_batch(["<informal> the old cat."], TranslateOptions())
    assert one.text != tiny.INFORMAL


def test_other_text_is_cut_as_before(tagged: Bundle, whole_tokenizer: Any) -> None:
    texts = text_tokenizer(tagged, whole_tokenizer)
    size = whole_tokenizer.get_piece_size()
    assert texts.get_piece_size() == size
    assert [texts.id_to_piece(i) for i in range(size)] == [
        whole_tokenizer.id_to_piece(i) for i in range(size)
    ]
    for text in [*tiny.sentences(), "Übung  <b>x</b> formal", "<informa l>", ""]:
        assert texts.encode(text) == whole_tokenizer.encode(text)


def test_the_tag_counts_as_input(tagged: Bundle, whole_tokenizer: Any) -> None:
    engine: Engine = load_engine(tagged)
    tag = len(whole_tokenizer.encode("<formal>"))
    assert engine.max_input_tokens == tagged.manifest.decoding.max_input_tokens - tag
    longest = "dog"
    while engine.count_tokens(longest) < engine.max_input_tokens:
        longest += "%"  # a byte
    assert engine.count_tokens(longest) == engine.max_input_tokens
    assert engine.translate_batch([longest], INFORMAL)[0].text
    with pytest.raises(ValueError, match="split it first"):
        engine.translate_batch([f"{longest}%"], INFORMAL)


@needs_node
def test_the_browser_puts_the_same_tokens_before_the_same_texts(tagged: Bundle) -> None:
    texts = [*SENTENCES, "<informal> the old cat.", "<<formal>>cat", ""]
    forms: list[Formality | None] = [None, "formal", "informal"]
    manifest = json.loads(tagged.manifest.model_dump_json())
    asked = {"model": str(tagged.source_tokenizer_path), "manifest": manifest, "texts": texts}
    found = call("sources", forms=forms, **asked)
    engine = Recording(tagged, int)
    for form, rows in zip(forms, found["ids"], strict=True):
        engine.sources = []
        engine.translate_batch(texts, TranslateOptions(formality=form))
        assert sorted(row for row in rows if row) == sorted(engine.sources)
        assert rows[-1] == []
    assert found["counts"] == [engine.count_tokens(text) for text in texts]
    assert (found["maxTokens"], found["formality"]) == (engine.max_input_tokens, "formal")
    wrong = call("sources", forms=["polite"], **asked)
    assert "cannot be asked for the form of address polite" in wrong["error"]
    asked["manifest"] = {**manifest, "formality": None}
    assert "leave it out" in call("sources", forms=["formal"], **asked)["error"]
    (plain,) = call("sources", forms=[None], **asked)["ids"]
    assert plain[0] == tiny.tokenizer_of(tagged.tokenizer_path).encode(texts[0])
    asked["manifest"] = {**manifest, "source_vocab_size": 7}
    assert "the manifest says 7" in call("sources", forms=[None], **asked)["error"]


@needs_node
def test_the_browser_loads_the_sources_own_tokenizer(tagged: Bundle) -> None:
    manifest = json.loads(tagged.manifest.model_dump_json())
    assert len(call("files", manifest=manifest)) == 2
    own = "source_tokenizer.model"
    files = {**manifest["files"], own: {"bytes": 1, "sha256": "0" * 64}}
    found = call("files", manifest={**manifest, "source_tokenizer": own, "files": files})
    assert [address.rpartition("/")[2] for address in found] == [
        "tokenizer.model", "greedy.onnx.gz", own,
    ]  # fmt: skip


def test_nothing_stays_nothing(tagged: Bundle) -> None:
    assert load_engine(tagged).translate_batch([""], FORMAL)[0].text == ""


def test_a_bundle_without_forms_refuses_them(pristine_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match=r"`formality` is not supported for de.*: leave it out"):
        load_engine(pristine_bundle).translate_batch(["old"], FORMAL)


def test_supported_options(tagged: Bundle, pristine_bundle: Bundle) -> None:
    assert "formality" in load_engine(tagged, "onnx-int8-beam").supported_options
    assert "formality" not in load_engine(pristine_bundle).supported_options
    greedy = tagged.manifest.model_copy(update={"files": {}})
    onnx = tagged.engine("onnx-int8-beam")
    assert greedy.supported_options(onnx) == {"formality"}
    assert "only decodes greedily" in greedy.no_such_option(onnx.name, "beam_size", 2)


def test_older_manifests_have_none_and_newer_ones_are_checked(
    tagged: Bundle, pristine_bundle: Bundle
) -> None:
    def read(bundle: Bundle, **changes: Any) -> Manifest:
        raw = json.loads((bundle.path / "manifest.json").read_text())
        raw = {name: value for name, value in {**raw, **changes}.items() if value != "left out"}
        return parse_manifest(json.dumps(raw).encode(), "manifest.json")

    assert read(pristine_bundle, formality="left out").formality is None
    assert read(tagged).formality == FormalityTags(formal="<formal>", informal="<informal>")
    tags = {"formal": "<formal>", "informal": "<informal>"}
    assert read(tagged, formality=tags).formality == tiny.TAGS
    for wrong in (
        {**tags, "informal": "<formal>"},
        {**tags, "default": "polite"},
        {"formal": "<formal>"},
        {**tags, "formal": ""},
        {**tags, "other": "<other>"},
    ):
        with pytest.raises(BundleError, match="formality"):
            read(tagged, formality=wrong)


def test_a_tokenizer_must_have_the_tags(pristine_bundle: Bundle, tokenizer_path: Path) -> None:
    manifest = pristine_bundle.manifest.model_copy(update={"formality": tiny.TAGS})
    with pytest.raises(BundleError, match=r"does not cut '<formal>' to one piece.*tokenizer\.add"):
        load_engine(Bundle(pristine_bundle.path, manifest))
    tokenizer = tiny.tokenizer_of(tokenizer_path)
    assert not is_one_piece(tokenizer, "<formal>")
    assert not is_one_piece(tokenizer, "")
    assert not is_one_piece(tokenizer, "<unk>")


def test_an_export_without_the_tags_is_refused(tmp_path: Path, tokenizer_path: Path) -> None:
    with pytest.raises(BundleError, match="'<formal>' to one piece"):
        tiny.make_bundle(tmp_path / "tiny", tokenizer_path, formality=tiny.TAGS)
    assert not (tmp_path / "tiny").exists()


def test_an_upgrade_keeps_the_tags(tagged: Bundle, tmp_path: Path) -> None:
    upgraded = upgrade_bundle(tagged.path, tmp_path / "new", ["onnx-int8"])
    assert upgraded.manifest.formality == tiny.TAGS
    (one,) = load_engine(upgraded).translate_batch(["dog"], INFORMAL)
    assert one.text == tiny.INFORMAL

"""Engines: order, batches, bounds, scores."""

from __future__ import annotations

import pytest

from export.bundle import Bundle, BundleError
from export.engines import Engine, TranslateOptions, load_engine
from tests.export import tiny

GREEDY = TranslateOptions()


@pytest.fixture(scope="session")
def tiny_bundle(pristine_bundle: Bundle) -> Bundle:
    return pristine_bundle


@pytest.fixture(scope="session")
def engine(tiny_bundle: Bundle) -> Engine:
    return load_engine(tiny_bundle)


def test_translations_keep_their_order(engine: Engine) -> None:
    sentences = tiny.sentences()[:12]
    together = [t.text for t in engine.translate_batch(sentences, GREEDY)]
    backwards = [t.text for t in engine.translate_batch(sentences[::-1], GREEDY)]
    assert backwards[::-1] == together
    assert len(set(together)) > 6


@pytest.mark.parametrize("options", [GREEDY, TranslateOptions(beam_size=3, return_scores=True)])
def test_what_shares_a_batch_changes_nothing(engine: Engine, options: TranslateOptions) -> None:
    sentences = [*tiny.sentences()[:10], "old", "x"]
    alone = [engine.translate_batch([sentence], options)[0] for sentence in sentences]
    together = engine.translate_batch(sentences, options)
    assert [t.text for t in together] == [t.text for t in alone]
    assert [t.tokens for t in together] == [t.tokens for t in alone]
    if options.return_scores:
        assert [t.score for t in together] == pytest.approx([t.score for t in alone], abs=1e-4)


def test_batches_of_few_tokens_change_nothing(tiny_bundle: Bundle) -> None:
    sentences = tiny.sentences()[:10]
    whole = load_engine(tiny_bundle).translate_batch(sentences, GREEDY)
    small = load_engine(tiny_bundle, max_batch_tokens=64, inter_threads=2)
    assert small.translate_batch(sentences, GREEDY) == whole


def test_nothing_is_truncated_in_silence(engine: Engine) -> None:
    long = " ".join(["street"] * 40)
    assert engine.count_tokens(long) > engine.max_input_tokens
    with pytest.raises(ValueError, match=r"sentence 1 has .* split it first"):
        engine.translate_batch(["old", long], GREEDY)


def test_a_cut_output_is_marked(engine: Engine, tiny_bundle: Bundle) -> None:
    limits = tiny_bundle.manifest.decoding
    for translation in engine.translate_batch(["x", "qqqq", *tiny.sentences()[:4]], GREEDY):
        assert translation.tokens <= limits.max_output_tokens
        assert not translation.truncated or translation.tokens >= limits.max_output_constant


def test_scores_only_when_asked(engine: Engine) -> None:
    assert engine.translate_batch(["old cat."], GREEDY)[0].score is None
    scored = engine.translate_batch(["old cat."], TranslateOptions(return_scores=True))[0]
    assert scored.score is not None
    assert scored.score < 0


def test_both_engines_of_a_bundle_load(tiny_bundle: Bundle) -> None:
    exact = load_engine(tiny_bundle, "ctranslate2-float32")
    assert exact.translate_batch([], GREEDY) == []
    assert exact.translate_batch(["old cat."], GREEDY)[0].text
    with pytest.raises(BundleError, match="choose one of"):
        load_engine(tiny_bundle, "other")

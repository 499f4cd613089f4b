"""Engines: order, batches, bounds, scores."""

from __future__ import annotations

from typing import Any

import pytest

from export.runtime.bundle import Bundle, BundleError
from export.runtime.engines import Engine, TranslateOptions, load_engine, padded_tokens
from export.runtime.engines.base import Decoded, SentenceEngine
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


def test_many_lengths_in_a_batch_change_nothing(engine: Engine) -> None:
    words = tiny.WORDS
    sentences = [
        " ".join(words[(start * 5 + step) % len(words)] for step in range(1 + start % 20))
        for start in range(120)
    ]
    sentences = [s for s in sentences if engine.count_tokens(s) <= engine.max_input_tokens]
    assert len(sentences) > 64
    options = TranslateOptions(return_scores=True)
    alone = [engine.translate_batch([sentence], options)[0] for sentence in sentences]
    for batch in (sentences, sentences[:64]):
        together = engine.translate_batch(batch, options)
        assert [(t.text, t.tokens) for t in together] == [(t.text, t.tokens) for t in alone][
            : len(batch)
        ]
        # to the last bit where a CPU's kernels change at 16 only, but not on all
        scores = [t.score for t in alone[: len(batch)]]
        assert [t.score for t in together] == pytest.approx(scores, abs=0.02)


def test_calls_hold_like_widths_only(tiny_bundle: Bundle) -> None:
    calls: list[tuple[int, set[int]]] = []

    class Recorder(SentenceEngine):
        def decode(
            self, sources: list[list[Any]], limit: int, options: TranslateOptions
        ) -> list[Decoded]:
            calls.append((limit, {len(source) + 1 for source in sources}))
            return [Decoded(source) for source in sources]

    recorder = Recorder(tiny_bundle)
    sentences = [" ".join(["cat"] * count) for count in range(1, 14)]
    assert recorder.count_tokens(sentences[-1]) <= recorder.max_input_tokens
    translations = recorder.translate_batch(sentences, GREEDY)
    assert [t.text for t in translations] == sentences
    assert len(calls) > 1
    for limit, widths in calls:
        assert len({padded_tokens(width - 1) for width in widths}) == 1
        longest = max(widths) - 1
        assert limit >= tiny_bundle.manifest.decoding.output_limit(longest)
        assert {recorder.output_limit(width - 1) for width in widths} == {limit}


def test_widths_change_where_kernels_do() -> None:
    padded = [padded_tokens(width - 1) for width in (1, 7, 8, 9, 10, 11, 12, 15, 16, 23, 24, 25)]
    assert padded == [8, 8, 8, 9, 11, 11, 15, 15, 23, 23, 24, 32]
    assert [padded_tokens(width - 1) for width in (32, 33, 128, 129)] == [32, 40, 128, 136]


def test_alternatives_are_other_texts_best_first(engine: Engine, tiny_bundle: Bundle) -> None:
    sentences = tiny.sentences()[:8]
    options = TranslateOptions(alternatives=3)
    found = engine.translate_batch(sentences, options)
    beam = engine.translate_batch(sentences, TranslateOptions(beam_size=4))
    assert [t.text for t in found] == [t.text for t in beam]
    for translation in found:
        texts = [translation.text, *translation.alternatives]
        assert len(set(texts)) == len(texts)
        assert 1 <= len(translation.alternatives) <= 3
    wider = engine.translate_batch(sentences, TranslateOptions(beam_size=4, alternatives=1))
    assert [t.alternatives for t in wider] == [t.alternatives[:1] for t in found]
    assert all(t.alternatives == () for t in beam)


def test_texts_that_are_the_same_are_one_alternative(tiny_bundle: Bundle) -> None:
    class Doubled(SentenceEngine):
        def decode(
            self, sources: list[list[Any]], limit: int, options: TranslateOptions
        ) -> list[Decoded]:
            cat, old, street = (
                self._tokenizer.encode(word, out_type=str) for word in ("cat", "old", "street")
            )
            return [Decoded(cat, alternatives=([*"▁cat"], old, [], [*"▁old"], street))]

    translation = Doubled(tiny_bundle).translate_batch(["x"], TranslateOptions(alternatives=4))[0]
    assert (translation.text, translation.alternatives) == ("cat", ("old", "street"))


@pytest.mark.parametrize(
    "options",
    [
        TranslateOptions(beam_size=2),
        TranslateOptions(alternatives=1),
        TranslateOptions(repetition_penalty=1.1),
        TranslateOptions(no_repeat_ngram_size=3),
    ],
)
def test_an_engine_refuses_what_it_has_not(tiny_bundle: Bundle, options: TranslateOptions) -> None:
    class Greedy(SentenceEngine):
        @property
        def supported_options(self) -> frozenset[str]:
            return frozenset()

        def decode(
            self, sources: list[list[Any]], limit: int, options: TranslateOptions
        ) -> list[Decoded]:
            return [Decoded(source) for source in sources]

    assert Greedy(tiny_bundle).translate_batch(["cat"], GREEDY)[0].text == "cat"
    with pytest.raises(ValueError, match="leave it out"):
        Greedy(tiny_bundle).translate_batch(["cat"], options)


def test_repetition_can_be_forbidden(engine: Engine) -> None:
    sentences = [f"{word} " * 6 + "." for word in tiny.WORDS] + tiny.sentences()

    def repeats(options: TranslateOptions) -> int:
        texts = [t.text.split() for t in engine.translate_batch(sentences, options)]
        return sum(len(words) - len(set(words)) for words in texts)

    plain = repeats(GREEDY)
    assert plain > 20
    assert repeats(TranslateOptions(no_repeat_ngram_size=1)) < plain / 4
    assert repeats(TranslateOptions(repetition_penalty=5.0)) < plain / 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"alternatives": -1},
        {"repetition_penalty": 0.5},
        {"repetition_penalty": float("nan")},
        {"no_repeat_ngram_size": -1},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: set it to"):
        TranslateOptions(**wrong)

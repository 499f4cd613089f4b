"""The export gate's figures and limits on translations that are given, so that each is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sacrebleu.metrics import BLEU, CHRF

from export import quality_gate as export_gate
from export.exporter import ENGINE_EXPORTERS
from export.quality_gate import EvalSet, GateError, GateSettings, ReferenceModel, check_bundle
from export.runtime.bundle import Bundle, load_tokenizer
from export.runtime.engines import TranslateOptions, Translation, load_engine
from export.runtime.manifest import GateRecord
from training.config.recipe import GateLimits, RecipeError
from training.model.decoding import Hypothesis
from training.model.transformer import EOS

INT8, FLOAT32 = "ctranslate2-int8", "ctranslate2-float32"
RIGHT = ["the old cat sat down", "a dog ran up here"]
HALF = ["the old cat sat down", "no word in common now"]
ANY_LINES = GateLimits(int8_identical=0, float32_identical=0, bleu_loss=100)

Examine = Any


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """The gate on what torch and one engine write of two sentences whose references are RIGHT."""

    def examined(
        torch: Sequence[str],
        engine: Sequence[str | Translation],
        limits: GateLimits = ANY_LINES,
        name: str = INT8,
        scores: Sequence[float] = (-1.0, -2.0),
        ref: Sequence[str] = RIGHT,
        compiled: Sequence[str] | None = None,
        **judged: Any,
    ) -> GateRecord:
        held_out = EvalSet("validation", [f"source {line}" for line in range(len(ref))], ref)

        class Given:
            """An engine that writes what is given, and scores it only if asked to."""

            def __init__(self, texts: Sequence[str | Translation]) -> None:
                self.given = {
                    src: Translation(text, 5) if isinstance(text, str) else text
                    for src, text in zip(held_out.src, texts, strict=True)
                }

            def translate_batch(
                self, sentences: Sequence[str], options: TranslateOptions
            ) -> list[Translation]:
                assert len(sentences) <= export_gate.BATCH_SENTENCES
                assert options == TranslateOptions(return_scores=name == FLOAT32)
                return [self.given[sentence] for sentence in sentences]

        reference = ReferenceModel(held_out, list(torch), list(scores))
        faster = Given(compiled) if compiled is not None else None
        monkeypatch.setattr(export_gate, "load_engine", lambda *_: Given(engine))
        monkeypatch.setattr(export_gate, "compiled_engine", lambda *_: faster)
        monkeypatch.setattr(export_gate, "translate_in_torch", lambda *_: reference)
        bundle = SimpleNamespace(manifest=SimpleNamespace(engines=[ENGINE_EXPORTERS[name].entry]))
        model = cast(Any, None)  # what it would write is given
        return check_bundle(cast(Bundle, bundle), model, GateSettings(held_out, limits, **judged))

    return examined


def test_bleu_by_hand(examined: Examine) -> None:
    """Of 10 words, 8 pairs, 6 triples and 4 quadruples half are the reference's: BLEU 50."""
    gate = examined(RIGHT, HALF)
    (check,) = gate.engines
    assert gate.torch_bleu == 100
    assert (check.bleu, check.bleu_difference) == (50, -50)
    assert check.chrf_difference < 0
    assert (check.identical, check.faults) == (0.5, ())
    assert check.score_difference is None


def test_the_compiled_engine_is_held_to_the_limits_where_it_is_served(examined: Examine) -> None:
    limits = ANY_LINES.model_copy(update={"bleu_loss": 49.0})
    assert examined(RIGHT, RIGHT, limits, compiled=RIGHT).faults == []
    gate = examined(RIGHT, RIGHT, limits, compiled=HALF, force=True)
    (fault,) = gate.faults
    assert fault.startswith(f"{INT8}: by the compiled engine, BLEU 50.0 is 50.00 below torch's")
    assert gate.engines[0].bleu == 100
    with pytest.raises(GateError, match="by the compiled engine"):
        examined(RIGHT, RIGHT, limits, compiled=HALF)


def test_a_loss_of_bleu_up_to_the_limit_passes_and_no_more(examined: Examine) -> None:
    limits = ANY_LINES.model_copy(update={"bleu_loss": 50.0})
    assert examined(RIGHT, HALF, limits).faults == []
    limits = ANY_LINES.model_copy(update={"bleu_loss": 49.9})
    with pytest.raises(GateError, match=r"BLEU 50.0 is 50.00 below torch's .* the limit is 49.9"):
        examined(RIGHT, HALF, limits)


def test_an_engine_better_than_torch_breaks_no_limit_of_bleu(examined: Examine) -> None:
    limits = ANY_LINES.model_copy(update={"bleu_loss": 0.0})
    gate = examined(HALF, RIGHT, limits)
    assert (gate.torch_bleu, gate.engines[0].bleu, gate.engines[0].bleu_difference) == (50, 100, 50)
    assert gate.engines[0].chrf_difference > 0
    assert gate.faults == []


@pytest.mark.parametrize("name", [INT8, FLOAT32])
def test_the_share_of_identical_lines_has_a_limit_for_each_precision(
    examined: Examine, name: str
) -> None:
    field = "float32_identical" if name == FLOAT32 else "int8_identical"
    for least, passes in ((0.5, True), (0.51, False)):
        limits = ANY_LINES.model_copy(update={field: least})
        gate = examined(RIGHT, HALF, limits, name, force=True)
        assert (gate.faults == []) == passes
        assert gate.forced != passes
        if not passes:
            assert gate.faults == [
                f"{name}: 50.0% of the lines are torch's, the limit is 51.0%; "
                f"'source 1' became '{HALF[1]}', with torch '{RIGHT[1]}'"
            ]


def test_the_largest_difference_of_a_score_counts_where_lines_are_whole_and_equal(
    examined: Examine,
) -> None:
    """−1 against −1.25 and −2 against −2.5; a cut line and another text are no measure."""

    def found(*second: Any) -> float | None:
        engine = [Translation(RIGHT[0], 5, -1.25), Translation(*second)]
        return examined(RIGHT, engine, name=FLOAT32, force=True).engines[0].score_difference

    assert found(RIGHT[1], 5, -2.5) == 0.5
    assert found(RIGHT[1], 5, -1.5) == 0.5
    assert found(RIGHT[1], 5, -2.125) == 0.25
    assert found(RIGHT[1], 5, -9.0, True) == 0.25
    assert found(HALF[1], 5, -9.0) == 0.25
    assert found(RIGHT[1], 5, None) == 0.25


@pytest.mark.parametrize(("limit", "passes"), [(0.5, True), (0.4, False)])
def test_the_limit_of_a_score(examined: Examine, limit: float, passes: bool) -> None:
    limits = ANY_LINES.model_copy(update={"score_difference": limit})
    engine = [Translation(text, 5, -1.5) for text in RIGHT]
    gate = examined(RIGHT, engine, limits, FLOAT32, force=True)
    assert (gate.faults == []) == passes
    assert passes or "differs from torch's by 5.0e-01, the limit is 4e-01" in gate.faults[0]


def test_without_a_line_in_common_no_score_is_compared(examined: Examine) -> None:
    gate = examined(RIGHT, HALF[::-1], name=FLOAT32)
    assert gate.engines[0].score_difference is None
    assert gate.engines[0].identical == 0


def test_the_five_worst_lines_are_told_worst_first(examined: Examine) -> None:
    """More than a batch of lines: the further a line is cut, the worse; equal ones are not told."""
    words = ["a", "long", "line", "of", "eight", "words", "is", "here"]
    torch = [" ".join(words)] * 70
    engine = [" ".join(words[: 1 + line % 8]) for line in range(8)] + torch[8:]
    (check,) = examined(torch, engine, scores=[-1.0] * 70, ref=torch).engines
    assert [line.engine for line in check.worst] == engine[:5]
    assert {line.torch for line in check.worst} == {torch[0]}
    assert [line.source for line in check.worst] == [f"source {line}" for line in range(5)]
    expected = [CHRF().sentence_score(text, torch[:1]).score for text in engine[:5]]
    assert [line.chrf for line in check.worst] == [round(score, 1) for score in expected]
    assert math.isclose(check.identical, 63 / 70)


def test_force_is_recorded_only_where_a_limit_is_broken(examined: Examine) -> None:
    assert not examined(RIGHT, RIGHT, force=True).forced
    assert examined(RIGHT, HALF, GateLimits(), force=True).forced


def test_figures_are_rounded_for_readers(examined: Examine) -> None:
    """One word of ten is wrong: figures with many digits, of which a few are told."""
    torch = ["the old cat sat down", "a dog ran up there"]
    engine = ["the old cat sat there", "a dog ran up there"]
    (check,) = examined(torch, engine).engines
    bleu = [BLEU().corpus_score(texts, [RIGHT]).score for texts in (torch, engine)]
    chrf = [CHRF().corpus_score(texts, [RIGHT]).score for texts in (torch, engine)]
    assert check.bleu == round(bleu[1], 2)
    assert check.bleu_difference == round(bleu[1] - bleu[0], 3)
    assert check.chrf_difference == round(chrf[1] - chrf[0], 3)
    assert check.bleu != round(bleu[1], 1)
    assert check.bleu_difference != round(bleu[1] - bleu[0], 2)
    assert check.chrf_difference != round(chrf[1] - chrf[0], 2)
    gate = examined(engine, torch)
    assert gate.torch_bleu == round(bleu[1], 2)
    line = gate.engines[0].worst[0]
    assert line.chrf == round(CHRF().sentence_score(torch[0], engine[:1]).score, 1)


def test_p_values_are_told_with_four_digits(examined: Examine) -> None:
    """Of a few resamples of six lines; two are better, one is worse."""
    ref = [f"line {number} of a text of six" for number in range(6)]
    wrong = [*ref[:4], "no such thing at all here", "nor this thing at all here"]
    engine = ["something else stands here instead now", *ref[1:]]
    (check,) = examined(wrong, engine, scores=[-1.0] * 6, ref=ref).engines
    for p_value in (check.bleu_p, check.chrf_p):
        assert 0 < p_value < 1
        assert p_value == round(p_value, 4) != round(p_value, 3)


# --- held-out text ---------------------------------------------------------------------------


def test_held_out_text_is_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\n\nthree\n")
    (tmp_path / "a.de").write_text("eins\n\ndrei\n")
    held_out = EvalSet.read(tmp_path / "a.en", tmp_path / "a.de")
    assert held_out == EvalSet("a.en", ["one", "", "three"], ["eins", "", "drei"])
    assert held_out.fitting([True, False, True]) == EvalSet(
        "a.en", ["one", "three"], ["eins", "drei"]
    )
    (tmp_path / "a.de").write_text("eins\n")
    with pytest.raises(RecipeError, match=r"a\.en has 3 lines and .*a\.de 1"):
        EvalSet.read(tmp_path / "a.en", tmp_path / "a.de")
    (tmp_path / "a.de").write_bytes(b"eins\n\xff\ndrei\n")
    with pytest.raises(RecipeError, match=r"a\.de: line 2 is not UTF-8"):
        EvalSet.read(tmp_path / "a.en", tmp_path / "a.de")


def test_torch_has_the_limits_of_the_engines(
    pristine_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source of as many tokens as the engine takes is translated, one of a token more is not."""
    engine = load_engine(pristine_bundle)
    longest = "a"
    while engine.count_tokens(f"{longest} a") <= engine.max_input_tokens:
        longest += " a"
    assert engine.count_tokens(longest) == engine.max_input_tokens
    asked: dict[str, Any] = {}

    def given(model: Any, rows: list[list[int]], **options: Any) -> list[Hypothesis]:
        asked.update(options, rows=rows)
        pieces = load_tokenizer(pristine_bundle).encode("the cat")
        return [Hypothesis(pieces, -6.0)] * len(rows)

    monkeypatch.setattr(export_gate, "greedy_corpus", given)
    held_out = EvalSet("x", ["", longest, f"{longest} a", "a"], ["1", "2", "3", "4"])
    reference = export_gate.translate_in_torch(pristine_bundle, cast(Any, None), held_out)
    assert reference.held_out == EvalSet("x", [longest, "a"], ["2", "4"])
    assert [len(row) for row in asked["rows"]] == [
        engine.max_input_tokens + 1,
        engine.count_tokens("a") + 1,
    ]
    assert all(row[-1] == EOS for row in asked["rows"])
    assert [asked["limit_of"](tokens + 1) for tokens in (1, 7)] == [
        engine.output_limit(1),
        engine.output_limit(7),
    ]
    assert asked["min_length"] == 1
    pieces = engine.count_tokens("the cat")
    assert reference.texts == ["the cat"] * 2
    assert reference.scores == [-6.0 / (pieces + 1)] * 2

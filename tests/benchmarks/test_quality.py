"""Scores, comparisons and speeds: known values, signatures and turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plots import draw_evaluation, evaluation_points
from export.metrics import compare, scores

REFERENCES = [f"Der Mann fährt am Tag {n} mit dem Rad durch die Stadt." for n in range(40)]


def test_a_perfect_translation_scores_a_hundred() -> None:
    found = {score.metric: score for score in scores(REFERENCES, REFERENCES)}
    assert found["BLEU"].score == pytest.approx(100)
    assert found["chrF2"].score == pytest.approx(100)
    assert "tok:13a" in found["BLEU"].signature
    assert "case:mixed" in found["BLEU"].signature


def test_bleu_by_hand() -> None:
    """Precisions 4/5, 3/4, 2/3, 1/2 of a six-word line one word short: e^(1 − 6/5)."""
    found = scores(["a b c d x"], ["a b c d e f"])[0]
    precision = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert found.score == pytest.approx(100 * precision * 2.718281828 ** (1 - 6 / 5), abs=0.01)


def test_a_better_system_is_found_better_and_the_same_is_not() -> None:
    worse = [line.replace("Rad", "Auto").replace("Stadt", "Wald") for line in REFERENCES]
    better, same = compare(
        ("worse", worse), [("better", REFERENCES), ("same", list(worse))], REFERENCES
    )
    assert better.difference > 10
    assert better.p_value < 0.05
    assert same.difference == 0
    assert same.p_value > 0.5
    assert compare(("worse", worse), [], REFERENCES) == []


def test_the_picture_shows_what_has_both_figures(tmp_path: Path) -> None:
    row = {"engine": "torch", "precision": "float32", "decoding": "greedy", "dataset": "toy"}
    report = {
        "scores": [
            {**row, "name": "teacher", "metric": "BLEU", "score": 30.0},
            {**row, "name": "teacher", "metric": "chrF2", "score": 50.0},
            {**row, "name": "student", "metric": "BLEU", "score": 29.0},
        ],
        "speed": {
            "systems": [
                {"system": "teacher, torch float32, greedy", "sentences_per_second": 10.0},
                {"system": "unknown", "sentences_per_second": 1.0},
            ]
        },
    }
    assert [point["score"] for point in evaluation_points(report)] == [30.0]
    draw_evaluation(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

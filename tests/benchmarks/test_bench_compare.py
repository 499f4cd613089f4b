"""Two results compared: what is a regression, and what is noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.report import compare_results, ratio_change, render
from benchmarks.results import ResultsError, load_results, save_results
from benchmarks.speed import figure
from quickstudy.cli import app
from tests.benchmarks.bench_results import (
    BAD,
    GOOD,
    REFERENCES,
    STUDENT,
    TEACHER,
    cost,
    latency,
    machine,
    quality,
    results,
    speed,
)

STEADY = [400.0, 404.0, 396.0, 401.0, 399.0]


def test_the_same_results_have_no_regression() -> None:
    found = compare_results(results(), results(), 0.1, 0.5)
    assert len(found.changes) == 2 + 3 + 2 + 1
    assert not found.regressions
    assert not any(one.better for one in found.changes)
    assert "none worse beyond the limit" in render(found)


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        ([value * 0.8 for value in STEADY], True),  # beyond the limit of 10 %
        ([value * 0.95 for value in STEADY], False),  # within it
        ([200.0, 330.0, 340.0, 480.0, 500.0], False),  # slower by 15 %, but it may be noise
        ([value * 2 for value in STEADY], False),
    ],
)
def test_a_slower_system_is_told_from_noise(after: list[float], worse: bool) -> None:
    found = ratio_change("s", "speed", figure(STEADY), figure(after), 0.1, more_is_better=True)
    assert found.worse is worse
    assert found.low <= found.change <= found.high


def test_more_latency_and_memory_are_worse() -> None:
    slow = results(latency=(latency(STUDENT, [3.5, 3.5, 3.6]),), cost=(cost(STUDENT, 90_000_000),))
    found = compare_results(results(), slow, 0.1, 0.5).regressions
    assert [one.figure for one in found] == [
        "p50, ms, 1 thread(s)",
        "p95, ms, 1 thread(s)",
        "MB at most, 1 thread(s)",
    ]
    assert found[2].change == pytest.approx(90 / 80)
    back = compare_results(slow, results(), 0.1, 0.5)
    assert not back.regressions
    assert sum(one.better for one in back.changes) == 3


def test_bleu_is_compared_sentence_by_sentence() -> None:
    """GOOD misses one word in five lines of forty; BAD two words in all."""
    worse = results(quality=(quality(STUDENT, BAD), quality(TEACHER, REFERENCES)))
    (found,) = compare_results(results(), worse, 0.1, 0.5).regressions
    assert (found.system, found.figure) == (STUDENT, "BLEU, toy")
    assert found.high < -10
    one_line = [*BAD[:1], *GOOD[1:]]
    barely = results(quality=(quality(STUDENT, one_line),))
    assert not compare_results(results(), barely, 0.1, 0.5).regressions


def test_another_text_is_not_compared() -> None:
    text = results().texts[0].model_copy(update={"sha256": "cd" * 32})
    other = results(texts=(text,), quality=(quality(STUDENT, BAD),))
    figures = {one.figure for one in compare_results(results(), other, 0.1, 0.5).changes}
    assert "BLEU, toy" not in figures


def test_speeds_of_another_machine_are_left_out() -> None:
    slow = results(machine=machine(processor="Other"), speed=(speed(STUDENT, [1.0, 1.0]),))
    found = compare_results(results(), slow, 0.1, 0.5)
    assert not found.regressions
    assert {one.figure for one in found.changes} == {"BLEU, toy"}
    assert "Another machine" in render(found)


def test_noise_and_versions_are_said_first() -> None:
    noisy = results(machine=machine(noise=("the load was 4.0",), versions={"torch": "3.0"}))
    text = render(compare_results(results(), noisy, 0.1, 0.5))
    assert text.startswith("Noisy after: the load was 4.0.")
    assert "torch: 2.13.0, then 3.0." in text


def test_the_command_exits_with_one_on_a_regression(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    save_results(results(), before)
    save_results(results(speed=(speed(STUDENT, [300.0, 304.0, 296.0]),)), after)
    command = ["bench", "compare", str(before), str(after)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 1
    assert "×0.75" in found.output
    assert CliRunner().invoke(app, [*command, "--limit", "30"]).exit_code == 0


def test_results_without_a_common_figure_are_no_success(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    save_results(results(), before)
    save_results(results(quality=(), speed=(), latency=(), cost=()), after)
    found = CliRunner().invoke(app, ["bench", "compare", str(before), str(after)])
    assert found.exit_code == 2
    assert "no figure in common" in found.output
    assert "none worse" not in found.output


@pytest.mark.parametrize("content", ["{}", "no json", '{"format_version": 99}'])
def test_a_file_that_is_no_results_is_refused_with_advice(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ResultsError, match="measure again"):
        load_results(tmp_path / "x.json")
    with pytest.raises(ResultsError, match="cannot be read"):
        load_results(tmp_path / "none.json")


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    save_results(results(), tmp_path / "x" / "a.json")
    assert load_results(tmp_path / "x" / "a.json") == results()

"""What a run's benchmark measures: its teacher, every student that it trained, its engines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.bench.plan import Plan, Request, plan_run
from benchmarks.bench.run import reference_of
from tests.benchmarks.made_run import BASELINES, make_run
from training.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("made"))[1]


@pytest.fixture(scope="module")
def plan(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_run(run, Request(), tmp_path_factory.mktemp("bench"))


def test_the_teacher_and_every_student_that_was_trained_are_scored(plan: Plan) -> None:
    in_torch = [one.info for one in plan.systems if one.info.engine == "torch"]
    assert Counter((one.role, one.beam_size) for one in in_torch) == {
        ("teacher", 1): 1,
        ("teacher", 5): 1,
        ("student", 1): 1,
        ("baseline", 1): len(BASELINES),
    }
    assert {one.name for one in in_torch} >= {f"{name} torch" for name in BASELINES}
    assert all(one.scored and (one.source, one.target) == ("en", "de") for one in in_torch)
    assert reference_of(plan) == "teacher torch beam 5"


def test_every_engine_has_greedy_and_beams(plan: Plan) -> None:
    own = [one.info for one in plan.systems if one.info.name.startswith("student ctranslate2")]
    assert Counter(one.beam_size for one in own) == {1: 2, 2: 2, 5: 2}
    assert plan.main == "student ctranslate2-int8"


def test_the_test_sets_of_the_recipe_are_the_texts(plan: Plan, run: Run) -> None:
    assert [text.name for text in plan.texts] == list(run.recipe.corpus.test) == ["toy"]


def test_a_student_that_was_not_trained_is_said(tmp_path: Path) -> None:
    _, run = make_run(tmp_path)
    run.student_folder("token").rename(tmp_path / "elsewhere")
    found = plan_run(run, Request(beams=(1,)), tmp_path / "bench")
    assert "token torch" not in {one.info.name for one in found.systems}
    assert [one.name for one in found.skipped] == ["token torch"]
    assert "no checkpoint at" in found.skipped[0].reason

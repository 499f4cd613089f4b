"""What a run's benchmark measures: its teacher, every student that it trained, its engines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.plan import BenchPlan, BenchRequest, DomainFiles, plan_bundle, plan_run
from benchmarks.results import ResultsError
from benchmarks.run import reference_of
from benchmarks.systems.base import WHOLE
from benchmarks.systems.ours import SHIPPED, TorchCheckpoint, bundle_systems
from benchmarks.systems.process import from_json, to_json
from export.ctranslate2 import from_ctranslate2
from export.exporter import weights_of
from export.runtime.bundle import load_bundle
from export.runtime.native.library import build_files
from tests.benchmarks.made_run import BASELINES, make_run
from tests.export import tiny
from training.checkpoint import load_checkpoint
from training.data.tokenizer import Tokenizer
from training.model.decoding import greedy_corpus
from training.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("made"))[1]


@pytest.fixture(scope="module")
def plan(run: Run, tmp_path_factory: pytest.TempPathFactory) -> BenchPlan:
    return plan_run(run, BenchRequest(), tmp_path_factory.mktemp("bench"))


def test_the_teacher_and_every_student_that_was_trained_are_scored(plan: BenchPlan) -> None:
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


def test_every_engine_has_greedy_and_beams(plan: BenchPlan) -> None:
    own = [one.info for one in plan.systems if one.info.name.startswith("student ctranslate2")]
    library = [one for one in own if one.engine == "CTranslate2"]
    assert Counter(one.beam_size for one in library) == {1: 2, 2: 2, 5: 2}


def test_what_the_service_translates_with_is_what_ships(
    plan: BenchPlan, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiled engine, or the library where that one was not built."""
    built = any(path.is_file() for path in build_files())
    assert plan.main == f"student ctranslate2-int8{' compiled' if built else ''}"
    assert [one.info.name for one in plan.systems if one.info.note == SHIPPED] == [plan.main]
    monkeypatch.setattr("export.runtime.engines.compiled_engine", lambda *_: None)
    without = plan_run(run, BenchRequest(beams=(1,)), tmp_path)
    assert without.main == "student ctranslate2-int8"


@pytest.mark.parametrize("beams", [(1, 2, 5), (2,)])
def test_a_bundle_ships_with_its_own_beam(run: Run, beams: tuple[int, ...]) -> None:
    bundle = load_bundle(run.bundle)
    manifest = bundle.manifest
    decoding = manifest.decoding.model_copy(update={"beam_size": 2})
    wide = replace(bundle, manifest=manifest.model_copy(update={"decoding": decoding}))
    shipped = [
        one.info for one in bundle_systems(wide, beams, compiled=True) if one.info.note == SHIPPED
    ]
    assert [one.beam_size for one in shipped] == [2]


def test_beams_without_what_ships_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="--beams must name 1 or"):
        plan_bundle(run.bundle, BenchRequest(beams=(2,)), tmp_path)


def test_the_test_sets_of_the_recipe_are_the_texts(plan: BenchPlan, run: Run) -> None:
    assert [text.name for text in plan.texts] == list(run.recipe.corpus.test) == ["toy"]


def test_domains_come_after_the_test_sets_of_the_recipe(run: Run, tmp_path: Path) -> None:
    law = tmp_path / "law"
    law.write_text("a man rides.\n")
    request = BenchRequest(beams=(1,), domains=(DomainFiles("law", law, law),))
    texts = plan_run(run, request, tmp_path / "bench").texts
    assert [(text.name, text.domain) for text in texts] == [("toy", False), ("law", True)]
    with pytest.raises(ResultsError, match="--domain toy: there is another test set"):
        plan_run(run, BenchRequest(domains=(DomainFiles("toy", law, law),)), tmp_path / "bench")


def test_a_student_that_was_not_trained_is_said(tmp_path: Path) -> None:
    _, run = make_run(tmp_path)
    run.student_folder("token").rename(tmp_path / "elsewhere")
    found = plan_run(run, BenchRequest(beams=(1,)), tmp_path / "bench")
    assert "token torch" not in {one.info.name for one in found.systems}
    assert [one.name for one in found.skipped] == ["token torch"]
    assert "no checkpoint at" in found.skipped[0].reason


def test_students_of_other_runs_are_scored_beside_it(run: Run, tmp_path: Path) -> None:
    other = run.student_folder("student") / "checkpoint"
    request = BenchRequest(beams=(1,), baselines={"former": other})
    (found,) = [
        one for one in plan_run(run, request, tmp_path).systems if one.info.name == "former torch"
    ]
    assert found.info.role == "baseline"
    for name in ("student", "nll", "teacher"):
        with pytest.raises(ResultsError, match=f"--baseline {name}: the run has one of that name"):
            plan_run(run, replace(request, baselines={name: other}), tmp_path)


def test_other_bundles_run_on_their_own_engines_beside_it(run: Run, tmp_path: Path) -> None:
    request = BenchRequest(beams=(1, 2), baselines={"firefox": run.bundle})
    systems = [
        system
        for system in plan_run(run, request, tmp_path).systems
        if system.info.name.startswith("firefox ")
    ]
    engines = load_bundle(run.bundle).manifest.engines
    names = [system.info.name for system in systems if "compiled" not in system.info.name]
    assert names == [f"firefox {e.name}" for e in engines]
    assert {system.info.role for system in systems} == {"baseline"}


def test_the_compiled_engine_stands_beside_the_library_of_its_file(plan: BenchPlan) -> None:
    if not any(path.is_file() for path in build_files()):
        pytest.skip("the compiled engine is not built")
    systems = {one.info.name: one for one in plan.systems}
    library, compiled = (systems[f"student ctranslate2-int8{more}"] for more in ("", " compiled"))
    assert (compiled.info.engine, compiled.info.beam_size) == ("Quickstudy native", 1)
    assert compiled.info.bytes == library.info.bytes
    copy = from_json(to_json(compiled))
    assert copy == compiled, "it can be sent to its process"
    copy.load(1)
    assert copy.translate(["A man rides."], 1) == [copy.translate(["A man rides."], WHOLE)[0]]
    assert "compiled" not in library.info.name
    copy.close()


def test_a_bundle_runs_in_torch_by_its_own_weights(run: Run, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("\n".join(tiny.sentences()[:6]) + "\n")
    request = BenchRequest(beams=(1,), src=texts, ref=texts)
    plan = plan_bundle(run.bundle, request, tmp_path)
    (system,) = [one for one in plan.systems if one.info.engine == "torch"]
    assert isinstance(system, TorchCheckpoint)
    assert (system.info.name, system.info.role) == ("student torch", "student")
    assert system.info.note == "the weights of the bundle, in float32"
    trained = run.student_folder("student") / "checkpoint"
    assert load_checkpoint(system.checkpoint).config == load_checkpoint(trained).config
    system.load(1)
    tokenizer = Tokenizer(plan.bundle.tokenizer_path)
    ids = tokenizer.encode(plan.texts[0].sources)
    found = greedy_corpus(from_ctranslate2(weights_of(plan.bundle)), ids)
    expected = tokenizer.decode([one.ids for one in found])
    assert system.translate(plan.texts[0].sources, 64) == expected
    named = plan_bundle(run.bundle, replace(request, student=trained), tmp_path)
    assert [one.info.note for one in named.systems if one.info.engine == "torch"] == [""]

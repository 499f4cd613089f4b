"""Stages: the whole loop on the toy corpus, what is skipped, and what is made again."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.runtime.bundle import load_bundle
from quickstudy.pipeline import _check_teacher, build_stages
from tests.training.distill.tiny_teachers import make_checkpoint, our_tokenizer
from training.checkpoint import load_checkpoint
from training.config.io import load_recipe
from training.config.losses import (
    ConstantGateConfig,
    HybridObjective,
    NllObjective,
    SentenceObjective,
)
from training.config.recipe import LabelsConfig, RecipeError
from training.data.dataset import map_table
from training.distill.label_store import LabelStore
from training.distributed import only_one
from training.run import Run, public_recipe
from training.stage import fingerprint_of, is_done, run_stage

ROOT = Path(__file__).parents[2]
# A model of twelve steps does not end its sentences: few and short ones keep its decoding quick.
SMALL = [
    "corpus.train=[{src: train.en, trg: train.de, limit: 600}]",
    "corpus.validation.limit=40",
    "corpus.test.toy.limit=40",
    "corpus.shard_pairs=250",
    "corpus.clean.max_chars=200",
    "tokenizer.vocab_size=400",
    "export.version=2026-11",
    *(
        f"{who}.{field}"
        for who in ("teacher", "student")
        for field in (
            "model.width=16",
            "model.heads=2",
            "model.ffn=32",
            "model.encoder_layers=1",
            "model.decoder_layers=1",
            "training.max_steps=12",
            "training.validate_every=6",
            "training.validation_pairs=8",
            "training.log_every=3",
            "training.processes=1",
        )
    ),
]


def small_run(folder: Path, *more: str) -> Run:
    recipe = load_recipe(ROOT / "recipes" / "tiny.yaml", [*SMALL, *more])
    return Run(recipe, folder / "tiny", label_anyway=True)


def run_all(run: Run) -> dict[str, bool]:
    stages = build_stages(run)
    return {name: run_stage(stage, stages) for name, stage in stages.items()}


@pytest.fixture(scope="module", autouse=True)
def quick_evaluation() -> Iterator[None]:
    """Few timings; one thread, since threads that share tiny matrices mostly wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.evaluate.usable_cores", lambda: 1)
        patch.setattr("benchmarks.evaluate.ROUNDS", 2)
        patch.setattr("benchmarks.evaluate.SPEED_SENTENCES", 8)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run of the tiny recipe with a still smaller model."""
    run = small_run(tmp_path_factory.mktemp("runs"))
    assert all(run_all(run).values())
    return run


@pytest.fixture
def copy(done: Run, tmp_path: Path) -> Run:
    shutil.copytree(done.folder, tmp_path / "tiny")
    return small_run(tmp_path)


@pytest.mark.slow
def test_the_whole_loop_leaves_a_bundle_and_its_scores(done: Run) -> None:
    bundle = load_bundle(done.bundle)
    assert bundle.manifest.version == "2026-11"
    assert [engine.name for engine in bundle.manifest.engines] == [
        "ctranslate2-int8",
        "ctranslate2-float32",
    ]
    report = json.loads((done.folder / "evaluation" / "evaluation.json").read_text())
    measured = {(row["name"], row["engine"], row["metric"]) for row in report["scores"]}
    for system in ("teacher", "student", "nll"):
        assert (system, "torch", "BLEU") in measured
    assert all("version:" in row["signature"] for row in report["scores"])
    assert {metric.metric for metric in bundle.manifest.metrics} == {"BLEU", "chrF2"}
    assert report["speed"]["times_the_teacher"]
    gate = json.loads((done.folder / "student" / "gate.json").read_text())
    assert gate["by_source_length"]
    for axis in ("source_length", "teacher_entropy", "target_rarity"):
        found = gate["difficulty"][axis]
        assert all(-1 <= found[what]["correlation"] <= 1 for what in ("gate", "advantage"))
        assert found["advantage"]["low"] < found["advantage"]["high"]
    assert gate["gain"]["sentence"] != gate["gain"]["token"]
    assert (done.folder / "student" / "gate.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_second_time_everything_is_skipped(copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert not any(run_all(copy).values())
    said = capsys.readouterr().err
    for name in build_stages(copy):
        assert f"{name}: already done with the same inputs, skipped" in said


@pytest.mark.slow
def test_a_change_makes_again_what_follows_from_it(copy: Run) -> None:
    stages = build_stages(small_run(copy.folder.parent, "labels.top_k=4"))
    last = stages.pop("evaluate")
    again = {name for name, stage in stages.items() if run_stage(stage, stages)}
    assert again == {"label", "student", "export"}
    assert not is_done(last, stages)
    assert (copy.folder / "labels.previous" / "labels.json").exists()


@pytest.mark.slow
def test_a_taught_student_goes_on_by_minimum_risk(copy: Run) -> None:
    taught = copy.folder.parent / "taught"
    shutil.copytree(copy.student_folder("student") / "checkpoint", taught)
    run = small_run(
        copy.folder.parent,
        f"student.start={{checkpoint: {taught}}}",
        "student.objective={kind: risk, samples: 3}",
    )
    stages = build_stages(run)
    assert run_stage(stages["student"], stages)
    log = (run.student_folder("student") / "log.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in log if "risk" in line][-1]
    assert last["step"] == 12
    assert 0 < last["risk"] < 1
    assert 0 <= last["reward"] < 1
    before, after = (
        load_checkpoint(folder).model.state_dict()
        for folder in (taught, run.student_folder("student") / "checkpoint")
    )
    assert not torch.equal(before["output_bias"], after["output_bias"])


@pytest.mark.slow
def test_lost_results_are_made_again(copy: Run) -> None:
    stages = build_stages(copy)
    copy.tokenizer.unlink()
    assert not is_done(stages["tokenize"], stages)
    assert not is_done(stages["evaluate"], stages)
    assert run_stage(stages["tokenize"], stages)
    assert is_done(stages["evaluate"], stages), "the same was made, so what follows stays"


@pytest.mark.slow
def test_public_recipe_has_no_paths_of_the_machine(done: Run) -> None:
    shipped = (done.bundle / "recipe.yaml").read_text()
    assert str(ROOT) not in shipped
    assert public_recipe(shipped) == shipped


@pytest.mark.slow
def test_text_without_references_is_labelled_and_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = "[{src: train.en, trg: train.de, limit: 300}, {src: train.en, trg: null, limit: 500}]"
    objective = "student.objective={kind: token, path: reference, kd_rate: 0.5}"
    paths = "labels.paths=[hypothesis, reference]"
    run = small_run(tmp_path, f"corpus.train={sources}", objective, paths, "baselines={}")
    stages = build_stages(run)
    for name in ("prepare", "tokenize", "teacher", "label", "student"):
        assert run_stage(stages[name], stages)
    report = json.loads((run.folder / "corpus" / "report.json").read_text())
    parallel, alone = report["sources"]
    assert alone["kept"] > 100
    assert alone["dropped"]["duplicate"] >= parallel["kept"]
    said = capsys.readouterr().err
    assert f"of which {alone['kept']} without a reference" in said
    taught = {"teacher": parallel["kept"], "student": parallel["kept"] + alone["kept"]}
    for name, pairs in taught.items():
        assert re.search(rf"{name}: [\d,]+ parameters, {pairs} pairs", said)


@pytest.mark.slow
def test_on_policy_rounds_need_no_references(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = "[{src: train.en, trg: train.de, limit: 300}, {src: train.en, trg: null, limit: 500}]"
    objective = "student.objective={kind: on-policy, rounds: 2, share: 0.5}"
    run = small_run(tmp_path, f"corpus.train={sources}", objective, "baselines={}")
    stages = build_stages(run)
    for name in ("prepare", "tokenize", "teacher", "label", "student"):
        assert run_stage(stages[name], stages)
    said = capsys.readouterr().err
    assert "student: round 2 labelled" in said
    alone = json.loads((run.folder / "corpus" / "report.json").read_text())["sources"][1]["kept"]
    assert re.search(r"round 1: (\d+) of \1 pairs", said)
    assert f"of which {alone} without a reference" in said
    log = (run.student_folder("student") / "log.jsonl").read_text()
    steps = [line["step"] for line in map(json.loads, log.splitlines()) if "own_loss" in line]
    assert steps == [6, 9, 12]
    assert is_done(stages["student"], stages)


def test_missing_text_says_where_it_was_sought(tmp_path: Path) -> None:
    run = Run(load_recipe(ROOT / "recipes" / "tiny.yaml", data=tmp_path), tmp_path / "run")
    stages = build_stages(run)
    with pytest.raises(RecipeError, match=r"train\.en: cannot be read"):
        run_stage(stages["prepare"], stages)


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    stages = build_stages(run)
    with (
        only_one(stages["prepare"].folder),
        pytest.raises(RecipeError, match="another process is at work"),
    ):
        run_stage(stages["prepare"], stages)


def test_force_on_a_stage_never_made_makes_it(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    stages = build_stages(run)
    assert run_stage(stages["prepare"], stages, force=True)
    assert is_done(stages["prepare"], stages)
    assert run_stage(stages["prepare"], stages, force=True)
    assert (run.folder / "corpus.previous" / "report.json").exists()


IN_EVERY_PROCESS = """
import sys
from quickstudy import cli

arguments = sys.argv[1:]
for stage in ("prepare", "tokenize", "teacher", "teacher"):
    sys.argv[1:] = [stage, *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_torchrun_trains_with_all_its_processes(tmp_path: Path) -> None:
    """As on several machines: every process runs the same commands, the first does the rest."""
    script = tmp_path / "stages.py"
    script.write_text(IN_EVERY_PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), str(script)]
    recipe = str(ROOT / "recipes" / "tiny.yaml")
    options = ["--runs", str(tmp_path), *(word for one in SMALL for word in ("--set", one))]
    done = subprocess.run(
        [*command, recipe, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "tiny/teacher/checkpoint/checkpoint.json").read_text())
    assert about["metrics"]["processes"] == 2
    for stage in ("prepare", "tokenize", "teacher"):
        assert done.stderr.count(f"{stage}: →") == 1
    assert done.stderr.count("skipped") == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_default_is_not_part_of_what_a_result_depends_on() -> None:
    assert fingerprint_of(NllObjective()) == {"kind": "nll"}
    assert fingerprint_of(SentenceObjective(label_smoothing=0.2)) == {
        "kind": "sentence",
        "label_smoothing": 0.2,
    }
    gated = HybridObjective(gate=ConstantGateConfig(value=0.3))
    assert fingerprint_of(gated)["gate"] == {"kind": "constant", "value": 0.3}
    assert fingerprint_of(
        LabelsConfig(batch_tokens=64, paths=["reference"]), ("batch_tokens",)
    ) == {"paths": ["reference"]}


@pytest.fixture(scope="module")
def given_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its tokenizer, as another run left them."""
    folder = tmp_path_factory.mktemp("given")
    tokenizer = our_tokenizer(folder / "spm.model")
    return make_checkpoint(folder / "checkpoint", tokenizer)


def given_run(folder: Path, teacher: Path, *more: str) -> Run:
    """The tiny recipe without training of a teacher."""
    sets = [
        f"teacher={{kind: checkpoint, path: {teacher}}}",
        "student.model={width: 16, heads: 2, ffn: 32, encoder_layers: 1, decoder_layers: 1}",
        "student.model.max_length=64",
        "export.max_input_tokens=32",
        *(one for one in SMALL if one.startswith("student.training")),
        "corpus.train=[{src: val.en, trg: val.de}]",
        "corpus.validation.limit=40",
        "corpus.test.toy.limit=40",
        "corpus.clean.drop_overlap=false",
        "baselines={}",
        *more,
    ]
    return Run(load_recipe(ROOT / "recipes" / "tiny.yaml", sets), folder / "given")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_given_teacher_teaches_in_its_own_tokens(tmp_path: Path, given_teacher: Path) -> None:
    # A student of twelve steps writes nonsense, and rounding changes nonsense a lot.
    lenient = ("tokenizer={kind: teacher}", "export.gate.int8_identical=0")
    run = given_run(tmp_path, given_teacher, *lenient)
    assert set(run_all(run)) == {"prepare", "tokenize", "label", "student", "export", "evaluate"}
    assert run.tokenizer.read_bytes() == (given_teacher / "tokenizer.model").read_bytes()
    assert not any(run_all(run).values())
    report = json.loads((run.folder / "evaluation" / "evaluation.json").read_text())
    teachers = {row["engine"] for row in report["scores"] if row["name"] == "teacher"}
    assert teachers == {"torch", "CTranslate2"}
    copied = tmp_path / "copied"
    shutil.copytree(given_teacher, copied)
    moved = given_run(tmp_path, copied, *lenient)
    assert is_done(build_stages(moved)["label"], build_stages(moved))
    about = json.loads((copied / "checkpoint.json").read_text())
    (copied / "checkpoint.json").write_text(json.dumps({**about, "metrics": {"other": 1}}))
    assert not is_done(build_stages(moved)["label"], build_stages(moved))
    assert is_done(build_stages(moved)["tokenize"], build_stages(moved))


def with_bleu(checkpoint: Path, bleu: float | None) -> None:
    path = checkpoint / "checkpoint.json"
    metrics = {} if bleu is None else {"validation_bleu": bleu}
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": metrics}))


def test_a_teacher_that_translates_nothing_is_not_asked(
    tmp_path: Path, given_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given or trained; where there is a figure that says so."""
    copied = shutil.copytree(given_teacher, tmp_path / "copied")
    given = given_run(tmp_path, copied, "tokenizer={kind: teacher}")
    trained = replace(small_run(tmp_path), label_anyway=False)
    shutil.copytree(given_teacher, trained.teacher)
    for run, checkpoint, place in ((given, copied, "teacher"), (trained, trained.teacher, "log")):
        with_bleu(checkpoint, 0.42)
        with pytest.raises(RecipeError, match=rf"BLEU is 0\.42.*{place}.*--force"):
            _check_teacher(run)
        _check_teacher(replace(run, label_anyway=True))
        assert "asked all the same" in capsys.readouterr().err
        corpus = run.recipe.corpus.model_copy(update={"trg_lang": "zh-Hans"})
        _check_teacher(replace(run, recipe=run.recipe.model_copy(update={"corpus": corpus})))
        for enough in (1.0, 30.0, None):
            with_bleu(checkpoint, enough)
            _check_teacher(run)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_weak_teacher_stops_the_label_stage(tmp_path: Path, given_teacher: Path) -> None:
    copied = shutil.copytree(given_teacher, tmp_path / "copied")
    with_bleu(copied, 0.0)
    run = given_run(tmp_path, copied, "tokenizer={kind: teacher}")
    stages = build_stages(run)
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)
    with pytest.raises(RecipeError, match="translates next to nothing"):
        run_stage(stages["label"], stages)
    assert not list(run.labels.glob("*.arrow"))
    forced = build_stages(replace(run, label_anyway=True))
    assert run_stage(forced["label"], forced)


@pytest.mark.slow
def test_a_teacher_of_other_tokens_labels_sentences(tmp_path: Path, given_teacher: Path) -> None:
    run = given_run(
        tmp_path,
        given_teacher,
        "tokenizer.vocab_size=330",
        "student.objective={kind: sentence}",
        "student.start=random",
    )
    stages = build_stages(run)
    for name in ("prepare", "tokenize", "label"):
        run_stage(stages[name], stages)
    store = LabelStore(run.labels)
    assert store.paths == []
    assert store.hypotheses.lengths.max() < 64
    assert len(store) == sum(len(map_table(path)) for path in run.token_shards)

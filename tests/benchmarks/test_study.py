"""A study: what it refuses, what it resumes, what its report says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.study.axes import noise_axes
from benchmarks.study.config import Cell, StudyError, load_study, load_text
from benchmarks.study.forced import forced_outputs
from benchmarks.study.gate_tables import gate_tables
from benchmarks.study.report import compare_groups, findings, write_report
from benchmarks.study.run import StudyBench, read_rows, run_study
from benchmarks.study.table import Setting, StudyTable, mean_of
from export.metrics import pack
from training.config.recipe import RecipeError
from training.model.transformer import BOS, EOS, PAD, UNK, Transformer

ROOT = Path(__file__).parents[2]
SIZE = {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1}
TRAINING = {
    "batch_tokens": 256,
    "max_steps": 20,
    "validate_every": 10,
    "validation_pairs": 8,
    "processes": 1,
}
STUDY = {
    "name": "small",
    "recipe": "recipe.yaml",
    "methods": {"sentence": {"kind": "sentence"}, "token": {"kind": "token", "path": "hypothesis"}},
    "grid": [{"methods": "all", "seeds": [1]}],
    "beams": [1, 2, 0],
}


def write(folder: Path, **changes: object) -> Path:
    """A small recipe and a study on it, in a folder."""
    recipe = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text())
    corpus = recipe["corpus"]
    corpus["root"] = str(ROOT / "recipes" / "tiny")
    corpus["train"][0]["limit"] = 200
    corpus["validation"]["limit"] = corpus["test"]["toy"]["limit"] = 12
    recipe["tokenizer"]["vocab_size"] = 330
    for who in ("teacher", "student"):
        recipe[who].update(model=dict(SIZE), training=dict(TRAINING))
    recipe["student"]["start"] = "random"
    recipe["baselines"] = {}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def bench_of(path: Path) -> StudyBench:
    return StudyBench(load_study(path), path, None, path.parent / "runs", force=True)


def test_faults_are_told_at_once(tmp_path: Path) -> None:
    grid = [{"methods": ["magic"], "students": ["giant"]}, {"texts": ["moon"]}]
    path = write(tmp_path, grid=grid, baselines=["nothing"])
    with pytest.raises(StudyError) as error:
        load_study(path)
    for word in ("magic", "giant", "moon", "nothing"):
        assert word in str(error.value)
    with pytest.raises(StudyError, match="colour"):
        load_study(write(tmp_path, colour="blue"))
    with pytest.raises(StudyError, match=r"grid\.0\.seed: .* did you mean `seeds`"):
        load_study(write(tmp_path, grid=[{"seed": [1]}]))
    with pytest.raises(StudyError, match="no such study"):
        load_study(tmp_path / "none.yaml")


def test_what_a_method_needs_of_the_labels_is_checked_first(tmp_path: Path) -> None:
    methods = {"token": {"kind": "token", "path": "reference"}}
    path = write(tmp_path, methods=methods, baselines=[])
    with pytest.raises(StudyError, match=r"labels\.paths"):
        load_text(load_study(path), path, "recipe", None)


def test_a_method_for_taught_students_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, methods={"risk": {"kind": "risk"}}, baselines=[])
    with pytest.raises(StudyError, match="which start at random"):
        load_text(load_study(path), path, "recipe", None)


def test_grid_has_every_cell_once_in_order(tmp_path: Path) -> None:
    grid = [{"methods": ["token"]}, {"methods": "all", "seeds": [1, 2]}]
    cells = load_study(write(tmp_path, grid=grid)).cells()
    assert [cell[2:] for cell in cells] == [
        ("token", 1),
        ("sentence", 1),
        ("sentence", 2),
        ("token", 2),
    ]


@pytest.mark.thorough
@pytest.mark.slow
def test_a_study_stops_in_time_and_goes_on(tmp_path: Path) -> None:
    bench = bench_of(write(tmp_path))
    out = tmp_path / "out"
    assert not run_study(bench, out, max_minutes=0)
    assert [row["method"] for row in read_rows(out / "results.jsonl")] == ["teacher"]
    assert run_study(bench, out, jobs=2)
    rows = read_rows(out / "results.jsonl")
    assert [row["method"] for row in rows] == ["teacher", "sentence", "token"]
    test = rows[1]["tests"]["toy"]
    assert test["sentences"] == 12
    assert test["beam1"]["BLEU"] >= 0
    assert "refs:1" in test["beam2"]["signatures"][0]
    assert 0 <= test["beam0"]["accuracy"] <= 1
    before = (out / "results.jsonl").read_bytes()
    assert run_study(bench, out)
    assert (out / "results.jsonl").read_bytes() == before
    shutil.rmtree(tmp_path / "runs" / "tiny" / "study")
    assert run_study(bench, out), "rows of a results file need no training"
    assert len(read_rows(out / "results.jsonl")) == 3
    assert not list((tmp_path / "runs" / "tiny" / "study").glob("*/checkpoint"))
    assert "2 of 2 students" in write_report(bench.study, out).read_text()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_killed_study_leaves_no_process_and_is_resumed(tmp_path: Path) -> None:
    path = write(tmp_path, grid=[{"methods": ["token"]}], beams=[1])
    slow = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    slow["student"]["training"].update(max_steps=150, checkpoint_minutes=0.01, validate_every=75)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(slow))
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = [sys.executable, "-m", "quickstudy", "study", str(path)]
    command += ["--runs", str(runs), "--out", str(out), "--force"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    folder = runs / "tiny" / "study" / "recipe.token.1"
    wait_for(lambda: list(folder.glob("resume-*")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.0)
    log = folder / "log.jsonl"
    size = log.stat().st_size
    time.sleep(1.0)
    assert log.stat().st_size == size
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert "resumed at step" in folder.with_name("recipe.token.1.log").read_text()
    assert [row["method"] for row in read_rows(out / "results.jsonl")] == ["teacher", "token"]


def wait_for(condition: Any, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.05)


# --- the report, on rows made up by hand ---------------------------------------------------------


def row(method: str, matched: int, seed: int = 1, student: str = "recipe", size: int = 1) -> Any:
    """Thirty sentences of ten words, of which `matched` words are right."""
    counts = [10, 10, *(max(matched - order, 0) for order in range(4))]
    statistics = np.array([counts] * 30)
    statistics[::3, 2] += 1
    thirds = np.arange(30) // 10
    beam = {"BLEU": 1.0, "chrF2": 2.0, "signatures": ["b", "c"], "statistics": pack(statistics)}
    return {
        "study": "small",
        "text": "recipe",
        "student": student,
        "method": method,
        "seed": seed,
        "model": SIZE,
        "training": {"max_steps": None, "max_minutes": 5, "clock": "cpu"},
        "parameters": size * 1_000_000,
        "validation_bleu": 30.0,
        "steps": 1000 * seed,
        "seconds": 300.0,
        "labels": "x",
        "gate": None,
        "precision": "32-true",
        "machine": {"ctranslate2": "4", "torch": "2", "processor": "p"},
        "tests": {"toy": {"buckets": pack(np.stack([thirds, thirds], 1)), "beam1": beam}},
    }


def seeds(method: str, matched: tuple[int, ...], **options: Any) -> list[Any]:
    return [row(method, n, seed, **options) for seed, n in enumerate(matched, start=1)]


def said_of(folder: Path, rows: list[Any], **changes: Any) -> str:
    study, table = load_study(write(folder, **changes)), StudyTable(rows)
    return "\n".join(findings(study, table, compare_groups(study, table)))


def reported(folder: Path, rows: list[Any], **changes: Any) -> list[str]:
    """Lines of the report."""
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return write_report(load_study(write(folder, **changes)), folder).read_text().splitlines()


def test_report_says_what_holds(tmp_path: Path) -> None:
    rows = seeds("nll", (4, 4, 4)) + seeds("sentence", (5, 5, 5)) + seeds("token", (6, 6, 6))
    rows += seeds("hybrid", (8, 8, 8)) + seeds("tie", (7,))
    for method in ("sentence", "token"):
        rows += seeds(method, (5, 5, 5), student="small", size=0)
    said = said_of(tmp_path, rows)
    assert "- The recipe's student, greedy: `hybrid` beats all of" in said
    assert "all of `sentence`, `token` and `nll` (1 more of one seed)." in said
    assert "| `hybrid` | The recipe's student, greedy, toy | `sentence`, `token`, `nll` |" in said
    assert "7 of the 10 comparisons have several" in said
    assert "Along larger students (simpler), token-level gains more" in said
    assert "which is the paper's direction" in said
    report = reported(tmp_path, rows)
    assert "0 of 2 students" not in report
    assert (tmp_path / "methods.png").stat().st_size > 1000
    assert (tmp_path / "sizes.png").exists()
    (hybrid,) = [line for line in report if line.startswith("| `hybrid` | 3 |")]
    assert hybrid.count("**") == 6
    (tie,) = [line for line in report if line.startswith("| `tie` | 1 |")]
    assert "**" not in tie
    assert tie.count("*") == 6
    assert "| 2,000 | 5.0 |" in hybrid, "steps and minutes, over the seeds"
    described = "student `small`: width 16, 1-1 layers, 0.00 M parameters, 5 CPU minutes"
    assert f"- {described}" in report


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    said = said_of(tmp_path, [row("sentence", 5), row("token", 4), row("hybrid", 9)])
    assert "greedy: one seed against `sentence` and `token`, so nothing is claimed." in said
    assert "| `hybrid` |" not in said
    assert "0 of the 3 comparisons have several" in said


def test_seeds_that_disagree_are_no_difference(tmp_path: Path) -> None:
    """Every sentence of every run says so, and yet another seed may not."""
    rows = seeds("sentence", (5, 5, 5)) + seeds("token", (5, 5, 5)) + seeds("hybrid", (4, 9, 4))
    table = StudyTable(rows)
    some = [table.of("recipe", "recipe", method) for method in ("hybrid", "sentence")]
    paired = table.compare(*some, Setting("toy", 1))
    assert paired.difference > 5
    assert paired.p_value > 0.1
    (line,) = [one for one in said_of(tmp_path, rows).splitlines() if one.startswith("| `hybrid`")]
    assert line.endswith("| – | `sentence`, `token` | – |")


def test_a_distance_that_is_kept_is_said_to_be_kept(tmp_path: Path) -> None:
    rows = seeds("sentence", (5, 5)) + seeds("token", (5, 5))
    rows += seeds("sentence", (5, 5), student="small", size=0)
    rows += seeds("token", (5, 5), student="small", size=0)
    unchanged = said_of(tmp_path, rows)
    assert "does not change significantly (+0.00 from end to end, p = 1.000)" in unchanged
    single = said_of(tmp_path, [one for one in rows if one["seed"] == 1])
    assert "single runs show a change" in single


def forced(one: Any, matched: int) -> Any:
    """A row that was measured with teacher forcing too, with so many right words."""
    one["tests"]["toy"]["beam0"] = row("x", matched)["tests"]["toy"]["beam1"]
    return one


def test_teacher_forcing_is_the_easy_end_of_decoding(tmp_path: Path) -> None:
    rows = [forced(one, 5) for one in seeds("sentence", (5, 5, 5))]
    rows += [forced(one, 9) for one in seeds("token", (5, 5, 5))]
    assert StudyTable(rows).settings() == [Setting("toy", 1), Setting("toy", 0)]
    said = said_of(tmp_path, rows)
    assert "Along the axes, on toy, greedy" in said
    assert "student, teacher forcing" not in said, "it translates nothing that could be beaten"
    assert "Along harder decoding (teacher forcing to beam), token-level gains less" in said
    assert "toy, teacher forcing: +" in said


def test_harder_text_is_an_axis_for_each_kind_of_noise(tmp_path: Path) -> None:
    texts = {
        "drop-30": ["corpus.noise=0.3", "corpus.noise_kinds=[drop]"],
        "drop-10": ["corpus.noise=0.1", "corpus.noise_kinds=[drop]"],
        "swap-10": ["corpus.noise=0.1", "corpus.noise_kinds=[swap]"],
        "mbr": ["labels.filter={}"],
    }
    study = load_study(write(tmp_path, texts=texts))
    assert noise_axes(study) == {
        "drop": ["recipe", "drop-10", "drop-30"],
        "swap": ["recipe", "swap-10"],
    }
    rows = seeds("sentence", (5, 5, 5)) + seeds("token", (5, 5, 5))
    for method, matched in (("sentence", 5), ("token", 3)):
        rows += [one | {"text": "drop-30"} for one in seeds(method, (matched,) * 3)]
    said = said_of(tmp_path, rows, texts=texts)
    assert "Along harder text (source words: drop), token-level gains less" in said
    assert "source words: swap" not in said
    assert "mbr" not in said


def test_on_policy_is_held_to_what_a_hybrid_is(tmp_path: Path) -> None:
    rows = (
        seeds("sentence", (5, 5)) + seeds("token-hypothesis", (6, 6)) + seeds("on-policy", (9, 9))
    )
    said = said_of(tmp_path, rows)
    assert "`on-policy` beats all of `sentence` and `token-hypothesis`." in said


def test_forced_outputs_are_the_likeliest_words_at_each_place() -> None:
    torch.manual_seed(0)
    model = Transformer(20, 16, 2, 32, 1, 1, dropout=0.0, max_length=32).eval()
    src, trg = [[5, 6, EOS], [7, EOS], [5, EOS]], [[9, 10, 11, EOS], [12, EOS], [13, 14, EOS]]
    outputs, accuracy = forced_outputs(model, src, trg)
    right = 0
    for row, (source, target) in enumerate(zip(src, trg, strict=True)):
        memory, bias = model.encode(torch.tensor([source]))
        states = model.decode(torch.tensor([[BOS, *target[:-1]]]), memory, bias)
        logits = model.logits(states)[0].detach()
        logits[:, [PAD, UNK, BOS]] = float("-inf")
        best = logits.argmax(1).tolist()
        assert outputs[row] == [token for token in best[:-1] if token != EOS]
        right += sum(one == other for one, other in zip(best, target, strict=True))
    assert accuracy == right / 9


def test_teacher_forcing_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="a size from 1"):
        load_study(write(tmp_path, beams=[0]))


def test_a_hybrid_that_loses_is_said_to_lose(tmp_path: Path) -> None:
    rows = seeds("sentence", (8, 8)) + seeds("token", (5, 5)) + seeds("hybrid", (5, 5))
    said = said_of(tmp_path, rows)
    assert "greedy: no method beats all of `sentence` and `token`." in said
    assert "| `hybrid` | The recipe's student, greedy, toy | – | `token` | `sentence` |" in said


def test_teacher_forcing_shows_how_many_words_were_right(tmp_path: Path) -> None:
    rows = [forced(one, 5) for one in seeds("sentence", (5, 5))]
    for one, share in zip(rows, (0.25, 0.5), strict=True):
        one["tests"]["toy"]["beam0"]["accuracy"] = share
    report = reported(tmp_path, rows, beams=[1, 0])
    start = report.index("### The recipe's student: toy, teacher forcing")
    assert "| accuracy, % |" in report[start + 2]
    assert "| 37.5 |" in report[start + 4]
    assert "accuracy" not in report[report.index("### The recipe's student: toy, greedy") + 2]


def test_texts_and_teachers_are_named_by_what_they_set(tmp_path: Path) -> None:
    texts = {"second-teacher": ["teacher.training.max_steps=3000"]}
    second = {"text": "second-teacher"}
    rows = [one | second for one in seeds("sentence", (5, 5)) + seeds("hybrid", (9, 9))]
    report = reported(tmp_path, [row("teacher", 9) | second, *rows], texts=texts)
    assert "- text `second-teacher`: `teacher.training.max_steps=3000`" in report
    said = "- The recipe's student on text `second-teacher`, greedy: `hybrid` beats all of"
    assert any(line.startswith(said.removesuffix(" all of")) for line in report)
    (teacher,) = [line for line in report if line.startswith("| *teacher*, 1.0 M |")]
    assert teacher.count("|") == report[report.index(teacher) - 2].count("|")
    assert any(line.startswith("Of the recipe's student on text `second") for line in report)
    assert (tmp_path / "methods.png").exists(), "of the group that there is"


def test_decoding_is_an_axis_of_whatever_text_there_is(tmp_path: Path) -> None:
    rows = [forced(one, 5) for one in seeds("sentence", (5, 5), student="short")]
    rows += [forced(one, 9) for one in seeds("token", (5, 5), student="short")]
    said = said_of(tmp_path, [one | {"text": "everyday"} for one in rows])
    axis = "harder decoding (teacher forcing to beam), student `short` on text `everyday`"
    assert f"Along {axis}, token-level gains less" in said


def test_noise_is_drawn_by_its_kind(tmp_path: Path) -> None:
    texts = {"drop-10": ["corpus.noise=0.1", "corpus.noise_kinds=[drop]"]}
    rows = seeds("sentence", (8, 8)) + [
        one | {"text": "drop-10"} for one in seeds("sentence", (5,))
    ]
    assert "![noise-drop.png](noise-drop.png)" in reported(tmp_path, rows, texts=texts)


# --- several corpora -----------------------------------------------------------------------------


def elsewhere(folder: Path, rows: list[Any]) -> Path:
    """Results of another study, of a student of its own on a text of its own."""
    changes = {"study": "other", "text": "everyday", "student": "short"}
    path = folder / "other.jsonl"
    path.write_text("".join(json.dumps(one | changes) + "\n" for one in rows))
    return path


def test_one_table_shows_several_corpora(tmp_path: Path) -> None:
    here = seeds("sentence", (5, 5)) + seeds("nll", (4, 4)) + seeds("hybrid", (9, 9))
    there = seeds("sentence", (7, 7)) + seeds("nll", (4, 4)) + seeds("hybrid", (7, 7))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in here))
    study = load_study(write(tmp_path))
    report = write_report(study, tmp_path, [elsewhere(tmp_path, there)]).read_text()
    said = "- Greedily: `hybrid` beats all of `sentence` and `nll` on small: toy alone."
    assert said in report.splitlines()
    assert "- other: student `short` on text `everyday`, 1.00 M parameters, 5 CPU" in report
    lines = [line for line in report.splitlines() if line.startswith("| `hybrid` | ")]
    assert lines[0].startswith("| `hybrid` | small: toy | 2 | 1.00 ± 0.00 | **+")
    assert lines[1].startswith("| `hybrid` | other: toy | 2 | 1.00 ± 0.00 | +0.00 (1.000) | **+")
    won = seeds("sentence", (5, 5)) + seeds("nll", (4, 4)) + seeds("hybrid", (9, 9))
    report = write_report(study, tmp_path, [elsewhere(tmp_path, won)]).read_text()
    assert "- Greedily: `hybrid` beats all of `sentence` and `nll`.\n" in report


def test_results_that_cannot_be_shown_beside_others_are_refused(tmp_path: Path) -> None:
    rows = [row("sentence", 5)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    study = load_study(write(tmp_path))
    with pytest.raises(StudyError, match="nowhere"):
        write_report(study, tmp_path, [tmp_path / "nowhere.jsonl"])
    with pytest.raises(StudyError, match="two of the results are of the study small"):
        write_report(study, tmp_path, [tmp_path / "results.jsonl"])
    with pytest.raises(StudyError, match="without greedy output"):
        write_report(study, tmp_path, [elsewhere(tmp_path, [row("teacher", 5)])])


def test_only_common_seeds_are_compared() -> None:
    table = StudyTable([row("a", 5, 1), row("a", 5, 2), row("b", 5, 2), row("b", 7, 3)])
    setting = Setting("toy", 1)
    rows = [table.of("recipe", "recipe", method) for method in ("a", "b")]
    assert table.compare(*rows, setting).difference == 0
    assert table.compare(*rows, setting).seeds == 1


def test_mean_of_seeds() -> None:
    assert str(mean_of([1.0, 2.0, 3.0])) == "2.00 ± 1.00"
    assert str(mean_of([1.5])) == "1.50"


def test_every_shipped_study_is_sound(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for path in sorted((tmp_path / "recipes").glob("study-*.yaml")):
        study = load_study(path)
        load_text(study, path, "recipe", None)
        for text in study.texts:
            if not any(one.startswith("teacher={") for one in study.texts[text]):
                load_text(study, path, text, tmp_path)
                continue
            # Another text's teacher is there once the study has trained it.
            with pytest.raises(RecipeError, match="is no folder"):
                load_text(study, path, text, tmp_path)
        assert Cell("recipe", "recipe", "sentence", 1) in study.cells()


def test_students_of_one_size_are_one_point_of_the_sizes() -> None:
    rows = [row("a", 5, size=3), row("a", 6, student="longer", size=3)]
    rows += [row("a", 4, student="small", size=1)]
    assert StudyTable(rows).sizes("recipe") == {"small": 1_000_000, "recipe": 3_000_000}
    minutes = row("a", 5, student="minutes", size=3)
    for one in rows:
        one["training"] = {"max_steps": 5000}
    found = StudyTable([minutes, *rows]).sizes("recipe")
    assert found == {"small": 1_000_000, "recipe": 3_000_000}, "not one that learnt longer"


def test_the_report_shows_which_share_a_gate_reached(tmp_path: Path) -> None:
    fifths = [{"mean": 0.2}, {"mean": 0.7}]
    gate = {
        "gate": {"kind": "sentence"},
        "mean": 0.5,
        "spread": 0.1,
        "warning": None,
        "steps": [{"step": 1, "share": 0.4}, {"step": 2, "share": 0.5}, {"step": 3}],
        "by_source_length": fifths,
        "by_teacher_entropy": fifths,
        "by_target_rarity": fifths,
    }
    rows = [row("hybrid", 5) | {"gate": gate}]
    (line,) = [line for line in gate_tables(rows) if line.startswith("| recipe")]
    assert "| sentence | 0.50 | 0.10 | 0.45 | 0.20 → 0.70 |" in line
    gate["steps"] = [{"step": 1}]
    assert any("| 0.10 | – |" in line for line in gate_tables(rows))
    control = {"correlation": 0.31, "low": -0.02, "high": 0.02, "p_value": 0.001}
    none = {"correlation": -0.01, "low": -0.04, "high": 0.04, "p_value": 0.6}
    axes = ("source_length", "teacher_entropy", "target_rarity")
    gate["difficulty"] = {axis: {"gate": control, "advantage": none} for axis in axes}
    gate["gate"]["learns_from"] = "held-out"
    report = "\n".join(gate_tables(rows))
    assert "| sentence, from held-out text |" in report
    said = "| word rarity | +0.31 | -0.02 to +0.02 | 0.001 | -0.01 | -0.04 to +0.04 | 0.600 |"
    assert said in report
    assert gate_tables([row("token", 5)]) == []

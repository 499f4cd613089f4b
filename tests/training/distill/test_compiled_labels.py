"""Labels by the compiled int8 engine: against float32, in every kind of teacher, in a run."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.native import open_engine
from export.runtime.native import library
from quickstudy.pipeline import build_stages
from tests.export.test_native_kernels import needs_library
from tests.training.distill.store import write_shards
from tests.training.distill.test_marian_teacher import (
    GREEDY,
    MAX_LENGTH,
    PRICES,
    TEXTS,
    config,
    place,
    recipe_of,
    src,
)
from tests.training.tiny_pretrained import (
    bin_items,
    firefox_folder,
    marian_settings,
    sentencepiece_model,
    write_bin,
)
from training.config.io import load_recipe
from training.config.model import GivenTeacher, MarianFolder, TeacherEnsemble
from training.config.recipe import LabelsConfig
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelStore
from training.distill.labelling import Processes, label_corpus, label_rows
from training.distill.teachers import Teacher, TeacherJob, build_teacher, compiled
from training.distill.teachers.base import NO_LOGP, GreedyLabel
from training.distill.teachers.external import ExtendedTeacher, RetokenisedTeacher
from training.distill.teachers.marian import MarianTeacher
from training.model.decoding import output_limit
from training.model.transformer import EOS
from training.run import Run
from training.stage import fingerprint, is_done, run_stage

__all__ = ["place", "src"]  # fixtures
FLOAT32 = GREEDY.model_copy(update={"precision": "float32"})
LOGP_TOLERANCE = 0.25
"""Nats by which the median position's best word may differ: 16 wide, so int8 steps are coarse."""


def build(
    place: Path,
    labels: LabelsConfig = GREEDY,
    tokenizer: str = "own.model",
    adopted: bool = True,
    given: GivenTeacher | None = None,
) -> Teacher:
    job = TeacherJob(
        given or config(place), labels, place / tokenizer, adopted, MAX_LENGTH, place / "none"
    )
    return build_teacher(job, None, open_engine)


def marian(place: Path, labels: LabelsConfig = GREEDY, **options: Any) -> MarianTeacher:
    teacher = build(place, labels, **options)
    assert isinstance(teacher, MarianTeacher)
    return teacher


@pytest.fixture(scope="module")
def ending(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `place`, and more translations end of themselves."""
    folder = tmp_path_factory.mktemp("ending")
    shutil.copy(place / "own.model", folder)
    arrays = firefox_folder(folder / "model", sentencepiece_model(), None)
    arrays["decoder_ff_logit_out_b"][0, 0] += 3.0
    items = bin_items(arrays, marian_settings(), "i1")
    (folder / "model" / "model.enpt.intgemm.alphas.bin").write_bytes(write_bin(items))
    return folder


def check_alike(found: list[GreedyLabel], expected: list[GreedyLabel]) -> None:
    """Most positions up to the first difference have the same best word, of like probability."""
    agree = total = 0
    apart: list[float] = []
    for ([(ids, score)], top), ([(other_ids, other_score)], other) in zip(
        found, expected, strict=True
    ):
        assert ids[-1] == EOS
        assert top.ids.shape == top.logp.shape == (len(ids), other.ids.shape[1])
        assert len(top.tail) == len(ids)
        np.testing.assert_allclose(np.exp(top.logp).sum(1) + top.tail, 1, atol=1e-5)
        shared = [a == b for a, b in zip(ids, other_ids, strict=False)]
        same = shared.index(False) if False in shared else len(shared)
        total += min(same + 1, len(shared))
        agree += int((top.ids[:same, 0] == other.ids[:same, 0]).sum())
        apart += np.abs(top.logp[:same, 0] - other.logp[:same, 0]).tolist()
        if ids == other_ids:
            assert abs(score - other_score) < 0.2 * len(ids)
    assert agree >= 0.9 * total
    assert np.median(apart) < LOGP_TOLERANCE
    assert total > 200


# --- against float32 ---------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("shortlist", [True, False])
def test_most_labels_are_those_of_float32(
    ending: Path, src: list[list[int]], shortlist: bool
) -> None:
    options = {"shortlist": shortlist}
    int8 = marian(ending, GREEDY.model_copy(update=options))
    float32 = marian(ending, FLOAT32.model_copy(update=options))
    assert int8.about.engine.startswith("compiled engine (")
    assert int8.about.precision == "int8"
    assert (float32.about.engine, float32.about.precision) == ("torch", "float32")
    assert int8.about.parameters == float32.about.parameters
    found = int8.greedy_labels(src, 4)
    check_alike(found, float32.greedy_labels(src, 4))
    limits = [output_limit(len(ids), MAX_LENGTH) for ids in src]
    cut = [len(label[0][0][0]) > limit for label, limit in zip(found, limits, strict=True)]
    assert 0 < sum(cut) <= len(cut) - shortlist, "both ways to end are tested"
    assert min(len(ids) for [(ids, _)], _ in found) > 1, "no translation is empty"
    lexicon = int8.pretrained.lexicon
    assert lexicon is not None
    for ids, (_, top) in zip(src, found, strict=True):
        if shortlist:
            assert set(top.ids.ravel().tolist()) <= set(lexicon.candidates(ids).tolist())


@needs_library
def test_labels_do_not_depend_on_calls_and_threads(
    place: Path, src: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = marian(place).greedy_labels(src, 4)
    for tokens, threads in ((1, "1"), (60, "3")):
        monkeypatch.setattr(compiled, "CALL_TOKENS", tokens)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        for one, other in zip(marian(place).greedy_labels(src, 4), expected, strict=True):
            assert one[0] == other[0]
            for name in ("ids", "logp", "tail"):
                np.testing.assert_array_equal(getattr(one[1], name), getattr(other[1], name))


@needs_library
def test_without_distributions_translations_are_the_same(place: Path, src: list[list[int]]) -> None:
    teacher = marian(place)
    labels = teacher.greedy_labels(src, 4)
    assert teacher.translate(src, 1, 1, 1.0) == [found for found, _ in labels]
    bare = teacher.greedy_labels(src[:1], 0)[0][1]
    assert bare.ids.shape == (len(labels[0][0][0][0]), 0)
    [(_, whole)] = teacher.greedy_labels(src[:1], 10_000)
    assert whole.logp.min() == np.float32(NO_LOGP), "places beyond the candidates"


@needs_library
def test_pieces_in_front_of_the_source(place: Path, src: list[list[int]]) -> None:
    piece = Tokenizer(place / "own.model").pieces[7]
    given = MarianFolder(path=str(place / "model"), source_prefix=[piece])
    prefixed = marian(place, given=given)
    found = prefixed.greedy_labels(src, 4)
    check_alike(found, marian(place, FLOAT32, given=given).greedy_labels(src, 4))
    # As if the prefix were the source's first piece, within the source's own limit.
    longer = marian(place).greedy_labels([[7, *ids] for ids in src[:9]], 4)
    for one, other in zip(found, longer, strict=False):
        size = min(len(one[0][0][0]), len(other[0][0][0])) - 1
        assert one[0][0][0][:size] == other[0][0][0][:size]


@needs_library
def test_a_full_source_has_room(place: Path) -> None:
    teacher = marian(place)
    [([(ids, _)], top)] = teacher.greedy_labels([[9] * (MAX_LENGTH - 1) + [EOS]], 4)
    assert len(top.tail) == len(ids) <= MAX_LENGTH


# --- other kinds of teachers -------------------------------------------------------------------


@needs_library
def test_students_of_other_tokens_are_labelled_by_it(place: Path) -> None:
    teacher = build(place, tokenizer="other.model", adopted=False)
    assert isinstance(teacher, RetokenisedTeacher)
    assert teacher.about.precision == "int8"
    ours, own = Tokenizer(place / "other.model"), Tokenizer(place / "own.model")
    found = teacher.translate(ours.encode(TEXTS), 1, 1, 1.0)
    labels = marian(place).greedy_labels(own.encode(TEXTS), 0)
    texts = own.decode([ids for [(ids, _)], _ in labels])
    whole = [len(ids) < MAX_LENGTH for ids in ours.encode(texts)]
    assert any(whole)
    for hypotheses, text, fits in zip(found, texts, whole, strict=True):
        assert not fits or ours.decode([hypotheses[0][0]]) == [text]


@needs_library
def test_students_with_added_pieces_are_labelled_by_it(place: Path) -> None:
    teacher = build(place, tokenizer="more.model")
    assert isinstance(teacher, ExtendedTeacher)
    assert teacher.about.precision == "int8"
    own, more = Tokenizer(place / "own.model"), Tokenizer(place / "more.model")
    found = teacher.greedy_labels(more.encode(PRICES), 4)
    for one, other in zip(found, marian(place).greedy_labels(own.encode(PRICES), 4), strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1].ids, other[1].ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32"},
        {"precision": "float32", "beam_size": 2},
        {"mbr": {"samples": 4}},
    ],
    ids=str,
)
def test_torch_makes_float32_labels_and_samples(
    place: Path, src: list[list[int]], changes: dict[str, Any]
) -> None:
    labels = LabelsConfig.model_validate({**GREEDY.model_dump(), **changes})
    job = TeacherJob(config(place), labels, place / "own.model", True, MAX_LENGTH, place / "none")
    teacher = build_teacher(job, None, refuse)
    assert teacher.about.engine == "torch"
    columns = label_rows(teacher, src[:2], src[:2], labels, Tokenizer(place / "own.model"))
    assert len(columns["hypothesis"]) == 2


@needs_library
@pytest.mark.parametrize("shortlist", [True, False])
def test_most_of_the_n_best_are_those_of_float32(
    ending: Path, src: list[list[int]], shortlist: bool
) -> None:
    options = {"beam_size": 4, "n_best": 3, "shortlist": shortlist}
    int8 = marian(ending, GREEDY.model_copy(update=options))
    float32 = marian(ending, FLOAT32.model_copy(update=options))
    assert int8.about.engine.startswith("compiled engine (")
    for length_penalty in (1.0, 0.5):
        found = int8.translate(src, 4, 3, length_penalty)
        expected = float32.translate(src, 4, 3, length_penalty)
        assert sum(len(hypotheses) for hypotheses in found) >= 3 * len(src) - 3
        shared = apart = 0.0
        for ours, theirs in zip(found, expected, strict=True):
            assert all(ids[-1] == EOS and len(ids) > 1 for ids, _ in ours)
            scores = {tuple(ids): score for ids, score in theirs}
            common = [one for one in ours if tuple(one[0]) in scores]
            shared += len(common)
            apart += sum(abs(score - scores[tuple(ids)]) / len(ids) for ids, score in common)
        assert shared >= 1.5 * len(src)
        assert apart / shared < 0.1


@needs_library
def test_the_n_best_do_not_depend_on_calls_and_threads(
    place: Path, src: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = marian(place).translate(src, 3, 2, 1.0)
    for tokens, threads in ((1, "1"), (60, "3")):
        monkeypatch.setattr(compiled, "CALL_TOKENS", tokens)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert marian(place).translate(src, 3, 2, 1.0) == expected


@needs_library
@pytest.mark.parametrize(
    "changes",
    [
        {"beam_size": 3, "n_best": 2},
        {"paths": ["hypothesis", "reference"]},
        {"top_k": 0},
        {"filter": {}},
        {"beam_size": 3, "n_best": 3, "mbr": {"samples": 0}},
    ],
    ids=str,
)
def test_labels_in_two_passes_have_its_translations(
    place: Path, src: list[list[int]], changes: dict[str, Any]
) -> None:
    labels = LabelsConfig.model_validate({**GREEDY.model_dump(), **changes})
    teacher = marian(place, labels)
    columns = label_rows(teacher, src[:6], src[:6], labels, Tokenizer(place / "own.model"))
    found = teacher.translate(src[:6], labels.beam_size, labels.n_best, 1.0)
    for own, best in zip(columns["nbest"], found, strict=True):
        assert isinstance(own, list)
        assert {tuple(ids) for ids in own} <= {tuple(ids) for ids, _ in best}


def test_torch_searches_for_an_ensemble(place: Path, src: list[list[int]]) -> None:
    given = TeacherEnsemble(kind="ensemble", members=[config(place)] * 2)
    job = TeacherJob(given, GREEDY, place / "own.model", True, MAX_LENGTH, place / "none")
    assert build_teacher(job, None, refuse).translate(src[:2], 1, 1, 1.0)


def refuse(*_: object) -> None:
    raise AssertionError("the engine was opened")


def test_torch_labels_for_a_model_that_it_does_not_compute(
    place: Path, src: list[list[int]]
) -> None:
    job = TeacherJob(config(place), GREEDY, place / "own.model", True, MAX_LENGTH, place / "none")
    teacher = build_teacher(job, None, lambda *_: None)
    assert teacher.about.engine == "torch"
    assert isinstance(teacher, MarianTeacher)
    assert teacher.greedy_labels(src[:2], 4)


# --- in a run ----------------------------------------------------------------------------------


def run_of(place: Path, root: Path, labels: dict[str, Any]) -> Run:
    recipe = recipe_of(place, root, labels={"beam_size": 1, **labels})
    run = Run(load_recipe(recipe), root / "run")
    stages = build_stages(run)
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)
    return run


def labels_of(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.labels.glob("*.arrow"))}


def test_int8_labels_are_other_labels(place: Path, tmp_path: Path) -> None:
    """And float32 ones are those that were made before there were int8 ones."""
    prints = []
    beam = {"beam_size": 2}
    float32 = {"precision": "float32"}
    for labels in ({}, {"precision": "int8"}, float32, beam, {**beam, **float32}):
        run = run_of(place, tmp_path, labels)
        stage = build_stages(run)["label"]
        prints.append((fingerprint(stage, build_stages(run)), stage.inputs()[0]))
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]
    assert prints[2][1] == {"beam_size": 1}
    assert prints[3][1] == {"beam_size": 2, "computed": "int8"}
    assert prints[4][1] == {"beam_size": 2}


@needs_library
@pytest.mark.thorough
@pytest.mark.slow
def test_workers_and_precisions_of_the_label_stage(place: Path, tmp_path: Path) -> None:
    run = run_of(place, tmp_path, {})
    stages = build_stages(run)
    run_stage(stages["label"], stages)
    here = labels_of(run)
    assert len(here) == len(run.token_shards) == 3
    several = Run(run.recipe, run.folder, label_workers="2")
    stages = build_stages(several)
    run_stage(stages["label"], stages, force=True)
    assert labels_of(run) == here
    exact = run_of(place, tmp_path, {"precision": "float32"})
    stages = build_stages(exact)
    assert not is_done(stages["label"], stages)
    run_stage(stages["label"], stages)
    assert labels_of(exact) != here


def test_without_the_library_torch_labels_and_says_so_once(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = run_of(place, tmp_path, {"precision": "float32"})
    stages = build_stages(run)
    run_stage(stages["label"], stages)
    exact = labels_of(run)
    assert "engine" not in capsys.readouterr().err
    library.library.cache_clear()
    monkeypatch.setattr(library, "build_files", lambda: [])
    run = run_of(place, tmp_path, {})
    stages = build_stages(run)
    run_stage(stages["label"], stages)
    library.library.cache_clear()
    said = capsys.readouterr().err
    assert said.count("the compiled engine was not built: install a C compiler") == 1
    assert "torch labels, in float32" in said
    assert labels_of(run) == exact


class Mortal(MarianTeacher):
    """Is killed in its second shard, once."""

    def __init__(self, place: Path, diary: Path) -> None:
        super().__init__(config(place), MAX_LENGTH, 64, True, open_engine)
        self.diary = diary

    def greedy_labels(self, src: list[list[int]], top_k: int) -> list[GreedyLabel]:
        labels = super().greedy_labels(src, top_k)
        (self.diary / f"asked-{len(list(self.diary.iterdir()))}").touch()
        if len(list(self.diary.iterdir())) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return labels


@needs_library
@pytest.mark.slow
def test_a_killed_worker_loses_and_changes_nothing(place: Path, tmp_path: Path) -> None:
    tokenizer, diary = Tokenizer(place / "own.model"), tmp_path / "diary"
    diary.mkdir()
    shards = write_shards(tmp_path / "tokens", tokenizer, 4)
    label_corpus(
        shards, tmp_path / "killed", partial(Mortal, place, diary), GREEDY, tokenizer, None,
        Processes(1),
    )  # fmt: skip
    assert len(list(diary.iterdir())) == len(shards) + 1, "one shard was begun again"
    label_corpus(shards, tmp_path / "here", partial(marian, place), GREEDY, tokenizer)
    assert len(LabelStore(tmp_path / "killed")) == len(LabelStore(tmp_path / "here"))
    for path in (tmp_path / "here").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()

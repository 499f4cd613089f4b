"""What a benchmark measures: the systems and texts of a recipe's run, or of a bundle alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sentencepiece as spm

from benchmarks.bench.own_weights import NOTE, own_weights
from benchmarks.bench.results import ResultsError, Skipped
from benchmarks.bench.teacher_bundle import teacher_bundle
from benchmarks.bench.texts import TestText, make_text
from benchmarks.buckets import rarity_of_counts, source_counts
from benchmarks.systems import PEERS, peer
from benchmarks.systems.base import Role, Subject, System, Unavailable
from benchmarks.systems.bundle_engine import bundle_systems
from benchmarks.systems.torch_checkpoint import TorchCheckpoint, torch_systems
from export.bundle import Bundle, load_bundle
from export.errors import BundleError
from export.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from training.run import Run


@dataclass(frozen=True)
class BenchRequest:
    """What the user asked for. `peers` are names of `PEERS`; `only` are patterns of systems' names.
    The checkpoints and texts are beside what a recipe's run has, or instead of it."""

    beams: tuple[int, ...] = (1, 2, 5)
    peers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    student: Path | None = None
    teacher: Path | None = None
    src: Path | None = None
    ref: Path | None = None
    baselines: dict[str, Path] = field(default_factory=dict)
    """Checkpoints of other students, by names that the run has no student of."""


@dataclass
class BenchPlan:
    """Systems and texts, and what cannot be measured."""

    name: str
    bundle: Bundle
    main: str
    """Name of the system that ships: the bundle's default engine, greedy."""
    systems: list[System]
    texts: list[TestText]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def source(self) -> str:
        return self.bundle.manifest.source_lang

    @property
    def target(self) -> str:
        return self.bundle.manifest.target_lang

    def is_pair(self, system: System) -> bool:
        """Whether a system translates this run's language pair."""
        return (system.info.source, system.info.target) == (self.source, self.target)


def plan_bundle(path: Path, request: BenchRequest, folder: Path) -> BenchPlan:
    """A bundle alone, with the checkpoints that were named; without one of the student, its own
    weights are one. Raises ResultsError without a text."""
    bundle = load_bundle(path)
    if request.src is None or request.ref is None:
        raise ResultsError(
            "a bundle has no test set: give --src FILE and --ref FILE, a sentence a line, or the "
            "recipe that made it instead of the bundle"
        )
    tokenizer = load_tokenizer(bundle)
    plan = _plan(bundle, bundle.manifest.name, request)
    plan.texts = [_file_text(request.src, request.ref, tokenizer, _piece_rarity(tokenizer))]
    student = request.student or _own_weights(plan, folder)
    _add_checkpoints(plan, request.teacher, {"student": student}, request, folder)
    if request.student is None:
        plan.systems = [_noted(one) for one in plan.systems]
    _add_peers(plan, request, student, request.teacher, folder)
    return _chosen(plan, request)


def _own_weights(plan: BenchPlan, folder: Path) -> Path | None:
    try:
        return own_weights(plan.bundle, folder / "own-weights")
    except BundleError as error:
        plan.skipped.append(Skipped(name="student torch", reason=str(error)))
        return None


def _noted(system: System) -> System:
    """The student in torch with a note of where its weights are from."""
    if not isinstance(system, TorchCheckpoint) or system.info.role != "student":
        return system
    return replace(system, info=replace(system.info, note=NOTE))


def plan_run(run: Run, request: BenchRequest, folder: Path) -> BenchPlan:
    """Everything that a recipe's run has. Raises BundleError where it has no bundle yet."""
    from training.corpus import read_pairs
    from training.run import held_out

    bundle = load_bundle(run.bundle)
    tokenizer = load_tokenizer(bundle)
    plan = _plan(bundle, run.recipe.name, request)
    shards = run.token_shards
    rarity = (
        rarity_of_counts(source_counts(shards, tokenizer.get_piece_size()))
        if shards
        else _piece_rarity(tokenizer)
    )
    # Without a test set the validation text stands in, and is named as what it is.
    sets = dict(zip(run.recipe.corpus.test, held_out(run), strict=True))
    sets = sets or {"validation": run.validation}
    plan.texts = [
        make_text(name, list(read_pairs(path)), tokenizer, rarity) for name, path in sets.items()
    ]
    if request.src is not None and request.ref is not None:
        plan.texts.insert(0, _file_text(request.src, request.ref, tokenizer, rarity))
    teacher = request.teacher or run.teacher_checkpoint
    students: dict[str, Path | None] = {
        name: run.student_folder(name) / "checkpoint" for name in run.recipe.objectives()
    }
    if request.student is not None:
        students["student"] = request.student
    if teacher is None:
        _add_given_teacher(plan, run)
    _add_checkpoints(plan, teacher, students, request, folder)
    _add_peers(plan, request, students.get("student"), teacher, folder)
    return _chosen(plan, request)


def _plan(bundle: Bundle, name: str, request: BenchRequest) -> BenchPlan:
    systems: list[System] = [*bundle_systems(bundle, request.beams)]
    main = next(one.info.name for one in systems if one.info.note == "as shipped")
    return BenchPlan(name, bundle, main, systems, [])


def _add_checkpoints(
    plan: BenchPlan,
    teacher: Path | None,
    students: dict[str, Path | None],
    request: BenchRequest,
    folder: Path,
) -> None:
    """Teacher and students in torch, and the teacher as a bundle of its own."""
    if taken := sorted({*students, "teacher"} & set(request.baselines)):
        raise ResultsError(f"--baseline {taken[0]}: the run has one of that name: choose another")
    ends = plan.source, plan.target
    if teacher is not None and _is_checkpoint(plan, "teacher", teacher):
        beams = sorted({1, max(request.beams)})
        plan.systems += torch_systems(teacher, "teacher", "teacher", *ends, beams)
        made = teacher_bundle(teacher, folder / "teacher-bundle", *ends)
        plan.systems += bundle_systems(made, beams, "teacher", "teacher")
    for name, checkpoint in {**students, **request.baselines}.items():
        if checkpoint is not None and _is_checkpoint(plan, name, checkpoint):
            role: Role = "student" if name == "student" else "baseline"
            plan.systems += torch_systems(checkpoint, name, role, *ends)


def _is_checkpoint(plan: BenchPlan, name: str, path: Path) -> bool:
    if (path / "checkpoint.json").exists():
        return True
    plan.skipped.append(Skipped(name=f"{name} torch", reason=f"there is no checkpoint at {path}"))
    return False


def _add_given_teacher(plan: BenchPlan, run: Run) -> None:
    from benchmarks.systems.given_teacher import labelling_teacher
    from training.recipe import RecipeError

    try:
        plan.systems.append(labelling_teacher(run))
    except RecipeError as error:
        plan.skipped.append(Skipped(name="teacher", reason=str(error)))


def _add_peers(
    plan: BenchPlan, request: BenchRequest, student: Path | None, teacher: Path | None, folder: Path
) -> None:
    def existing(path: Path | None) -> Path | None:
        return path if path is not None and (path / "checkpoint.json").exists() else None

    for name in request.peers:
        where = folder / name
        where.mkdir(parents=True, exist_ok=True)
        subject = Subject(
            plan.source,
            plan.target,
            plan.bundle.path,
            existing(student),
            existing(teacher),
            where,
        )
        try:
            found = peer(name)(subject)
        except (Unavailable, ImportError) as error:
            plan.skipped.append(Skipped(name=name, reason=str(error)))
            continue
        if not found:
            reason = "this run has nothing that it could translate with"
            plan.skipped.append(Skipped(name=name, reason=reason))
        plan.systems += found


def _chosen(plan: BenchPlan, request: BenchRequest) -> BenchPlan:
    """The plan with the systems that were asked for; the shipped one stays in any case."""
    names = [one.info.name for one in plan.systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"systems with the same name: {twice}"
    if request.only:
        plan.systems = [
            one
            for one in plan.systems
            if one.info.name == plan.main
            or any(fnmatch(one.info.name, pattern) for pattern in request.only)
        ]
    return plan


def _file_text(
    src: Path, ref: Path, tokenizer: spm.SentencePieceProcessor, rarity: np.ndarray
) -> TestText:
    from export.gate import EvalSet

    found = EvalSet.read(src, ref)
    pairs = list(zip(found.src, found.ref, strict=True))
    return make_text(found.dataset, pairs, tokenizer, rarity)


def _piece_rarity(tokenizer: spm.SentencePieceProcessor) -> np.ndarray:
    """Rarity of every token by the tokenizer's own scores, log-probabilities of a unigram model."""
    scores: Sequence[float] = [tokenizer.get_score(i) for i in range(tokenizer.get_piece_size())]
    return -np.array(scores, dtype=float)


def all_peers() -> tuple[str, ...]:
    """Every peer that there is an adapter for."""
    return tuple(PEERS)

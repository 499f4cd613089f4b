"""What a benchmark measures: the systems and texts of a recipe's run, or of a bundle alone.

Weights are converted both ways: a bundle's into a checkpoint, for torch and the peers, and the
teacher's checkpoint into a bundle, so that it runs on its student's engines. Texts are test sets
with references, parted into thirds by source length and by how rare the source words are, and the
sample of one that is timed.

Shapes: S sentences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sentencepiece as spm

from benchmarks.results import ResultsError, Skipped, TextRecord
from benchmarks.systems.base import IMPORTED, PEERS, Role, Subject, System, Unavailable, peer
from benchmarks.systems.ours import SHIPPED, TorchCheckpoint, bundle_systems, torch_systems
from export.ctranslate2 import from_ctranslate2
from export.exporter import export_bundle, weights_of
from export.quality_gate import EvalSet
from export.runtime.bundle import Bundle, load_bundle, load_source_tokenizer, load_tokenizer
from export.runtime.manifest import MANIFEST_FILE, BundleError
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config.model import ModelConfig
from training.config.recipe import RecipeError
from training.model.transformer import EncoderLayer, Transformer

if TYPE_CHECKING:
    from training.run import Run


# --- plan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DomainFiles:
    """The test set of a domain: sentences and their references, line by line."""

    name: str
    src: Path
    ref: Path


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
    """Checkpoints of other students, and other bundles, by names that the run has no student of."""
    domains: tuple[DomainFiles, ...] = ()


@dataclass
class BenchPlan:
    """Systems and texts, and what cannot be measured."""

    name: str
    bundle: Bundle
    main: str
    """Name of the system that ships: the bundle's default engine, greedy, by the compiled engine
    where that computes it."""
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
    weights are one. The first domain is its main text where no other was given. Raises ResultsError
    without a text."""
    domains = read_domains(request.domains)
    bundle = load_bundle(path)
    tokenizer = load_source_tokenizer(bundle, load_tokenizer(bundle))
    plan = _plan(bundle, bundle.manifest.name, request)
    plan.texts = _given_texts(request, [], domains, tokenizer, _piece_rarity(tokenizer))
    if not plan.texts:
        raise ResultsError(
            "a bundle has no test set: give --src FILE and --ref FILE, a sentence a line, or "
            "--domain NAME=FILE,FILE, or the recipe that made it instead of the bundle"
        )
    student = request.student or _checkpoint_of_bundle(plan, folder)
    _add_checkpoints(plan, request.teacher, {"student": student}, request, folder)
    if request.student is None:
        plan.systems = [_with_note(system) for system in plan.systems]
    _add_peers(plan, request, student, request.teacher, folder)
    return _with_chosen_systems(plan, request)


def _checkpoint_of_bundle(plan: BenchPlan, folder: Path) -> Path | None:
    try:
        return bundle_to_checkpoint(plan.bundle, folder / "own-weights")
    except BundleError as error:
        plan.skipped.append(Skipped(name="torch", reason=str(error)))
        return None


def _with_note(system: System) -> System:
    """The student in torch with a note of where its weights are from."""
    if not isinstance(system, TorchCheckpoint) or system.info.role != "student":
        return system
    return replace(system, info=replace(system.info, note=WEIGHTS_NOTE))


def plan_run(run: Run, request: BenchRequest, folder: Path) -> BenchPlan:
    """Everything that a recipe's run has. Raises BundleError where it has no bundle yet."""
    from training.data.prepare import read_pairs
    from training.run import held_out

    domains = read_domains(request.domains)
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
    own = [
        make_text(name, list(read_pairs(path)), tokenizer, rarity) for name, path in sets.items()
    ]
    plan.texts = _given_texts(request, own, domains, tokenizer, rarity)
    teacher = request.teacher or run.teacher_checkpoint
    students: dict[str, Path | None] = {
        name: run.student_folder(name) / "checkpoint" for name in run.recipe.objectives()
    }
    if request.student is not None:
        students["student"] = request.student
    if teacher is None and run.recipe.teacher is not None:
        _add_labelling_teacher(plan, run)
    _add_checkpoints(plan, teacher, students, request, folder)
    _add_peers(plan, request, students.get("student"), teacher, folder)
    return _with_chosen_systems(plan, request)


def _plan(bundle: Bundle, name: str, request: BenchRequest) -> BenchPlan:
    name_of_ours = "student" if bundle.manifest.origin is None else IMPORTED
    systems: list[System] = [
        *bundle_systems(bundle, request.beams, prefix=name_of_ours, compiled=True)
    ]
    main = next((one.info.name for one in systems if one.info.note == SHIPPED), None)
    if main is None:
        raise ResultsError("--beams must name 1 or the bundle's own beam, what ships: --beams 1,2")
    return BenchPlan(name, bundle, main, systems, [])


def _add_checkpoints(
    plan: BenchPlan,
    teacher: Path | None,
    students: dict[str, Path | None],
    request: BenchRequest,
    folder: Path,
) -> None:
    """Teacher and students in torch, the teacher as a bundle of its own, and other bundles."""
    if taken := sorted({*students, "teacher"} & set(request.baselines)):
        raise ResultsError(f"--baseline {taken[0]}: the run has one of that name: choose another")
    ends = plan.source, plan.target
    if teacher is not None and _is_checkpoint(plan, "teacher", teacher):
        beams = sorted({1, max(request.beams)})
        plan.systems += torch_systems(teacher, "teacher", "teacher", *ends, beams)
        made = checkpoint_to_bundle(teacher, folder / "teacher-bundle", *ends)
        plan.systems += bundle_systems(made, beams, "teacher", "teacher")
    bundles = {
        name: path for name, path in request.baselines.items() if (path / MANIFEST_FILE).exists()
    }
    for name, path in bundles.items():
        plan.systems += bundle_systems(load_bundle(path), (1,), "baseline", name, compiled=True)
    checkpoints = {name: p for name, p in request.baselines.items() if name not in bundles}
    for name, checkpoint in {**students, **checkpoints}.items():
        if checkpoint is not None and _is_checkpoint(plan, name, checkpoint):
            role: Role = "student" if name == "student" else "baseline"
            plan.systems += torch_systems(checkpoint, name, role, *ends)


def _is_checkpoint(plan: BenchPlan, name: str, path: Path) -> bool:
    if (path / "checkpoint.json").exists():
        return True
    plan.skipped.append(Skipped(name=f"{name} torch", reason=f"there is no checkpoint at {path}"))
    return False


def _add_labelling_teacher(plan: BenchPlan, run: Run) -> None:
    from benchmarks.systems.ours import labelling_teacher

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
            systems = peer(name)(subject)
        except (Unavailable, ImportError) as error:
            plan.skipped.append(Skipped(name=name, reason=str(error)))
            continue
        if not systems:
            reason = "this run has nothing that it could translate with"
            plan.skipped.append(Skipped(name=name, reason=reason))
        plan.systems += systems


def _with_chosen_systems(plan: BenchPlan, request: BenchRequest) -> BenchPlan:
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


def _given_texts(
    request: BenchRequest,
    own: Sequence[TestText],
    domains: dict[str, EvalSet],
    tokenizer: spm.SentencePieceProcessor,
    rarity: np.ndarray,
) -> list[TestText]:
    """The texts to measure, the main one first: that of --src, a run's own ones, the domains.

    Raises ResultsError where two have one name.
    """
    texts = list(own)
    if request.src is not None and request.ref is not None:
        given = EvalSet.read(request.src, request.ref)
        texts.insert(0, _text_of(given, given.dataset, tokenizer, rarity))
    if taken := sorted({text.name for text in texts} & set(domains)):
        raise ResultsError(
            f"--domain {taken[0]}: there is another test set of that name: choose another name"
        )
    for name, given in domains.items():
        texts.append(replace(_text_of(given, name, tokenizer, rarity), domain=True))
    return texts


def _text_of(
    given: EvalSet, name: str, tokenizer: spm.SentencePieceProcessor, rarity: np.ndarray
) -> TestText:
    return make_text(name, list(zip(given.src, given.ref, strict=True)), tokenizer, rarity)


def read_domains(domains: Sequence[DomainFiles]) -> dict[str, EvalSet]:
    """The test set of each domain, by its name.

    Raises ResultsError with all that is wrong: a file that is missing or damaged, sides of unlike
    numbers of lines, no lines, an empty line, one text under two names.
    """
    read: dict[str, EvalSet] = {}
    faults = []
    for domain in domains:
        if missing := [path for path in (domain.src, domain.ref) if not path.is_file()]:
            faults += [f"--domain {domain.name}: there is no file {path}" for path in missing]
            continue
        try:
            text = EvalSet.read(domain.src, domain.ref)
        except (OSError, RecipeError) as error:
            faults.append(f"--domain {domain.name}: {error}")
            continue
        faults += _domain_faults(domain, text, read)
        read[domain.name] = text
    if faults:
        raise ResultsError("\n".join(faults))
    return read


def _domain_faults(domain: DomainFiles, text: EvalSet, others: dict[str, EvalSet]) -> Iterator[str]:
    """What is wrong with a domain's sentences, each with what to do."""
    if not text.src:
        yield f"--domain {domain.name}: {domain.src} is empty: give sentences, one a line"
    for path, lines in ((domain.src, text.src), (domain.ref, text.ref)):
        empty = next((n for n, line in enumerate(lines, 1) if not line.strip()), None)
        if empty is not None:
            yield (
                f"--domain {domain.name}: line {empty} of {path} is empty: take line {empty} out "
                "of both files"
            )
    for name, other in others.items():
        if (other.src, other.ref) == (text.src, text.ref):
            yield f"--domain {domain.name}: the same text as domain {name}: give its own files"


def _piece_rarity(tokenizer: spm.SentencePieceProcessor) -> np.ndarray:
    """Rarity of every token by the tokenizer's own scores, log-probabilities of a unigram model."""
    scores: Sequence[float] = [tokenizer.get_score(i) for i in range(tokenizer.get_piece_size())]
    return -np.array(scores, dtype=float)


def all_peers() -> tuple[str, ...]:
    """Every peer that there is an adapter for."""
    return tuple(PEERS)


# --- weights as a checkpoint, a checkpoint as a bundle --------------------------------------------

WEIGHTS_NOTE = "the weights of the bundle, in float32"


def bundle_to_checkpoint(bundle: Bundle, out: Path) -> Path:
    """Write the checkpoint of a bundle at `out`; int8 weights keep their 7 bits.

    Raises BundleError where the bundle has no engine to take them from, or was imported.
    """
    model = from_ctranslate2(weights_of(bundle))
    recipe = bundle.recipe_text()
    save_checkpoint(out, model.state_dict(), _config(model), bundle.tokenizer_path, recipe, {})
    return out


def _config(model: Transformer) -> ModelConfig:
    layer = model.encoder[0]
    assert isinstance(layer, EncoderLayer)
    return ModelConfig(
        width=model.width,
        heads=model.heads,
        ffn=layer.ffn.inner.out_features,
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        activation=layer.ffn.activation,
        dropout=0.0,
        max_length=model.max_length,
    )


TEACHER_ENGINES = ("ctranslate2-float32", "ctranslate2-int8")


def checkpoint_to_bundle(checkpoint: Path, out: Path, source: str, target: str) -> Bundle:
    """Write the bundle of a checkpoint at `out`."""
    loaded = load_checkpoint(checkpoint)
    room = loaded.config.max_length - 1
    return export_bundle(
        model=loaded.model,
        tokenizer_path=loaded.tokenizer,
        recipe_text=loaded.recipe_text,
        out=out,
        name="teacher",
        source_lang=source,
        target_lang=target,
        engines=TEACHER_ENGINES,
        licence="as its checkpoint",
        attribution="",
        description="A teacher, for measuring only.",
        max_input_tokens=min(room, 128),
    )


# --- texts ----------------------------------------------------------------------------------------

BUCKETS = 3
NAMES = {"length": ("short", "middle", "long"), "rarity": ("common", "middle", "rare")}


def thirds(values: np.ndarray) -> np.ndarray:
    """Which third each value [S] is in, 0 the least; as many in each, ties by position."""
    ranks = values.argsort(kind="stable").argsort(kind="stable")
    parts: np.ndarray = ranks * BUCKETS // max(len(values), 1)
    return parts


def buckets(rows: Sequence[Sequence[int]], rarity: np.ndarray) -> np.ndarray:
    """Token ids of sentences and the rarity of every token → thirds by length, and by the mean
    rarity of a sentence's tokens: [S, 2]."""
    lengths = np.array([len(row) for row in rows], dtype=float)
    rare = np.array([rarity[np.asarray(row)].mean() if len(row) else 0.0 for row in rows])
    return np.stack([thirds(lengths), thirds(rare)], axis=1)


def rarity_of_counts(counts: np.ndarray) -> np.ndarray:
    """Rarity of every token (nats) from how often a training text has it: [V]."""
    rarity: np.ndarray = -np.log(np.maximum(counts, 1) / max(counts.sum(), 1))
    return rarity


def source_counts(shards: Sequence[Path], vocab_size: int) -> np.ndarray:
    """How often the source side of token shards has every token: [V]."""
    from training.data.batching import map_table

    counts = np.zeros(vocab_size, dtype=np.int64)
    for shard in shards:
        for chunk in map_table(shard)["src"].chunks:
            counts += np.bincount(chunk.flatten().to_numpy(), minlength=vocab_size)
    return counts


SEED = 12345


@dataclass(frozen=True)
class TestText:
    """A test set; `lengths` [S] counts source tokens by the run's tokenizer, `buckets` [S, 2] says
    which third each sentence is in by length and by rarity."""

    __test__ = False  # not one of pytest's

    name: str
    sources: list[str]
    references: list[str]
    lengths: np.ndarray
    buckets: np.ndarray
    rarity: np.ndarray
    domain: bool = False
    """Whether it is the test set of a domain, called by the domain's name."""

    def about(self) -> TextRecord:
        """What the results say of it."""
        rows = (f"{src}\t{ref}\n" for src, ref in zip(self.sources, self.references, strict=True))
        return TextRecord(
            name=self.name,
            sentences=len(self.sources),
            source_tokens=int(self.lengths.sum()),
            source_words=words(self.sources),
            sha256=sha256("".join(rows).encode()).hexdigest(),
            bucket_edges={
                "length": _edges(self.lengths, self.buckets[:, 0]),
                "rarity": _edges(self.rarity, self.buckets[:, 1]),
            },
            domain=self.domain,
        )


@dataclass(frozen=True)
class TextSample:
    """Sentences that are timed: every so-manieth of a text by length, in a fixed random order."""

    sentences: list[str]
    lengths: np.ndarray
    """Source tokens of each, [S]."""
    thirds: np.ndarray
    """Which third of the sample each is in by length, [S]."""

    @property
    def tokens_per_sentence(self) -> float:
        return float(self.lengths.mean())

    @property
    def words_per_sentence(self) -> float:
        return words(self.sentences) / len(self.sentences)


def make_text(
    name: str,
    pairs: Sequence[tuple[str, str]],
    tokenizer: spm.SentencePieceProcessor,
    rarity: np.ndarray,
) -> TestText:
    """A test set of (source, reference) pairs; `rarity` [V] is of the tokenizer's tokens.

    Raises ResultsError for no pairs.
    """
    if not pairs:
        raise ResultsError(f"the test set {name} has no sentences: give one that has")
    sources = [src for src, _ in pairs]
    rows: list[list[int]] = tokenizer.encode(sources)
    rare = [float(rarity[row].mean()) if row else 0.0 for row in rows]
    return TestText(
        name=name,
        sources=sources,
        references=[ref for _, ref in pairs],
        lengths=np.array([len(row) for row in rows]),
        buckets=buckets(rows, rarity),
        rarity=np.array(rare),
    )


def sample_of(
    text: TestText, count: int, fits: Callable[[int], bool] = lambda _: True
) -> TextSample:
    """At most `count` sentences of a text whose source tokens `fits` accepts."""
    by_length = [
        index for index in text.lengths.argsort(kind="stable") if fits(text.lengths[index])
    ]
    step = max(len(by_length) / count, 1.0)
    chosen = np.array([by_length[int(place * step)] for place in range(min(count, len(by_length)))])
    chosen = np.random.default_rng(SEED).permutation(chosen)
    lengths = text.lengths[chosen]
    return TextSample([text.sources[index] for index in chosen], lengths, thirds(lengths))


def words(sentences: Sequence[str]) -> int:
    """Words of sentences, by white space."""
    return sum(len(sentence.split()) for sentence in sentences)


def _edges(values: np.ndarray, third: np.ndarray) -> tuple[float, float]:
    """The least value of the middle and of the last third."""
    edges = [
        float(values[third == one].min()) if (third == one).any() else float(values.max())
        for one in range(1, BUCKETS)
    ]
    return edges[0], edges[1]

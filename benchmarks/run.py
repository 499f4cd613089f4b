"""A benchmark from its plan to its results: what is measured, how much, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from benchmarks.domains import bundle_record
from benchmarks.plan import BenchPlan, TestText, sample_of
from benchmarks.quality import Comet, quality_rows, translate_texts, with_comet
from benchmarks.results import (
    BenchSettings,
    Machine,
    Peak,
    Profile,
    Quality,
    Results,
    ScalingFit,
    Share,
    Skipped,
)
from benchmarks.roofline import dimensions, measure_peaks, profile, shares
from benchmarks.scaling import along_models, along_text, from_speeds
from benchmarks.speed import MachineWatch, Samples, Speeds, measure_speed
from benchmarks.systems.base import WHOLE, System, Unavailable
from benchmarks.systems.process import SystemFailed, SystemProcess
from export.runtime.bundle import load_tokenizer
from quickstudy.machine import usable_cores

PARTS = ("quality", "speed", "limit", "profile", "growth")
BATCH_SIZES = (1, 8, 32, 64, WHOLE)
ALL_CORES_BATCH_SIZES = (1, 32, WHOLE)


@dataclass(frozen=True)
class Options:
    """How much is measured. Sentences are those of the samples that are timed."""

    rounds: int = 5
    parts: tuple[str, ...] = PARTS
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = ()
    beams: tuple[int, ...] = (1, 2, 5)
    quick: bool = False
    alone: int = 100
    batched: int = 128
    whole: int = 400
    cell_seconds: float | None = 60.0
    """About as long as all turns at one batch size may take; three rounds are done in any case."""
    peak_seconds: float = 0.5
    profile_seconds: float = 4.0
    scored: int | None = None
    """At most so many sentences of a test set are scored; None for all."""
    comet: Comet | None = None

    @classmethod
    def quickly(cls, parts: tuple[str, ...] = PARTS) -> Options:
        """Everything once, on few sentences: to see that it works, not to be believed."""
        return cls(
            rounds=2,
            parts=parts,
            batch_sizes=(1, 8, WHOLE),
            beams=(1, 2),
            quick=True,
            alone=8,
            batched=16,
            whole=32,
            peak_seconds=0.02,
            profile_seconds=0.3,
            scored=64,
        )

    def cells(self) -> dict[int, tuple[int, ...]]:
        """Batch sizes by threads: all of them on one thread, fewer on all cores."""
        counts = self.threads or tuple(sorted({1, usable_cores()}))
        few = tuple(size for size in self.batch_sizes if size in ALL_CORES_BATCH_SIZES)
        return {count: self.batch_sizes if count == 1 else few for count in counts}


Say = Callable[[str], None]


@dataclass
class BenchContext:
    """What all parts of a run share. `failed` says why something was left out, by its name."""

    plan: BenchPlan
    options: Options
    say: Say
    texts: list[TestText]
    samples: Samples
    failed: dict[str, str] = field(default_factory=dict)

    def wants(self, part: str) -> bool:
        return part in self.options.parts

    @property
    def profiled(self) -> list[System]:
        """Systems whose profile and scaling are measured: the shipped one and the teacher."""
        wanted = {self.plan.main, reference_of(self.plan)}
        return [one for one in self.plan.systems if one.info.name in wanted]

    @contextmanager
    def isolated(self, part: str) -> Iterator[None]:
        """Leave out a part that breaks, and keep what was measured before it."""
        try:
            yield
        except Exception as error:
            plain = isinstance(error, Unavailable | SystemFailed)
            self.failed[part] = str(error) if plain else f"{type(error).__name__}: {error}"
            self.say(f"{part}: left out: {self.failed[part]}")


@dataclass
class Measured:
    """Rows of the results, part by part."""

    quality: list[Quality] = field(default_factory=list)
    speeds: Speeds = field(default_factory=Speeds)
    peaks: list[Peak] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    growth: list[ScalingFit] = field(default_factory=list)


def measure(
    plan: BenchPlan, options: Options, say: Say, keep: Callable[[Results], object] | None = None
) -> Results:
    """Measure what `options.parts` names, and gather it. Systems that break are left out, and the
    results say why. After each part, `keep` is given what there is so far."""
    watch = MachineWatch()
    texts = [_at_most(text, options.scored) for text in plan.texts]
    context = BenchContext(plan, options, say, texts, samples_of(plan, texts[0], options))
    measured = Measured()

    def results() -> Results:
        about = watch.finish(row.sentences_per_second for row in measured.speeds.speed)
        return _results(context, measured, about)

    for part in PARTS:
        if context.wants(part):
            _measure_part(part, context, measured)
            if keep is not None:
                keep(results())
    return results()


def _measure_part(part: str, context: BenchContext, measured: Measured) -> None:
    match part:
        case "quality":
            measured.quality = _quality(context)
        case "speed":
            measured.speeds = _speeds(context)
        case "limit":
            with context.isolated("limit"):
                measured.peaks, measured.shares = _roofline(context, measured.speeds)
        case "profile":
            measured.profiles = _profiles(context)
        case "growth":
            measured.growth = _scaling(context, measured.speeds)


def _quality(context: BenchContext) -> list[Quality]:
    plan = context.plan
    own = [one for one in plan.systems if plan.is_pair(one) and one.info.scored]
    scored = translate_texts(own, context.texts, usable_cores(), context.failed, context.say)
    if context.options.comet is not None:
        with context.isolated("COMET"):
            scored = with_comet(scored, context.options.comet)
    return quality_rows(scored, reference_of(plan), plan.main)


def _speeds(context: BenchContext) -> Speeds:
    options = context.options
    return measure_speed(
        context.plan.systems,
        context.samples,
        options.cells(),
        options.rounds,
        options.cell_seconds,
        context.plan.main,
        context.failed,
        context.say,
    )


def _roofline(context: BenchContext, speeds: Speeds) -> tuple[list[Peak], list[Share]]:
    options = context.options
    peaks = measure_peaks(tuple(options.cells()), options.rounds, options.peak_seconds)
    context.say(f"peaks: {', '.join(f'{p.precision} {p.gops.median:.0f} GOP/s' for p in peaks)}")
    lengths = token_lengths(context.plan, context.samples, speeds)
    return peaks, shares(context.plan, speeds.speed, peaks, lengths)


def _profiles(context: BenchContext) -> list[Profile]:
    profiles = []
    for system in context.profiled:
        with (
            context.isolated(f"profile of {system.info.name}"),
            SystemProcess(system, 1) as running,
        ):
            for batch_size in (1, 32):
                sentences = context.samples.of(batch_size).sentences
                running.time(sentences, batch_size)
                seconds = context.options.profile_seconds
                profiles.append(profile(running, sentences, batch_size, seconds))
    return profiles


def _scaling(context: BenchContext, speeds: Speeds) -> list[ScalingFit]:
    """Along the axes of the speeds that are there, of text, and of models."""
    fits = [
        one for system in context.profiled for one in from_speeds(speeds.speed, system.info.name)
    ]
    for system in context.profiled:
        with context.isolated(f"growth of {system.info.name}"), SystemProcess(system, 1) as running:
            fits += _scaling_along_text(context, running)
    manifest = context.plan.bundle.manifest
    config = dimensions(context.plan).get(manifest.parameters)
    if config is not None:
        with context.isolated("growth of random models"):
            rounds, quick = context.options.rounds, context.options.quick
            fits += along_models(config, manifest.vocab_size, rounds, quick)
    context.say(f"growth: {', '.join(f'{one.axis} ^ {one.exponent:.2f}' for one in fits)}")
    return fits


def _scaling_along_text(context: BenchContext, running: SystemProcess) -> list[ScalingFit]:
    tokenizer = load_tokenizer(context.plan.bundle)
    return along_text(
        running,
        context.texts[0].sources[: context.options.whole],
        lambda sentence: len(tokenizer.encode(sentence)),
        context.plan.bundle.manifest.decoding.max_input_tokens,
        context.options.rounds,
    )


def _results(context: BenchContext, measured: Measured, about: Machine) -> Results:
    plan, options, speeds = context.plan, context.options, measured.speeds
    left_out = (Skipped(name=name, reason=why) for name, why in context.failed.items())
    return Results(
        created=datetime.now(UTC).replace(microsecond=0),
        quickstudy_version=version("quickstudy"),
        name=plan.name,
        source=plan.source,
        target=plan.target,
        bundle=bundle_record(plan.bundle),
        main_system=plan.main,
        settings=BenchSettings(
            rounds=options.rounds,
            batch_sizes=options.batch_sizes,
            threads=tuple(options.cells()),
            beams=options.beams,
            quick=options.quick,
        ),
        machine=about,
        texts=tuple(text.about() for text in context.texts),
        timed_text=context.texts[0].name,
        systems=tuple(one.info for one in plan.systems),
        skipped=(*plan.skipped, *left_out),
        quality=tuple(measured.quality),
        speed=tuple(speeds.speed),
        latency=tuple(speeds.latency),
        cost=tuple(speeds.cost),
        ratios=tuple(speeds.ratios),
        peaks=tuple(measured.peaks),
        shares=tuple(measured.shares),
        profiles=tuple(measured.profiles),
        growth=tuple(measured.growth),
    )


def reference_of(plan: BenchPlan) -> str | None:
    """The system that all others are compared with: the teacher's widest beam in torch, else the
    widest of what there is of it."""
    teachers = [one.info for one in plan.systems if one.info.role == "teacher"]
    if not teachers:
        return None
    return max(teachers, key=lambda one: (one.engine == "torch", one.beam_size)).name


def samples_of(plan: BenchPlan, text: TestText, options: Options) -> Samples:
    """What is timed: sentences that every system takes whole."""
    most = plan.bundle.manifest.decoding.max_input_tokens

    def fits(tokens: int) -> bool:
        return 0 < tokens <= most

    return Samples(
        text.name,
        sample_of(text, options.alone, fits),
        sample_of(text, options.batched, fits),
        sample_of(text, options.whole, fits),
    )


def token_lengths(
    plan: BenchPlan, samples: Samples, speeds: Speeds
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Source and target tokens of the batched sample by system, end of sentence counted."""
    tokenizer = load_tokenizer(plan.bundle)
    source = samples.batched.lengths + 1
    return {
        name: (source, np.array([len(ids) + 1 for ids in tokenizer.encode(texts)]))
        for name, texts in speeds.outputs.items()
        if name not in {one.info.name for one in plan.systems if not plan.is_pair(one)}
    }


def _at_most(text: TestText, count: int | None) -> TestText:
    if count is None or count >= len(text.sources):
        return text
    return replace(
        text,
        sources=text.sources[:count],
        references=text.references[:count],
        lengths=text.lengths[:count],
        buckets=text.buckets[:count],
        rarity=text.rarity[:count],
    )

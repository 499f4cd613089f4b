"""A benchmark from its plan to its results: what is measured, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from benchmarks.bench.growth import along_models, along_text, from_speeds
from benchmarks.bench.limit import dimensions, measure_peaks, shares
from benchmarks.bench.machine import Watch, available
from benchmarks.bench.plan import Plan
from benchmarks.bench.profile import profile
from benchmarks.bench.quality import quality_rows, translate_texts
from benchmarks.bench.results import (
    Growth,
    Peak,
    Profile,
    Results,
    Settings,
    Share,
    Skipped,
)
from benchmarks.bench.speed import Samples, Speeds, measure_speed
from benchmarks.bench.texts import TestText, sample_of
from benchmarks.systems.base import WHOLE, System, Unavailable
from benchmarks.systems.process import Running, SystemFailed
from export.tokenizer import load_tokenizer

PARTS = ("quality", "speed", "limit", "profile", "growth")
BATCH_SIZES = (1, 8, 32, 64, WHOLE)
ALL_CORES_BATCH_SIZES = (1, 32, WHOLE)
Say = Callable[[str], None]


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
        counts = self.threads or tuple(sorted({1, available()}))
        few = tuple(size for size in self.batch_sizes if size in ALL_CORES_BATCH_SIZES)
        return {count: self.batch_sizes if count == 1 else few for count in counts}


def measure(plan: Plan, options: Options, say: Say) -> Results:
    """Measure what `options.parts` names, and gather it. Systems that break are left out, and the
    results say why."""
    watch = Watch()
    failed: dict[str, str] = {}
    cells = options.cells()
    texts = [_at_most(text, options.scored) for text in plan.texts]
    quality = []
    if "quality" in options.parts:
        own = [one for one in plan.systems if plan.is_pair(one) and one.info.scored]
        scored = translate_texts(own, texts, available(), failed, say)
        quality = quality_rows(scored, reference_of(plan))
    samples = samples_of(plan, texts[0], options)
    speeds = Speeds()
    if "speed" in options.parts:
        speeds = measure_speed(
            plan.systems,
            samples,
            cells,
            options.rounds,
            options.cell_seconds,
            plan.main,
            failed,
            say,
        )
    peaks: list[Peak] = []
    portions: list[Share] = []
    if "limit" in options.parts:
        with _kept_going("limit", failed, say):
            peaks = measure_peaks(tuple(cells), options.rounds, options.peak_seconds)
            portions = shares(plan, speeds.speed, peaks, token_lengths(plan, samples, speeds))
            say(f"peaks: {', '.join(f'{p.precision} {p.gops.median:.0f} GOP/s' for p in peaks)}")
    profiles: list[Profile] = []
    if "profile" in options.parts:
        profiles = _profiles(plan, samples, options, failed, say)
    growth: list[Growth] = []
    if "growth" in options.parts:
        growth = _growth(plan, speeds, texts[0], options, failed, say)
    skipped = [*plan.skipped, *(Skipped(name=name, reason=why) for name, why in failed.items())]
    return Results(
        created=datetime.now(UTC).replace(microsecond=0),
        quickstudy_version=version("quickstudy"),
        name=plan.name,
        source=plan.source,
        target=plan.target,
        main_system=plan.main,
        settings=Settings(
            rounds=options.rounds,
            batch_sizes=options.batch_sizes,
            threads=tuple(cells),
            beams=options.beams,
            quick=options.quick,
        ),
        machine=watch.finish(row.sentences_per_second for row in speeds.speed),
        texts=tuple(text.about() for text in texts),
        timed_text=texts[0].name,
        systems=tuple(one.info for one in plan.systems),
        skipped=tuple(skipped),
        quality=tuple(quality),
        speed=tuple(speeds.speed),
        latency=tuple(speeds.latency),
        cost=tuple(speeds.cost),
        ratios=tuple(speeds.ratios),
        peaks=tuple(peaks),
        shares=tuple(portions),
        profiles=tuple(profiles),
        growth=tuple(growth),
    )


@contextmanager
def _kept_going(part: str, failed: dict[str, str], say: Say) -> Iterator[None]:
    """What was measured before a part that breaks is worth keeping: the part alone is left out."""
    try:
        yield
    except Exception as error:
        failed[part] = f"{type(error).__name__}: {error}"
        say(f"{part}: left out: {failed[part]}")


def reference_of(plan: Plan) -> str | None:
    """The system that all others are compared with: the teacher's widest beam in torch, else the
    widest of what there is of it."""
    teachers = [one.info for one in plan.systems if one.info.role == "teacher"]
    if not teachers:
        return None
    return max(teachers, key=lambda one: (one.engine == "torch", one.beam_size)).name


def samples_of(plan: Plan, text: TestText, options: Options) -> Samples:
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
    plan: Plan, samples: Samples, speeds: Speeds
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
    return TestText(
        text.name,
        text.sources[:count],
        text.references[:count],
        text.lengths[:count],
        text.buckets[:count],
        text.rarity[:count],
    )


def _watched(plan: Plan) -> list[System]:
    """Systems that are looked into more closely: the shipped one and the teacher's reference."""
    wanted = {plan.main, reference_of(plan)}
    return [one for one in plan.systems if one.info.name in wanted]


def _profiles(
    plan: Plan, samples: Samples, options: Options, failed: dict[str, str], say: Say
) -> list[Profile]:
    found = []
    for system in _watched(plan):
        try:
            with Running(system, 1) as running:
                for batch_size in (1, 32):
                    sentences = samples.of(batch_size).sentences
                    running.time(sentences, batch_size)
                    found.append(profile(running, sentences, batch_size, options.profile_seconds))
        except (Unavailable, SystemFailed) as error:
            failed[f"profile of {system.info.name}"] = str(error)
            say(f"profile of {system.info.name}: left out: {error}")
    return found


def _growth(
    plan: Plan,
    speeds: Speeds,
    text: TestText,
    options: Options,
    failed: dict[str, str],
    say: Say,
) -> list[Growth]:
    tokenizer = load_tokenizer(plan.bundle)
    most = plan.bundle.manifest.decoding.max_input_tokens
    found = [
        one for system in _watched(plan) for one in from_speeds(speeds.speed, system.info.name)
    ]
    for system in _watched(plan):
        try:
            with Running(system, 1) as running:
                found += along_text(
                    running,
                    text.sources[: options.whole],
                    lambda sentence: len(tokenizer.encode(sentence)),
                    most,
                    options.rounds,
                )
        except (Unavailable, SystemFailed) as error:
            failed[f"growth of {system.info.name}"] = str(error)
            say(f"growth of {system.info.name}: left out: {error}")
    vocab_size = plan.bundle.manifest.vocab_size
    for parameters, config in dimensions(plan).items():
        if parameters == plan.bundle.manifest.parameters:
            with _kept_going("growth of random models", failed, say):
                found += along_models(config, vocab_size, options.rounds, options.quick)
    say(f"growth: {', '.join(f'{one.axis} ^ {one.exponent:.2f}' for one in found)}")
    return found

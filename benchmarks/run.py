"""A benchmark from its plan to its results: what is measured, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from benchmarks.cli import PARTS, Options
from benchmarks.plan import BenchPlan, TestText, sample_of
from benchmarks.quality import quality_rows, translate_texts, with_comet
from benchmarks.results import (
    BenchSettings,
    Growth,
    Machine,
    Peak,
    Profile,
    Quality,
    Results,
    Share,
    Skipped,
)
from benchmarks.roofline import dimensions, measure_peaks, profile, shares
from benchmarks.scaling import along_models, along_text, from_speeds
from benchmarks.speed import MachineWatch, Samples, Speeds, measure_speed
from benchmarks.systems.base import System, Unavailable
from benchmarks.systems.process import Running, SystemFailed
from export.runtime.bundle import load_tokenizer
from quickstudy.machine import usable_cores

Say = Callable[[str], None]


@dataclass
class Work:
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
    def watched(self) -> list[System]:
        """Systems that are looked into more closely: the shipped one and the teacher."""
        wanted = {self.plan.main, reference_of(self.plan)}
        return [one for one in self.plan.systems if one.info.name in wanted]

    @contextmanager
    def kept_going(self, part: str) -> Iterator[None]:
        """What was measured before a part that breaks is worth keeping: the part alone is left
        out."""
        try:
            yield
        except Exception as error:
            plain = isinstance(error, Unavailable | SystemFailed)
            self.failed[part] = str(error) if plain else f"{type(error).__name__}: {error}"
            self.say(f"{part}: left out: {self.failed[part]}")


@dataclass
class Found:
    """Rows of the results, part by part."""

    quality: list[Quality] = field(default_factory=list)
    speeds: Speeds = field(default_factory=Speeds)
    peaks: list[Peak] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)


def measure(
    plan: BenchPlan, options: Options, say: Say, keep: Callable[[Results], object] | None = None
) -> Results:
    """Measure what `options.parts` names, and gather it. Systems that break are left out, and the
    results say why. After each part, `keep` is given what there is so far."""
    watch = MachineWatch()
    texts = [_at_most(text, options.scored) for text in plan.texts]
    work = Work(plan, options, say, texts, samples_of(plan, texts[0], options))
    found = Found()

    def results() -> Results:
        about = watch.finish(row.sentences_per_second for row in found.speeds.speed)
        return _results(work, found, about)

    for part in PARTS:
        if work.wants(part):
            _measure_part(part, work, found)
            if keep is not None:
                keep(results())
    return results()


def _measure_part(part: str, work: Work, found: Found) -> None:
    match part:
        case "quality":
            found.quality = _quality(work)
        case "speed":
            found.speeds = _speeds(work)
        case "limit":
            with work.kept_going("limit"):
                found.peaks, found.shares = _limit(work, found.speeds)
        case "profile":
            found.profiles = _profiles(work)
        case "growth":
            found.growth = _growth(work, found.speeds)


def _quality(work: Work) -> list[Quality]:
    plan = work.plan
    own = [one for one in plan.systems if plan.is_pair(one) and one.info.scored]
    scored = translate_texts(own, work.texts, usable_cores(), work.failed, work.say)
    if work.options.comet is not None:
        with work.kept_going("COMET"):
            scored = with_comet(scored, work.options.comet)
    return quality_rows(scored, reference_of(plan))


def _speeds(work: Work) -> Speeds:
    options = work.options
    return measure_speed(
        work.plan.systems,
        work.samples,
        options.cells(),
        options.rounds,
        options.cell_seconds,
        work.plan.main,
        work.failed,
        work.say,
    )


def _limit(work: Work, speeds: Speeds) -> tuple[list[Peak], list[Share]]:
    options = work.options
    peaks = measure_peaks(tuple(options.cells()), options.rounds, options.peak_seconds)
    work.say(f"peaks: {', '.join(f'{p.precision} {p.gops.median:.0f} GOP/s' for p in peaks)}")
    lengths = token_lengths(work.plan, work.samples, speeds)
    return peaks, shares(work.plan, speeds.speed, peaks, lengths)


def _profiles(work: Work) -> list[Profile]:
    found = []
    for system in work.watched:
        with (
            work.kept_going(f"profile of {system.info.name}"),
            Running(system, 1) as running,
        ):
            for batch_size in (1, 32):
                sentences = work.samples.of(batch_size).sentences
                running.time(sentences, batch_size)
                seconds = work.options.profile_seconds
                found.append(profile(running, sentences, batch_size, seconds))
    return found


def _growth(work: Work, speeds: Speeds) -> list[Growth]:
    """Along the axes of the speeds that are there, of text, and of models."""
    found = [one for system in work.watched for one in from_speeds(speeds.speed, system.info.name)]
    for system in work.watched:
        with work.kept_going(f"growth of {system.info.name}"), Running(system, 1) as running:
            found += _growth_along_text(work, running)
    manifest = work.plan.bundle.manifest
    config = dimensions(work.plan).get(manifest.parameters)
    if config is not None:
        with work.kept_going("growth of random models"):
            rounds, quick = work.options.rounds, work.options.quick
            found += along_models(config, manifest.vocab_size, rounds, quick)
    work.say(f"growth: {', '.join(f'{one.axis} ^ {one.exponent:.2f}' for one in found)}")
    return found


def _growth_along_text(work: Work, running: Running) -> list[Growth]:
    tokenizer = load_tokenizer(work.plan.bundle)
    return along_text(
        running,
        work.texts[0].sources[: work.options.whole],
        lambda sentence: len(tokenizer.encode(sentence)),
        work.plan.bundle.manifest.decoding.max_input_tokens,
        work.options.rounds,
    )


def _results(work: Work, found: Found, about: Machine) -> Results:
    plan, options, speeds = work.plan, work.options, found.speeds
    left_out = (Skipped(name=name, reason=why) for name, why in work.failed.items())
    return Results(
        created=datetime.now(UTC).replace(microsecond=0),
        quickstudy_version=version("quickstudy"),
        name=plan.name,
        source=plan.source,
        target=plan.target,
        main_system=plan.main,
        settings=BenchSettings(
            rounds=options.rounds,
            batch_sizes=options.batch_sizes,
            threads=tuple(options.cells()),
            beams=options.beams,
            quick=options.quick,
        ),
        machine=about,
        texts=tuple(text.about() for text in work.texts),
        timed_text=work.texts[0].name,
        systems=tuple(one.info for one in plan.systems),
        skipped=(*plan.skipped, *left_out),
        quality=tuple(found.quality),
        speed=tuple(speeds.speed),
        latency=tuple(speeds.latency),
        cost=tuple(speeds.cost),
        ratios=tuple(speeds.ratios),
        peaks=tuple(found.peaks),
        shares=tuple(found.shares),
        profiles=tuple(found.profiles),
        growth=tuple(found.growth),
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
    return TestText(
        text.name,
        text.sources[:count],
        text.references[:count],
        text.lengths[:count],
        text.buckets[:count],
        text.rarity[:count],
    )

"""The results of a benchmark as one JSON file: typed, versioned, unknown keys refused.

Units are in the names. Every figure that was measured again and again keeps its rounds, so that two
files can be compared with their noise. Speeds count source tokens by the run's own tokenizer and
source words by white space, for every system alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from benchmarks.systems.base import SystemInfo
from quickstudy.atomic import atomic_write
from quickstudy.errors import QuickstudyError

FORMAT_VERSION = 2
"""1 had no domains, length ratios and differences from the shipped system."""
GREEDY = 1


class ResultsError(QuickstudyError):
    """A results file that cannot be used; the message says what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Frozen):
    """A figure measured in rounds: their median, and the interval of 95 % that bootstrapping the
    rounds gives it."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...] = Field(min_length=1)


class Skipped(_Frozen):
    """What was not measured, and why, or which command installs it."""

    name: str
    reason: str


class Machine(_Frozen):
    """What speeds depend on. `noise` says in words what disturbed the run; none if nothing did."""

    processor: str
    cores: int
    instructions: str
    threads_per_core: int | None = None
    governor: str | None = None
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    environment: dict[str, str] = Field(default_factory=dict)
    load_before: float
    load_after: float
    steal_share: float | None = None
    noise: tuple[str, ...] = ()


class BundleRecord(_Frozen):
    """The bundle that was measured. `sha256` is of its files but the manifest and the card: of a
    line each, as `sha256sum` prints it."""

    name: str
    version: str
    sha256: str


class TextRecord(_Frozen):
    """A text that is translated. `sha256` is of the sources and references, a line each. `domain`:
    whether it is the test set of a domain, called by the domain's name."""

    name: str
    sentences: int
    source_tokens: int
    source_words: int
    sha256: str
    bucket_edges: dict[Literal["length", "rarity"], tuple[float, float]] = Field(
        default_factory=dict
    )
    domain: bool = False


class ScoreRecord(_Frozen):
    """A corpus score with its interval of 95 % (bootstrap over sentences)."""

    metric: str
    score: float
    low: float
    high: float
    signature: str


class BucketScore(_Frozen):
    """BLEU of a third of a text: 0 are its shortest (or most common) sentences."""

    by: Literal["length", "rarity"]
    third: int
    sentences: int
    bleu: float


class PairedDifference(_Frozen):
    """BLEU of a system less another's on the same sentences, with its interval of 95 % and the
    two-sided p, by paired bootstrap."""

    difference: float
    low: float
    high: float
    p_value: float


class Quality(_Frozen):
    """How well a system translates a text. `statistics` are BLEU's of each sentence, packed by
    `export.metrics.pack`; `against` is the first teacher, compared by paired bootstrap.
    `length_ratio`: tokens of the translations over those of the references, as BLEU counts them.
    `less_shipped`: against the system that ships; None for itself."""

    system: str
    text: str
    scores: tuple[ScoreRecord, ...]
    buckets: tuple[BucketScore, ...] = ()
    statistics: str
    against: str | None = None
    bleu_difference: float | None = None
    bleu_share: float | None = None
    bleu_share_low: float | None = None
    bleu_share_high: float | None = None
    p_value: float | None = None
    length_ratio: float | None = None
    less_shipped: PairedDifference | None = None

    def score(self, metric: str) -> ScoreRecord | None:
        """The score by that metric, if it was measured."""
        return next((one for one in self.scores if one.metric == metric), None)


class Speed(_Frozen):
    """How fast a system translates a text. `batch_size` 0: the whole file at once."""

    system: str
    text: str
    threads: int
    batch_size: int
    sentences_per_second: Figure
    source_tokens_per_second: float
    source_words_per_second: float
    cpu_seconds_per_million_source_tokens: float
    cores_used: float


class Latency(_Frozen):
    """Milliseconds of sentences translated alone: percentiles of each round. `third` None: all."""

    system: str
    threads: int
    third: int | None
    sentences: int
    mean_source_tokens: float
    p50_ms: Figure
    p95_ms: Figure
    p99_ms: Figure


class Cost(_Frozen):
    """What having a system loaded costs. Memory is in RAM, of its process and its children;
    `bytes_before` is what the process had before it loaded anything."""

    system: str
    threads: int
    load_seconds: float
    bytes_before: int
    bytes_loaded: int
    bytes_peak: int


class Ratio(_Frozen):
    """Sentences a second of a system over those of another, round by round."""

    system: str
    against: str
    threads: int
    batch_size: int
    times: Figure


class Peak(_Frozen):
    """10⁹ operations a second that square matrix products reach, and which library reached it."""

    precision: Literal["float32", "int8"]
    threads: int
    gops: Figure
    kernel: str


class Share(_Frozen):
    """How far a system is from the machine's limit: its arithmetic as a share of both peaks."""

    system: str
    threads: int
    batch_size: int
    operations_per_sentence: float
    gops: float
    share_of_float32: float | None
    share_of_int8: float | None


class ReportPart(_Frozen):
    """A part of a system's processor time, by the library and function that ran."""

    name: str
    share: float


class Profile(_Frozen):
    """Where a system's processor time goes."""

    system: str
    threads: int
    batch_size: int
    method: str
    samples: int
    parts: tuple[ReportPart, ...]


class ScalingPoint(_Frozen):
    """One place on an axis: seconds a unit of work there."""

    x: float
    seconds: Figure


class ScalingFit(_Frozen):
    """How a cost grows: seconds = constant · x ^ exponent, by least squares of logarithms."""

    system: str
    axis: str
    unit: str
    of: str
    points: tuple[ScalingPoint, ...]
    exponent: float
    exponent_low: float
    exponent_high: float
    r_squared: float


class BenchSettings(_Frozen):
    """What was asked for."""

    rounds: int
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    beams: tuple[int, ...]
    quick: bool
    pinned: bool = True


class Results(_Frozen):
    """The whole of a run."""

    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    created: AwareDatetime
    quickstudy_version: str
    name: str
    source: str
    target: str
    bundle: BundleRecord | None = None
    main_system: str
    settings: BenchSettings
    machine: Machine
    texts: tuple[TextRecord, ...]
    timed_text: str | None = None
    systems: tuple[SystemInfo, ...]
    skipped: tuple[Skipped, ...] = ()
    quality: tuple[Quality, ...] = ()
    speed: tuple[Speed, ...] = ()
    latency: tuple[Latency, ...] = ()
    cost: tuple[Cost, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    peaks: tuple[Peak, ...] = ()
    shares: tuple[Share, ...] = ()
    profiles: tuple[Profile, ...] = ()
    growth: tuple[ScalingFit, ...] = ()
    service: dict[str, Any] | None = None
    """What `benchmarks.service_load` measured, as it writes it."""

    def system(self, name: str) -> SystemInfo:
        """The system of that name. Raises KeyError if there is none."""
        for row in self.systems:
            if row.name == name:
                return row
        raise KeyError(name)

    def same_pair(self, name: str) -> bool:
        """Whether a system translates the run's own language pair."""
        row = self.system(name)
        return (row.source, row.target) == (self.source, self.target)

    @property
    def domains(self) -> tuple[TextRecord, ...]:
        """The test sets of domains, in the order that they were given in."""
        return tuple(text for text in self.texts if text.domain)

    def quality_of(self, system: str, text: str) -> Quality | None:
        """The quality of a system on a text, if it was measured."""
        for row in self.quality:
            if (row.system, row.text) == (system, text):
                return row
        return None

    def scored_on(self, texts: Sequence[TextRecord]) -> list[str]:
        """Systems that were scored on one of some texts or more, in the order of the systems."""
        names = {text.name for text in texts}
        scored = {row.system for row in self.quality if row.text in names}
        return [one.name for one in self.systems if one.name in scored]

    def bleu(self, system: str) -> ScoreRecord | None:
        """BLEU of a system on the first text that it was scored on."""
        for row in self.quality:
            if row.system == system:
                return row.scores[0]
        return None

    def speed_of(self, system: str, threads: int, batch_size: int) -> Speed | None:
        """A speed, if it was measured."""
        for row in self.speed:
            if (row.system, row.threads, row.batch_size) == (system, threads, batch_size):
                return row
        return None


def save_results(results: Results, path: Path) -> None:
    """Write results as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, results.model_dump_json(indent=1) + "\n")


def load_results(path: Path) -> Results:
    """Read a results file of any format so far, as one of this format.

    Raises ResultsError, saying what to do.
    """
    try:
        results = Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be read ({error.strerror}): give a JSON file that "
            "`quickstudy bench` wrote"
        ) from None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        if newer := [one for one in faults if one["loc"] == ("format_version",)]:
            raise ResultsError(
                f"{path}: format_version is {newer[0]['input']!r}, this quickstudy reads 1 to "
                f"{FORMAT_VERSION}: install the version that wrote it, or measure again with "
                "`quickstudy bench`"
            ) from None
        first = faults[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ResultsError(
            f"{path}: {field}: {first['msg']}: these are no results of this version of "
            "quickstudy; measure again with `quickstudy bench`"
        ) from None
    return results.model_copy(update={"format_version": FORMAT_VERSION})


def replace_section(page: Path, begin: str, end: str, content: str) -> None:
    """Put text between two markers of a page. Raises ResultsError where it has none."""
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ResultsError(f"{page} has no place for the figures: put {begin} and {end} into it")
    atomic_write(page, f"{before}{begin}\n\n{content}\n\n{end}{after}")

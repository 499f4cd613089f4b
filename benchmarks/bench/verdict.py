"""What the results say, in plain words."""

from __future__ import annotations

from benchmarks.bench.formats import batch_label, decoding, number, percent, spread
from benchmarks.bench.results import Results
from benchmarks.bench.targets import targets
from benchmarks.systems.base import WHOLE


def verdict(results: Results) -> list[str]:
    """Sentences, the most telling first; what spoils the run comes before all."""
    return [*headlines(results), *_targets(results), *_limit(results)]


def headlines(results: Results) -> list[str]:
    """The verdict without what is aimed at and how far from the limit it is."""
    return [
        *_warnings(results),
        *_quality(results),
        *_against_teacher(results),
        *_against_peers(results),
    ]


def reference(results: Results) -> str | None:
    """The teacher that everything is compared with."""
    found = next((row.against for row in results.quality if row.against), None)
    if found is not None:
        return found
    teachers = [row for row in results.systems if row.role == "teacher"]
    if not teachers:
        return None
    return max(teachers, key=lambda one: (one.engine == "torch", one.beam_size)).name


def _warnings(results: Results) -> list[str]:
    found = []
    if results.settings.quick:
        found.append("A quick run on a few sentences: it shows that everything works, no more.")
    if results.machine.noise:
        found.append(f"The machine was noisy ({'; '.join(results.machine.noise)}).")
    return found


def _quality(results: Results) -> list[str]:
    main = results.main_system
    rows = [row for row in results.quality if row.system == main]
    found = []
    for row in rows:
        bleu = row.scores[0]
        said = f"The shipped student has {bleu.score:.1f} BLEU on {row.text}"
        if row.against and row.bleu_share is not None:
            said += (
                f", {percent(row.bleu_share)} of its teacher's (95 %: "
                f"{percent(row.bleu_share_low)} to {percent(row.bleu_share_high)})"
            )
        found.append(said + ".")
    return found


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
    found = []
    if same:
        found.append(
            f"Against other ways to run such a model, one sentence at a time: {', '.join(same)}."
        )
    if other:
        found.append(
            "Against what users would pick instead, in words of the same source text a second, one "
            f"sentence at a time: {', '.join(other)}. These are other models of another language "
            "pair: no quality is compared."
        )
    return found


def _targets(results: Results) -> list[str]:
    """What is aimed at, by whether it is met; what was not measured says so."""
    found: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for one in targets(results):
        found[one.met].append(f"{one.aim}: {one.measured}" if one.measured else one.aim)
    words = {True: "Targets met", False: "Targets not met", None: "Targets not measured"}
    return [f"{words[met]}: {'; '.join(some)}." for met, some in found.items() if some]


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

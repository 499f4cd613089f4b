"""What changed between two results, with the noise of both taken into account.

A speed, a latency, a load or a memory has changed for the worse beyond a limit where the change is
larger than the limit and the interval of 95 % of the change, bootstrapped from the rounds of both,
leaves out no change. BLEU of the same text is compared sentence by sentence by paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.bench.formats import batch_label, number
from benchmarks.bench.report_markdown import markdown_table
from benchmarks.bench.results import Figure, Machine, Quality, Results
from benchmarks.bench.rounds import resampled_medians
from benchmarks.bench.table import Table
from export.bootstrap import bleu_of, paired_bootstrap, unpack

CERTAIN = 0.05
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Change:
    """One figure before and after. `times` is after over before with its interval; for BLEU it is
    the difference. `worse`: beyond the limit and no chance."""

    system: str
    figure: str
    before: float
    after: float
    change: float
    low: float
    high: float
    worse: bool
    better: bool
    unit: str = "×"


@dataclass
class Comparison:
    """All changes, and what a reader must know first."""

    notes: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def regressions(self) -> list[Change]:
        return [one for one in self.changes if one.worse]


def compare_results(before: Results, after: Results, limit: float, bleu_limit: float) -> Comparison:
    """Every figure that both results have. `limit` is the share of a speed, latency, load or memory
    that may be lost, `bleu_limit` the BLEU.

    Speeds of unlike machines are left out: they say nothing of the program.
    """
    found = Comparison()
    found.notes += list(_notes(before, after))
    found.changes += _quality_changes(before, after, bleu_limit)
    if same_machine(before.machine, after.machine):
        found.changes += _speed_changes(before, after, limit)
        found.changes += _latency_changes(before, after, limit)
        found.changes += _cost_changes(before, after, limit)
    return found


def same_machine(one: Machine, other: Machine) -> bool:
    """Whether speeds of the two may be compared."""
    keys = ("processor", "cores", "instructions", "threads_per_core", "environment")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _notes(before: Results, after: Results) -> Iterator[str]:
    if not same_machine(before.machine, after.machine):
        yield (
            f"Another machine ({before.machine.processor}, then {after.machine.processor}): speeds "
            "are not compared."
        )
    for name, results in (("before", before), ("after", after)):
        if results.machine.noise:
            yield f"Noisy {name}: {'; '.join(results.machine.noise)}."
        if results.settings.quick:
            yield f"A quick run {name}: its speeds are not to be believed."
    old, new = before.machine.versions, after.machine.versions
    for package in sorted(old.keys() | new.keys()):
        if old.get(package) != new.get(package):
            yield f"{package}: {old.get(package, 'none')}, then {new.get(package, 'none')}."
    names = {row.name for row in before.systems}, {row.name for row in after.systems}
    if gone := sorted(names[0] - names[1]):
        yield f"Only before: {', '.join(gone)}."
    if come := sorted(names[1] - names[0]):
        yield f"Only after: {', '.join(come)}."


def _quality_changes(before: Results, after: Results, limit: float) -> Iterator[Change]:
    texts = {text.name: text.sha256 for text in before.texts}
    same = {text.name for text in after.texts if texts.get(text.name) == text.sha256}
    old = {(row.system, row.text): row for row in before.quality}
    for row in after.quality:
        former = old.get((row.system, row.text))
        if former is not None and row.text in same:
            yield _bleu_change(former, row, limit)


def _bleu_change(before: Quality, after: Quality, limit: float) -> Change:
    old, new = unpack(before.statistics), unpack(after.statistics)
    paired = paired_bootstrap([new], [old])
    low, high = np.quantile(paired.resampled, INTERVAL)
    certain = paired.p_value < CERTAIN
    return Change(
        system=after.system,
        figure=f"BLEU, {after.text}",
        before=round(bleu_of(old), 2),
        after=round(bleu_of(new), 2),
        change=round(paired.difference, 2),
        low=round(float(low), 2),
        high=round(float(high), 2),
        worse=certain and paired.difference < -limit,
        better=certain and paired.difference > limit,
        unit="+",
    )


def _speed_changes(before: Results, after: Results, limit: float) -> Iterator[Change]:
    for row in after.speed:
        former = before.speed_of(row.system, row.threads, row.batch_size)
        if former is None or former.text != row.text:
            continue
        label = f"sentences/s, {batch_label(row.batch_size)}, {row.threads} thread(s)"
        pair = former.sentences_per_second, row.sentences_per_second
        yield ratio_change(row.system, label, *pair, limit, more_is_better=True)


def _latency_changes(before: Results, after: Results, limit: float) -> Iterator[Change]:
    old = {(row.system, row.threads): row for row in before.latency if row.third is None}
    for row in after.latency:
        former = old.get((row.system, row.threads)) if row.third is None else None
        if former is None:
            continue
        for percentile in ("p50_ms", "p95_ms"):
            label = f"{percentile[:3]}, ms, {row.threads} thread(s)"
            pair = getattr(former, percentile), getattr(row, percentile)
            yield ratio_change(row.system, label, *pair, limit, more_is_better=False)


def _cost_changes(before: Results, after: Results, limit: float) -> Iterator[Change]:
    """Memory hardly varies from run to run, so that one value is enough; loading does, and is not
    judged."""
    old = {(row.system, row.threads): row for row in before.cost}
    for row in after.cost:
        former = old.get((row.system, row.threads))
        if former is None:
            continue
        times = row.bytes_peak / former.bytes_peak
        yield Change(
            system=row.system,
            figure=f"MB at most, {row.threads} thread(s)",
            before=former.bytes_peak / 1e6,
            after=row.bytes_peak / 1e6,
            change=times,
            low=times,
            high=times,
            worse=times > 1 + limit,
            better=times < 1 - limit,
        )


def ratio_change(
    system: str, label: str, before: Figure, after: Figure, limit: float, more_is_better: bool
) -> Change:
    """After over before, with the interval that resampling the rounds of both gives it."""
    old = resampled_medians(before.rounds)
    # Another order than the one that resampled `before`, or the two would move together.
    new = np.random.default_rng(1).permutation(resampled_medians(after.rounds))
    low, high = (float(value) for value in np.quantile(new / old, INTERVAL))
    times = after.median / before.median
    less, more = times < 1 - limit and high < 1, times > 1 + limit and low > 1
    return Change(
        system=system,
        figure=label,
        before=before.median,
        after=after.median,
        change=times,
        low=low,
        high=high,
        worse=less if more_is_better else more,
        better=more if more_is_better else less,
    )


def render(found: Comparison) -> str:
    """The comparison as Markdown: what changed first, then how much was compared."""
    blocks = list(found.notes)
    for title, some in (
        ("Worse", found.regressions),
        ("Better", [one for one in found.changes if one.better]),
        ("The same, or within the limits and the noise", _others(found)),
    ):
        if some:
            blocks += [f"## {title}", markdown_table(_table(title, some))]
    if not found.changes:
        blocks.append(
            "The two results have no figure in common, so nothing was compared: give results of "
            "the same systems on the same text, and of the same machine for speeds."
        )
        return "\n\n".join(blocks)
    count = len(found.regressions)
    blocks.append(
        f"{len(found.changes)} figures compared, "
        + (f"{count} worse beyond the limit." if count else "none worse beyond the limit.")
    )
    return "\n\n".join(blocks)


def _others(found: Comparison) -> list[Change]:
    return [one for one in found.changes if not one.worse and not one.better]


def _table(title: str, changes: Sequence[Change]) -> Table:
    head = ["system", "figure", "before", "after", "change (95 %)"]
    rows = [
        [one.system, one.figure, number(one.before, 4), number(one.after, 4), _shown(one)]
        for one in changes
    ]
    return Table(title, head, rows, words=frozenset({1}))


def _shown(change: Change) -> str:
    if change.unit == "+":
        return f"{change.change:+.2f} ({change.low:+.2f} to {change.high:+.2f})"
    return f"×{change.change:.2f} ({change.low:.2f}–{change.high:.2f})"

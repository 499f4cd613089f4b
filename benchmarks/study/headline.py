"""Does a method beat all of `TO_BEAT`? A sentence for each group and decoding, then by method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.study.comparisons import Comparisons, Place


@dataclass(frozen=True)
class Contest:
    """Places whose results are told together: one student and decoding, by every test set."""

    name: str
    places: tuple[Place, ...]


def listed(names: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join(part for part in (", ".join(quoted[:-1]), *quoted[-1:]) if part)


def headline(
    comparisons: Comparisons, contests: Sequence[Contest], label: Callable[[Place], str]
) -> list[str]:
    """A bullet a contest; `label` names a place among those of its contest."""
    return [f"- {contest.name}: {_outcome(comparisons, contest, label)}." for contest in contests]


def _outcome(comparisons: Comparisons, contest: Contest, label: Callable[[Place], str]) -> str:
    others = list(dict.fromkeys(o for place in contest.places for o in comparisons.others(place)))
    methods = dict.fromkeys(m for place in contest.places for m in comparisons.methods(place))
    if not methods:
        return "nothing to compare yet"
    winners: list[str] = []
    undecided = 0
    for method in methods:
        verdicts = {place: comparisons.verdict(place, method) for place in contest.places}
        if not any(verdict.decided for verdict in verdicts.values()):
            undecided += 1
            continue
        won = [label(place) for place, verdict in verdicts.items() if verdict.beats_all]
        if won:
            where = "" if len(won) == len(verdicts) else f" on {' and '.join(won)} alone"
            winners.append(f"`{method}` beats {_all(others)}{where}")
    if undecided == len(methods):
        return f"one seed against {listed(others)}, so nothing is claimed"
    said = "; ".join(winners) or f"no method beats {_all(others)}"
    return said + (f" ({undecided} more of one seed)" if undecided else "")


def _all(others: Sequence[str]) -> str:
    return f"all of {listed(others)}" if len(others) > 1 else listed(others)


def verdict_table(
    comparisons: Comparisons, contests: Sequence[Contest], label: Callable[[Place], str]
) -> list[str]:
    """Lines of Markdown: what each method beats, and loses to, in each place."""
    lines = ["| method | measured on | beats | does not differ from | loses to |"]
    lines.append("|---|---|---|---|---|")
    for contest in contests:
        for place in contest.places:
            for method in comparisons.methods(place):
                verdict = comparisons.verdict(place, method)
                if not verdict.decided:
                    continue
                cells = [", ".join(f"`{one}`" for one in names) or "–" for names in verdict[:3]]
                where = f"{contest.name}, {label(place)}"
                lines.append(f"| `{method}` | {where} | {' | '.join(cells)} |")
    return [*lines, ""] if len(lines) > 2 else []

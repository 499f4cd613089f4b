"""One table of several studies: method by corpus, greedy, against each of `TO_BEAT`.

Of each study it shows the student and the text of its first rows, which its grid names first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.study.comparisons import (
    TO_BEAT,
    Comparison,
    Comparisons,
    Place,
    comparisons_at,
)
from benchmarks.study.config import StudyError
from benchmarks.study.headline import Contest, headline
from benchmarks.study.table import StudyTable, budget, group_label
from export.metrics import Paired

GREEDY = 1


@dataclass(frozen=True)
class Corpus:
    """A study's rows, and where its methods are compared."""

    table: StudyTable
    places: tuple[Place, ...]


def corpus_of(table: StudyTable) -> Corpus:
    """The first group of a study by every test set. Raises StudyError without greedy output."""
    settings = [setting for setting in table.settings() if setting.beam == GREEDY]
    if not settings:
        raise StudyError("a study without greedy output of a student cannot be shown beside others")
    name, (text, student) = table.rows[0]["study"], table.groups()[0]
    return Corpus(table, tuple(Place(text, student, setting, name) for setting in settings))


def corpora_section(tables: Sequence[StudyTable]) -> list[str]:
    """Lines of Markdown. Raises StudyError where two are of one study."""
    corpora = [corpus_of(table) for table in tables]
    names = [corpus.places[0].study for corpus in corpora]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise StudyError(f"two of the results are of the study {twice}: give another study's")
    shown: dict[Comparison, Paired] = {}
    for corpus in corpora:
        for place in corpus.places:
            shown |= comparisons_at(corpus.table, place, TO_BEAT)
    comparisons = Comparisons(shown)
    places = tuple(place for corpus in corpora for place in corpus.places)
    others = [one for one in TO_BEAT if any(one in comparisons.others(place) for place in places)]
    lines = [
        "## Over several corpora",
        "",
        *headline(comparisons, [Contest("Greedily", places)], _label),
        "",
        *(f"- {_described(corpus)}" for corpus in corpora),
        "",
        comparisons.note(),
        "",
        "| method | measured on | seeds | BLEU |"
        + "".join(f" against `{other}` (p) |" for other in others),
        "|---|---|--:|--:|" + "--:|" * len(others),
    ]
    methods = dict.fromkeys(
        method
        for corpus in corpora
        for place in corpus.places[:1]
        for method in corpus.table.methods(place.text, place.student)
    )
    for method in methods:
        for corpus in corpora:
            for place in corpus.places:
                rows = corpus.table.of(place.text, place.student, method)
                if not rows:
                    continue
                cells = [f"`{method}`", _label(place), str(len(rows))]
                cells.append(str(corpus.table.metric(rows, place.setting, "BLEU")))
                cells += [comparisons.cell(place, method, other) for other in others]
                lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _label(place: Place) -> str:
    return f"{place.study}: {place.setting.test}"


def _described(corpus: Corpus) -> str:
    row, place = corpus.table.rows[0], corpus.places[0]
    size = f"{row['parameters'] / 1e6:.2f} M parameters"
    return f"{place.study}: {group_label(place.text, place.student)}, {size}, {budget(row)}"

"""The report of a study: tables, and the paper's claims in words, each with its numbers.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024) claims
that token-level distillation suits simple scenarios and sentence-level distillation complex ones
(by student size, text complexity and decoding), and that a gated hybrid beats both.

A group is the rows that differ in method and seed alone: one text, one student size.

Only what several seeds show is called a difference: p then counts seeds as well as sentences, and
of the many comparisons at most a twentieth of those called significant is to be false.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots import draw_study
from benchmarks.study.config import OWN, Study
from benchmarks.study.gate_tables import gate_tables
from benchmarks.study.run import RESULTS, read_rows
from export.metrics import (
    Paired,
    benjamini_hochberg,
    bleu_of,
    hierarchical_bootstrap,
    paired_bootstrap,
    signature,
    two_sided,
    unpack,
)
from quickstudy.atomic import atomic_write

# --- rows, grouped and compared -------------------------------------------------------------------

Row = dict[str, Any]
TEACHER = "teacher"
CLAIMANTS = ("hybrid", "on-policy")
"""Methods whose names begin so are to beat all of the next line."""
TO_BEAT = ("sentence", "token", "token-hypothesis", "nll")
FALSE_SHARE = 0.05
"""Share of the differences called significant that may be false, 0 to 1."""


@dataclass(frozen=True)
class Setting:
    """How a number was measured: test set and beam size (1 is greedy, 0 teacher forcing)."""

    test: str
    beam: int

    @property
    def label(self) -> str:
        named = {0: "teacher forcing", 1: "greedy"}
        decoding = named.get(self.beam, f"beam {self.beam}")
        return f"{self.test}, {decoding}"


@dataclass(frozen=True)
class Mean:
    """Of some seeds: mean, sample standard deviation (0 for one seed), and how many."""

    value: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.seeds == 1 else f"{self.value:.2f} ± {self.spread:.2f}"


def mean_of(values: list[float]) -> Mean:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to take a mean of")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Mean(float(np.mean(values)), spread, len(values))


def share_seeds(one: list[Row], other: list[Row]) -> bool:
    """Whether two methods have rows of the same seed, so that they can be compared."""
    return bool({row["seed"] for row in one} & {row["seed"] for row in other})


class StudyTable:
    """Rows of one study. Cached statistics: comparisons read them again and again."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = [row for row in rows if row["method"] != TEACHER]
        self.teachers = [row for row in rows if row["method"] == TEACHER]
        self._statistics: dict[tuple[int, Setting], np.ndarray] = {}

    def values(self, field: str) -> list[str]:
        """The distinct values of a field, in the order of the rows."""
        return list(dict.fromkeys(row[field] for row in self.rows))

    def settings(self) -> list[Setting]:
        """Every test set with every beam size, teacher forcing last."""
        tests = self.rows[0]["tests"] if self.rows else {}
        found = [
            Setting(name, int(key.removeprefix("beam")))
            for name, test in tests.items()
            for key in test
            if key.startswith("beam")
        ]
        return sorted(found, key=lambda setting: setting.beam == 0)

    def groups(self) -> list[tuple[str, str]]:
        """(text, student) of every group."""
        return list(dict.fromkeys((row["text"], row["student"]) for row in self.rows))

    def of(self, text: str, student: str, method: str) -> list[Row]:
        """Rows of a method in a group, one a seed."""
        wanted = (text, student, method)
        return [row for row in self.rows if (row["text"], row["student"], row["method"]) == wanted]

    def methods(self, text: str, student: str) -> list[str]:
        """Methods of a group, in the order of the rows."""
        inside = [r["method"] for r in self.rows if (r["text"], r["student"]) == (text, student)]
        return list(dict.fromkeys(inside))

    def sizes(self, text: str) -> dict[str, int]:
        """Parameters of the students on a text, fewest first. Of students of one size, which differ
        in their training, the first counts."""
        first: dict[int, str] = {}
        for row in self.rows:
            if row["text"] == text:
                first.setdefault(row["parameters"], row["student"])
        return {student: parameters for parameters, student in sorted(first.items())}

    def statistics(self, row: Row, setting: Setting) -> np.ndarray:
        """BLEU statistics of each sentence, [S, 6]."""
        key = (id(row), setting)
        if key not in self._statistics:
            packed = row["tests"][setting.test][f"beam{setting.beam}"]["statistics"]
            self._statistics[key] = unpack(packed)
        return self._statistics[key]

    def bleu(self, rows: list[Row], setting: Setting, inside: np.ndarray | None = None) -> Mean:
        """Mean BLEU over seeds, of all sentences or of those `inside` (bool, [S])."""
        statistics = [self.statistics(row, setting) for row in rows]
        return mean_of([bleu_of(one if inside is None else one[inside]) for one in statistics])

    def metric(self, rows: list[Row], setting: Setting, name: str) -> Mean:
        """Mean of a stored score (BLEU, chrF2) over seeds."""
        return mean_of([row["tests"][setting.test][f"beam{setting.beam}"][name] for row in rows])

    def compare(
        self,
        rows: list[Row],
        baseline: list[Row],
        setting: Setting,
        inside: np.ndarray | None = None,
    ) -> Paired:
        """Bootstrap of two methods on the seeds that both have: of sentences and seeds, or of
        sentences alone where there is one seed."""
        by_seed = [{row["seed"]: row for row in some} for some in (rows, baseline)]
        common = sorted(by_seed[0].keys() & by_seed[1].keys())
        both = [[self.statistics(some[seed], setting) for seed in common] for some in by_seed]
        if inside is not None:
            both = [[one[inside] for one in some] for some in both]
        compare = hierarchical_bootstrap if len(common) > 1 else paired_bootstrap
        return compare(both[0], both[1])

    def bucket(self, setting: Setting, column: int, third: int) -> np.ndarray:
        """Which sentences of a test set are in a third: by length (column 0), rarity (1)."""
        buckets = unpack(self.rows[0]["tests"][setting.test]["buckets"])
        inside: np.ndarray = buckets[:, column] == third
        return inside


Pair = tuple[str, str, str, str, Setting]
"""Text, student, method, the method that it is compared with, and how both were measured."""


class Comparisons:
    """Every comparison of two methods that a report shows, and which of them are significant: those
    of several seeds that pass Benjamini and Hochberg's procedure at `FALSE_SHARE`."""

    def __init__(self, study: Study, table: StudyTable) -> None:
        self.study = study
        self.shown: dict[Pair, Paired] = {}
        for text, student in table.groups():
            methods = table.methods(text, student)
            for method in methods:
                others = TO_BEAT if method.startswith(CLAIMANTS) else ()
                for other in dict.fromkeys([*study.baselines, *others]):
                    rows = table.of(text, student, method), table.of(text, student, other)
                    if method == other or not share_seeds(*rows):
                        continue
                    for setting in table.settings():
                        pair = (text, student, method, other, setting)
                        self.shown[pair] = table.compare(*rows, setting)
        several = [paired.p_value for paired in self.shown.values() if paired.seeds > 1]
        self.several = len(several)
        self.threshold = benjamini_hochberg(several, FALSE_SHARE)

    def significant(self, paired: Paired) -> bool:
        """Whether several seeds show a difference, the number of comparisons counted."""
        return paired.seeds > 1 and paired.p_value <= self.threshold

    def note(self) -> str:
        """What p means here, in a sentence or two."""
        return (
            f"p of several seeds is by a bootstrap of sentences and seeds; {self.several} of the "
            f"{len(self.shown)} comparisons have several, and those with p ≤ {self.threshold:.3f} "
            f"count as significant (Benjamini and Hochberg, false discovery rate {FALSE_SHARE}). "
            "p of one seed, in italics, speaks of the sentences of that one run alone, so nothing "
            "is claimed from it."
        )


@dataclass(frozen=True)
class Advantage:
    """Of one method over another at one point of an axis."""

    where: str
    paired: Paired

    def __str__(self) -> str:
        seeds = "one seed" if self.paired.seeds == 1 else f"{self.paired.seeds} seeds"
        p_value = f"p = {self.paired.p_value:.3f}, {seeds}"
        return f"{self.where}: {self.paired.difference:+.2f} ({p_value})"


def advantages(
    table: StudyTable,
    points: list[str],
    rows_at: Callable[[str, str], list[Row]],
    setting: Setting,
    methods: tuple[str, str],
) -> list[Advantage]:
    """`methods[0]` over `methods[1]` at every point of an axis where both were trained."""
    rows = []
    for point in points:
        one, other = (rows_at(point, method) for method in methods)
        if share_seeds(one, other):
            rows.append(Advantage(point, table.compare(one, other, setting)))
    return rows


# --- report ---------------------------------------------------------------------------------------

TOKEN_OVER_SENTENCE = ("token", "sentence")
P_OF_AN_AXIS = 0.01
"""Five axes are tested: a twentieth, shared among them (Bonferroni)."""


def write_report(study: Study, out: Path) -> Path:
    """Render `out/results.jsonl` as `out/report.md` with its figures; → the report."""
    table = StudyTable(read_rows(out / RESULTS))
    figures = draw_study(table, out) if table.rows else []
    lines = [f"# Study {study.name}", ""]
    if study.description:
        lines += [study.description, ""]
    lines += [_progress(study, table), ""]
    if table.rows:
        comparisons = Comparisons(study, table)
        lines += ["## What the rows say", "", *findings(table, comparisons), ""]
        lines += [line for name in figures for line in (f"![{name}]({name})", "")]
        lines += (
            _tables(study, table, comparisons)
            + _buckets(table)
            + gate_tables(table.rows)
            + _signatures(table)
        )
    atomic_write(out / "report.md", "\n".join(lines).rstrip() + "\n")
    return out / "report.md"


def _progress(study: Study, table: StudyTable) -> str:
    cells = study.cells()
    have = {(r["text"], r["student"], r["method"], r["seed"]) for r in table.rows}
    done = sum(tuple(cell) in have for cell in cells)
    return f"{done} of {len(cells)} students of the grid are trained and measured."


# --- findings ------------------------------------------------------------------------------------


def findings(table: StudyTable, comparisons: Comparisons) -> list[str]:
    """The claims, one by one, where the rows speak of them."""
    setting = table.settings()[0]
    lines = [f"Measured on {setting.label}; differences in BLEU. {comparisons.note()}", ""]
    lines += [f"- {line}" for line in _hybrid_claim(table, comparisons, setting)]
    sizes = advantages(
        table,
        list(table.sizes(OWN)),
        lambda student, method: table.of(OWN, student, method),
        setting,
        TOKEN_OVER_SENTENCE,
    )
    lines += _axis_claim("larger students (simpler)", sizes, grows=True)
    for kind, texts in noise_axes(comparisons.study).items():
        noisy = advantages(
            table,
            texts,
            lambda text, method: table.of(text, OWN, method),
            setting,
            TOKEN_OVER_SENTENCE,
        )
        lines += _axis_claim(f"harder text (source words: {kind})", noisy, grows=False)
    for name, column in (("longer sources", 0), ("rarer source words", 1)):
        lines += _axis_claim(name, _bucket_advantages(table, setting, column), grows=False)
    return [*lines, *_decoding_claim(table)]


def noise_axes(study: Study) -> dict[str, list[str]]:
    """The recipe's own text and those with ever more noise, by the kind of noise."""
    shares: dict[str, dict[str, float]] = {}
    for name, assignments in study.texts.items():
        set_to = dict(one.split("=", 1) for one in assignments)
        if "corpus.noise" in set_to:
            kind = set_to.get("corpus.noise_kinds", "mixed").strip("[] ")
            shares.setdefault(kind, {})[name] = float(set_to["corpus.noise"])
    return {kind: [OWN, *sorted(texts, key=texts.__getitem__)] for kind, texts in shares.items()}


def _decoding_claim(table: StudyTable) -> list[str]:
    """The paper's axis, from teacher forcing to the widest beam, where it was measured; else from
    greedy decoding on, the wider beam being the easier."""
    points = _beam_advantages(table)
    if any(setting.beam == 0 for setting in table.settings()):
        return _axis_claim("harder decoding (teacher forcing to beam)", points, grows=False)
    return _axis_claim("beam search (easier decoding)", points, grows=True)


def _hybrid_claim(table: StudyTable, comparisons: Comparisons, setting: Setting) -> list[str]:
    lines = []
    for text, student in table.groups():
        for hybrid in table.methods(text, student):
            parts = [
                _against(other, comparisons.shown[pair], comparisons)
                for other in TO_BEAT
                if hybrid.startswith(CLAIMANTS)
                and (pair := (text, student, hybrid, other, setting)) in comparisons.shown
            ]
            if parts:
                lines.append(f"{_group(text, student)}: `{hybrid}` {', '.join(parts)}.")
    return lines


def _against(other: str, paired: Paired, comparisons: Comparisons) -> str:
    size = f"({paired.difference:+.2f}, p = {paired.p_value:.3f})"
    if paired.seeds == 1:
        return (
            f"was {'ahead of' if paired.difference > 0 else 'behind'} `{other}` in one run {size}"
        )
    if not comparisons.significant(paired):
        return f"does not differ from `{other}` {size}"
    return f"{'beats' if paired.difference > 0 else 'loses to'} `{other}` {size}"


def _bucket_advantages(table: StudyTable, setting: Setting, column: int) -> list[Advantage]:
    one, other = (table.of(OWN, OWN, method) for method in TOKEN_OVER_SENTENCE)
    if not share_seeds(one, other):
        return []
    return [
        Advantage(name, table.compare(one, other, setting, table.bucket(setting, column, third)))
        for third, name in enumerate(("first third", "second third", "last third"))
    ]


def _beam_advantages(table: StudyTable) -> list[Advantage]:
    one, other = (table.of(OWN, OWN, method) for method in TOKEN_OVER_SENTENCE)
    if not share_seeds(one, other):
        return []
    test = table.settings()[0].test
    return [
        Advantage(setting.label, table.compare(one, other, setting))
        for setting in sorted(table.settings(), key=lambda setting: setting.beam)
        if setting.test == test
    ]


def _axis_claim(axis: str, axis_advantages: list[Advantage], grows: bool) -> list[str]:
    """Whether token-over-sentence grows (or shrinks) along an axis as the paper claims."""
    if len(axis_advantages) < 2:
        return []
    first, last = axis_advantages[0].paired, axis_advantages[-1].paired
    change = last.difference - first.difference
    p_value = two_sided(last.resampled - first.resampled, change)
    points = "; ".join(str(one) for one in axis_advantages)
    size = f"{change:+.2f} from end to end, p = {p_value:.3f}"
    direction = "more" if change > 0 else "less"
    agrees = f"{'' if (change > 0) == grows else 'not '}the paper's direction"
    if min(first.seeds, last.seeds) == 1:
        said = f"single runs show a change of token-level less sentence-level ({size}), {agrees}"
    elif p_value >= P_OF_AN_AXIS:
        said = f"token-level less sentence-level does not change significantly ({size})"
    else:
        said = f"token-level gains {direction} on sentence-level ({size}), which is {agrees}"
    return [f"- Along {axis}, {said}. Token less sentence, {points}."]


# --- tables --------------------------------------------------------------------------------------


def _group(text: str, student: str) -> str:
    shown = "the recipe's student" if student == OWN else f"student `{student}`"
    return shown if text == OWN else f"{shown} on text `{text}`"


def _tables(study: Study, table: StudyTable, comparisons: Comparisons) -> list[str]:
    lines: list[str] = []
    for text, student in table.groups():
        for setting in table.settings():
            lines += _table(study, table, comparisons, (text, student), setting)
    return lines


def _table(
    study: Study,
    table: StudyTable,
    comparisons: Comparisons,
    group: tuple[str, str],
    setting: Setting,
) -> list[str]:
    text, student = group
    methods = table.methods(text, student)
    size = table.of(text, student, methods[0])[0]["parameters"]
    against = [name for name in study.baselines if name in methods]
    head = f"### {_group(text, student)} ({size / 1e6:.2f} M parameters): {setting.label}"
    lines = [
        head[0:4] + head[4].upper() + head[5:],
        "",
        "| method | seeds | BLEU | chrF2 | validation BLEU |"
        + "".join(f" against `{name}` (p) |" for name in against),
        "|---|--:|--:|--:|--:|" + "--:|" * len(against),
    ]
    for row in table.teachers:
        if row["text"] == text:
            measured = row["tests"][setting.test][f"beam{setting.beam}"]
            lines.append(
                f"| *teacher*, {row['parameters'] / 1e6:.1f} M | | {measured['BLEU']:.2f} "
                f"| {measured['chrF2']:.2f} | {row['validation_bleu']:.2f} |" + " |" * len(against)
            )
    for method in methods:
        rows = table.of(text, student, method)
        validation = sum(row["validation_bleu"] for row in rows) / len(rows)
        cells = [
            f"`{method}`",
            str(len(rows)),
            str(table.metric(rows, setting, "BLEU")),
            str(table.metric(rows, setting, "chrF2")),
            f"{validation:.2f}",
        ]
        cells += [_compared(comparisons, (*group, method, name, setting)) for name in against]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _compared(comparisons: Comparisons, pair: Pair) -> str:
    paired = comparisons.shown.get(pair)
    if paired is None:
        return "–"
    shown = f"{paired.difference:+.2f} ({paired.p_value:.3f})"
    if paired.seeds == 1:
        return f"*{shown}*"
    return f"**{shown}**" if comparisons.significant(paired) else shown


def _buckets(table: StudyTable) -> list[str]:
    setting = table.settings()[0]
    methods = table.methods(OWN, OWN)
    if not methods:
        return []
    names = [f"{kind} {third}" for kind in ("length", "rarity") for third in (1, 2, 3)]
    lines = [
        f"### BLEU by thirds of the test set: {setting.label}",
        "",
        "Thirds by source length (1 the shortest) and by how rare the source words are in the "
        "training text (1 the most common).",
        "",
        f"| method | {' | '.join(names)} |",
        "|---|" + "--:|" * len(names),
    ]
    for method in methods:
        rows = table.of(OWN, OWN, method)
        values = [
            table.bleu(rows, setting, table.bucket(setting, column, third)).value
            for column in (0, 1)
            for third in range(3)
        ]
        lines.append(f"| `{method}` | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return [*lines, ""]


def _signatures(table: StudyTable) -> list[str]:
    row, setting = table.rows[0], table.settings()[0]
    bleu, chrf = row["tests"][setting.test][f"beam{setting.beam}"]["signatures"]
    versions = row["machine"]
    precisions = sorted({one["precision"] for one in table.rows})
    stores = sorted({one["labels"] for one in table.rows if one["labels"]})
    lines = [
        "### Signatures",
        "",
        f"BLEU `{bleu}`; chrF2 `{chrf}`; comparisons `{signature()}`. Spread: sample "
        "standard deviation over seeds. Bold: significant, as said above; italics: one seed.",
        f"Students are trained in {' and '.join(precisions)}, translate in CTranslate2 "
        f"{versions['ctranslate2']} float32; torch {versions['torch']}, {versions['processor']}.",
    ]
    if len(stores) > len(table.values("text")):
        lines.append("Rows were taught from different label stores: compare them with care.")
    return lines

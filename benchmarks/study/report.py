"""The report of a study: tables, and the paper's claims in words, each with its numbers.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024) claims
that token-level distillation suits simple scenarios and sentence-level distillation complex ones
(by student size, text complexity and decoding), and that a gated hybrid beats both.

A group is the rows that differ in method and seed alone: one text, one student size.

Only what several seeds show is called a difference: p then counts seeds as well as sentences, and
of the many comparisons at most a twentieth of those called significant is to be false.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.plots import draw_study
from benchmarks.study.axes import axes, axis_claims
from benchmarks.study.config import OWN, Study
from benchmarks.study.gate_tables import gate_tables
from benchmarks.study.run import RESULTS, read_rows
from benchmarks.study.table import Setting, StudyTable, share_seeds
from export.metrics import (
    Paired,
    benjamini_hochberg,
    signature,
)
from quickstudy.atomic import atomic_write

# --- rows, grouped and compared -------------------------------------------------------------------

CLAIMANTS = ("hybrid", "on-policy")
"""Methods whose names begin so are to beat all of the next line."""
TO_BEAT = ("sentence", "token", "token-hypothesis", "nll")
FALSE_SHARE = 0.05
"""Share of the differences called significant that may be false, 0 to 1."""


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


# --- report ---------------------------------------------------------------------------------------


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
    return [*lines, *axis_claims(axes(table, comparisons.study, setting))]


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

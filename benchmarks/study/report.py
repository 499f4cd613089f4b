"""The report of a study: tables, and the paper's claims in words, each with its numbers.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024) claims
that token-level distillation suits simple scenarios and sentence-level distillation complex ones
(by student size, text complexity and decoding), and that a gated hybrid beats both.

A group is the rows that differ in method and seed alone: one text, one student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.plots import draw_study
from benchmarks.study.axes import axes, axis_claims, noise_axes
from benchmarks.study.comparisons import (
    TO_BEAT,
    Comparison,
    Comparisons,
    Place,
    comparisons_at,
)
from benchmarks.study.config import OWN, Study
from benchmarks.study.corpora import corpora_section
from benchmarks.study.gate_tables import gate_tables
from benchmarks.study.headline import Contest, headline, verdict_table
from benchmarks.study.run import RESULTS, read_rows
from benchmarks.study.table import Row, Setting, StudyTable, budget, group_label, mean_of
from export.metrics import Paired, signature
from quickstudy.atomic import atomic_write

# --- report ---------------------------------------------------------------------------------------


def write_report(study: Study, out: Path, others: Sequence[Path] = ()) -> Path:
    """Render `out/results.jsonl` as `out/report.md` with its figures; → the report.

    With the results files of `others`, studies of other corpora, it begins with a table of all.
    """
    table = StudyTable(read_rows(out / RESULTS))
    figures = draw_study(table, noise_axes(study), out) if table.rows else []
    lines = [f"# Study {study.name}", ""]
    if study.description:
        lines += [study.description, ""]
    lines += [_progress(study, table), ""]
    if others:
        lines += corpora_section([table, *(StudyTable(read_rows(path)) for path in others)])
    if table.rows:
        comparisons = compare_groups(study, table)
        lines += ["## What the rows say", "", *findings(study, table, comparisons), ""]
        lines += [line for name in figures for line in (f"![{name}]({name})", "")]
        lines += (
            _varied(study, table)
            + _tables(study, table, comparisons)
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


# --- findings -------------------------------------------------------------------------------------


def compare_groups(study: Study, table: StudyTable) -> Comparisons:
    """Every method of every group against the study's baselines and what it is to beat."""
    others = list(dict.fromkeys([*study.baselines, *TO_BEAT]))
    shown: dict[Comparison, Paired] = {}
    for text, student in table.groups():
        for setting in table.settings():
            shown |= comparisons_at(table, Place(text, student, setting), others)
    return Comparisons(shown)


def findings(study: Study, table: StudyTable, comparisons: Comparisons) -> list[str]:
    """The claims, one by one, where the rows speak of them."""
    contests = list(_contests(table))
    setting = table.settings()[0]
    lines = [f"Differences in BLEU. {comparisons.note()}", ""]
    lines += [*headline(comparisons, contests, _test_set), ""]
    lines += verdict_table(comparisons, contests, _test_set)
    claims = axis_claims(axes(table, study, setting))
    return [*lines, *([f"Along the axes, on {setting.label}:", "", *claims] if claims else [])]


def _contests(table: StudyTable) -> Iterator[Contest]:
    """Every group by every decoding that translates."""
    for text, student in table.groups():
        label = group_label(text, student)
        for decoding in dict.fromkeys(one.decoding for one in table.settings() if one.beam):
            settings = [one for one in table.settings() if one.decoding == decoding]
            places = tuple(Place(text, student, setting) for setting in settings)
            yield Contest(f"{label[0].upper()}{label[1:]}, {decoding}", places)


def _test_set(place: Place) -> str:
    return place.setting.test


# --- tables ---------------------------------------------------------------------------------------


def _varied(study: Study, table: StudyTable) -> list[str]:
    """What the names of texts and students stand for."""
    lines = []
    for text in table.values("text"):
        if study.texts.get(text):
            lines.append(f"- text `{text}`: " + ", ".join(f"`{one}`" for one in study.texts[text]))
    for student in table.values("student"):
        row = next(row for row in table.rows if row["student"] == student)
        layers = f"{row['model']['encoder_layers']}-{row['model']['decoder_layers']}"
        lines.append(
            f"- {group_label(OWN, student)}: width {row['model']['width']}, {layers} layers, "
            f"{row['parameters'] / 1e6:.2f} M parameters, {budget(row)}"
        )
    return ["### What was varied", "", *lines, ""]


def _tables(study: Study, table: StudyTable, comparisons: Comparisons) -> list[str]:
    lines: list[str] = []
    for text, student in table.groups():
        for setting in table.settings():
            lines += _table(study, table, comparisons, Place(text, student, setting))
    return lines


def _table(study: Study, table: StudyTable, comparisons: Comparisons, place: Place) -> list[str]:
    methods, setting = table.methods(place.text, place.student), place.setting
    against = [name for name in dict.fromkeys([*study.baselines, *TO_BEAT]) if name in methods]
    accuracy = ["accuracy, %"] if setting.beam == 0 else []
    columns = ["BLEU", "chrF2", *accuracy, "validation BLEU", "steps", "minutes"]
    columns += [f"against `{name}` (p)" for name in against]
    label = group_label(place.text, place.student)
    lines = [
        f"### {label[0].upper()}{label[1:]}: {setting.label}",
        "",
        f"| method | seeds | {' | '.join(columns)} |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for row in table.teachers:
        if row["text"] == place.text:
            cells = [f"*teacher*, {row['parameters'] / 1e6:.1f} M", ""]
            cells += [*_scores(table, [row], setting), *[""] * len(against)]
            lines.append(f"| {' | '.join(cells)} |")
    for method in methods:
        rows = table.of(place.text, place.student, method)
        cells = [f"`{method}`", str(len(rows)), *_scores(table, rows, setting)]
        cells += [comparisons.cell(place, method, name) for name in against]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _scores(table: StudyTable, rows: list[Row], setting: Setting) -> list[str]:
    """Cells of a table, one a column of scores and costs."""
    scores = [str(table.metric(rows, setting, name)) for name in ("BLEU", "chrF2")]
    if setting.beam == 0:
        scores.append(f"{100 * table.metric(rows, setting, 'accuracy').value:.1f}")
    mean = {
        name: mean_of([row[name] for row in rows]).value
        for name in ("validation_bleu", "steps", "seconds")
    }
    costs = [f"{mean['steps']:,.0f}", f"{mean['seconds'] / 60:.1f}"]
    return [*scores, f"{mean['validation_bleu']:.2f}", *costs]


def _buckets(table: StudyTable) -> list[str]:
    setting, (text, student) = table.settings()[0], table.groups()[0]
    names = [f"{kind} {third}" for kind in ("length", "rarity") for third in (1, 2, 3)]
    lines = [
        f"### BLEU by thirds of the test set: {setting.label}",
        "",
        f"Of {group_label(text, student)}. Thirds by source length (1 the shortest) and by how "
        "rare the source words are in the training text (1 the most common).",
        "",
        f"| method | {' | '.join(names)} |",
        "|---|" + "--:|" * len(names),
    ]
    for method in table.methods(text, student):
        rows = table.of(text, student, method)
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

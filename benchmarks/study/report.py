"""The report of a study: tables, and the paper's claims in words, each with its numbers.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024) claims
that token-level distillation suits simple scenarios and sentence-level distillation complex ones
(by student size, text complexity and decoding), and that a gated hybrid beats both.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.study.config import OWN, Study
from benchmarks.study.figures import (
    Advantage,
    Setting,
    StudyTable,
    advantages,
    draw_all,
    share_seeds,
)
from benchmarks.study.run import RESULTS, read_rows
from export.metrics import Paired, signature, two_sided
from quickstudy.atomic import atomic_write

SIGNIFICANT = 0.05
TOKEN_OVER_SENTENCE = ("token", "sentence")


def write_report(study: Study, out: Path) -> Path:
    """Render `out/results.jsonl` as `out/report.md` with its figures; → the report."""
    table = StudyTable(read_rows(out / RESULTS))
    figures = draw_all(table, out) if table.rows else []
    lines = [f"# Study {study.name}", ""]
    if study.description:
        lines += [study.description, ""]
    lines += [_progress(study, table), ""]
    if table.rows:
        lines += ["## What the rows say", "", *findings(study, table), ""]
        lines += [line for name in figures for line in (f"![{name}]({name})", "")]
        lines += _tables(study, table) + _buckets(table) + _gates(table) + _signatures(table)
    atomic_write(out / "report.md", "\n".join(lines).rstrip() + "\n")
    return out / "report.md"


def _progress(study: Study, table: StudyTable) -> str:
    cells = study.cells()
    have = {(r["text"], r["student"], r["method"], r["seed"]) for r in table.rows}
    done = sum(tuple(cell) in have for cell in cells)
    return f"{done} of {len(cells)} students of the grid are trained and measured."


# --- findings ------------------------------------------------------------------------------------


def findings(study: Study, table: StudyTable) -> list[str]:
    """The claims, one by one, where the rows speak of them."""
    setting = table.settings()[0]
    lines = [f"Measured on {setting.label}; differences in BLEU, p by paired bootstrap.", ""]
    lines += [f"- {line}" for line in _hybrid_claim(table, setting)]
    sizes = advantages(
        table,
        list(table.sizes(OWN)),
        lambda student, method: table.of(OWN, student, method),
        setting,
        TOKEN_OVER_SENTENCE,
    )
    lines += _axis_claim("larger students (simpler)", sizes, grows=True)
    texts = advantages(
        table,
        table.values("text"),
        lambda text, method: table.of(text, OWN, method),
        setting,
        TOKEN_OVER_SENTENCE,
    )
    lines += _axis_claim("harder text", texts, grows=False)
    for name, column in (("longer sources", 0), ("rarer source words", 1)):
        lines += _axis_claim(name, _bucket_advantages(table, setting, column), grows=False)
    lines += _axis_claim("beam search (easier decoding)", _beam_advantages(table), grows=True)
    return lines


def _hybrid_claim(table: StudyTable, setting: Setting) -> list[str]:
    lines = []
    for text, student in table.groups():
        hybrids = [m for m in table.methods(text, student) if m.startswith("hybrid")]
        for hybrid in hybrids:
            mine = table.of(text, student, hybrid)
            parts = [
                _against(other, table.compare(mine, rows, setting))
                for other in ("sentence", "token", "nll")
                if share_seeds(rows := table.of(text, student, other), mine)
            ]
            if parts:
                lines.append(f"{_group(text, student)}: `{hybrid}` {', '.join(parts)}.")
    return lines


def _against(other: str, found: Paired) -> str:
    verdict = _verdict(found.difference, found.p_value)
    return f"{verdict} `{other}` ({found.difference:+.2f}, p = {found.p_value:.3f})"


def _verdict(difference: float, p_value: float) -> str:
    if p_value >= SIGNIFICANT:
        return "does not differ from"
    return "beats" if difference > 0 else "loses to"


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
        for setting in table.settings()
        if setting.test == test
    ]


def _axis_claim(axis: str, found: list[Advantage], grows: bool) -> list[str]:
    """Whether token-over-sentence grows (or shrinks) along an axis as the paper claims."""
    if len(found) < 2:
        return []
    first, last = found[0].paired, found[-1].paired
    change = last.difference - first.difference
    p_value = two_sided(last.resampled - first.resampled, change)
    points = "; ".join(str(one) for one in found)
    size = f"{change:+.2f} from end to end, p = {p_value:.3f}"
    if p_value >= SIGNIFICANT:
        said = f"token-level less sentence-level does not change significantly ({size})"
    else:
        held = "" if (change > 0) == grows else "not "
        direction = "more" if change > 0 else "less"
        said = (
            f"token-level gains {direction} on sentence-level ({size}), which is {held}the "
            "paper's direction"
        )
    return [f"- Along {axis}, {said}. Token less sentence, {points}."]


# --- tables --------------------------------------------------------------------------------------


def _group(text: str, student: str) -> str:
    shown = "the recipe's student" if student == OWN else f"student `{student}`"
    return shown if text == OWN else f"{shown} on text `{text}`"


def _tables(study: Study, table: StudyTable) -> list[str]:
    lines: list[str] = []
    for text, student in table.groups():
        for setting in table.settings():
            lines += _table(study, table, text, student, setting)
    return lines


def _table(study: Study, table: StudyTable, text: str, student: str, setting: Setting) -> list[str]:
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
        cells += [_compared(table, method, name, (text, student), setting) for name in against]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _compared(
    table: StudyTable, method: str, baseline: str, group: tuple[str, str], setting: Setting
) -> str:
    rows, other = table.of(*group, method), table.of(*group, baseline)
    if method == baseline or not share_seeds(rows, other):
        return "–"
    found = table.compare(rows, other, setting)
    shown = f"{found.difference:+.2f} ({found.p_value:.3f})"
    return f"**{shown}**" if found.p_value < SIGNIFICANT else shown


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


def _gates(table: StudyTable) -> list[str]:
    gated = [row for row in table.rows if row.get("gate")]
    if not gated:
        return []
    lines = [
        "### The gate at the end of each run",
        "",
        "g = 1 follows the sentence-level loss. First and last fifth of the training text by "
        "source length, teacher's entropy and word rarity.",
        "",
        "| student | gate | mean | spread | length | entropy | rarity | collapsed |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in gated:
        gate = row["gate"]
        ends = [
            f"{gate[key][0]['mean']:.2f} → {gate[key][-1]['mean']:.2f}"
            for key in ("by_source_length", "by_teacher_entropy", "by_target_rarity")
        ]
        lines.append(
            f"| {row['text']}.{row['student']}.{row['method']}.{row['seed']} "
            f"| {gate['gate']['kind']} | {gate['mean']:.2f} | {gate['spread']:.2f} "
            f"| {' | '.join(ends)} | {'yes' if gate['warning'] else 'no'} |"
        )
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
        f"BLEU `{bleu}`; chrF2 `{chrf}`; comparisons `{signature()}`, sentences resampled and "
        "seeds kept. Spread: sample standard deviation over seeds. Bold: p < 0.05.",
        f"Students are trained in {' and '.join(precisions)}, translate in CTranslate2 "
        f"{versions['ctranslate2']} float32; torch {versions['torch']}, {versions['processor']}.",
    ]
    if len(stores) > len(table.values("text")):
        lines.append("Rows were taught from different label stores: compare them with care.")
    return lines

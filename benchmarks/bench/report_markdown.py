"""The report as Markdown."""

from __future__ import annotations

from benchmarks.bench.method import method, skipped_lines
from benchmarks.bench.results import Results
from benchmarks.bench.table import Table
from benchmarks.bench.tables import tables
from benchmarks.bench.verdict import verdict


def markdown(results: Results, picture: str | None) -> str:
    """The whole report; `picture` is the file of BLEU against speed, beside it."""
    blocks = [f"# Benchmark of {results.name}", *verdict(results)]
    if picture:
        blocks.append(f"![BLEU against sentences a second]({picture})")
    for table in tables(results):
        blocks += [f"## {table.title}", markdown_table(table)]
        if table.note:
            blocks.append(table.note)
    if skipped := skipped_lines(results):
        blocks += ["## Not measured", *(f"- {line}" for line in skipped)]
    blocks += ["## Method", *method(results)]
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """A table, with figures to the right."""
    rules = [
        "---" if column == 0 or column in table.words else "--:"
        for column in range(len(table.head))
    ]
    lines = [table.head, rules, *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)

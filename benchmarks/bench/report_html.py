"""The report as one HTML file: nothing is asked of elsewhere, and nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from benchmarks.bench.formats import batch_label
from benchmarks.bench.method import method, skipped_lines
from benchmarks.bench.pictures import bleu_against_speed, growth_picture
from benchmarks.bench.results import Growth, Results
from benchmarks.bench.table import Table
from benchmarks.bench.tables import tables
from benchmarks.bench.verdict import verdict

STYLE = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--soft:#666;--line:#ddd;--stripe:#f6f6f6}
@media(prefers-color-scheme:dark){:root{--ink:#eee;--paper:#161616;--soft:#aaa;--line:#3a3a3a;
--stripe:#1f1f1f}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:1100px;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
.verdict p{font-size:1.1rem;margin:.4rem 0}
.warning{border-left:4px solid #d55e00;padding-left:.7rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{white-space:normal;vertical-align:bottom;min-width:4.5rem}
th:first-child,td:first-child,.word{text-align:left}
td:first-child{position:sticky;left:0;background:var(--paper)}
tr:nth-child(even) td{background:var(--stripe)}
tr.main td{font-weight:600}
.note,.method{color:var(--soft);font-size:.88rem}
svg{width:100%;height:auto;display:block}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:1rem}
figure{margin:0}
.wide{overflow-x:auto}.wide svg{min-width:680px}
figcaption{color:var(--soft);font-size:.85rem}
code{font-size:.92em}
.note,.method{overflow-wrap:anywhere}
@media(max-width:600px){td:first-child,th:first-child{white-space:normal;min-width:7.5rem;
max-width:9rem;overflow-wrap:break-word}}
"""
CODE = re.compile(r"`([^`]+)`")


def html(results: Results) -> str:
    """The whole report as a page."""
    title = f"Benchmark of {results.name}"
    body = "\n".join(_body(results, title))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _body(results: Results, title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    yield '<section class="verdict">'
    spoilt = results.settings.quick or bool(results.machine.noise)
    for number, sentence in enumerate(verdict(results)):
        warns = spoilt and number < results.settings.quick + bool(results.machine.noise)
        yield f"<p{' class=warning' if warns else ''}>{_inline(sentence)}</p>"
    yield "</section>"
    yield from _pictures(results)
    for table in tables(results):
        yield f"<h2>{escape(table.title)}</h2>"
        if table.title == "How cost grows":
            yield _growth(results)
        yield _table(table, results.main_system)
        if table.note:
            yield f'<p class="note">{_inline(table.note)}</p>'
    if skipped := skipped_lines(results):
        yield "<h2>Not measured</h2><ul>"
        yield from (f"<li>{_inline(line)}</li>" for line in skipped)
        yield "</ul>"
    yield '<h2>Method</h2><section class="method">'
    yield from (f"<p>{_inline(line)}</p>" for line in method(results))
    yield "</section>"


def _pictures(results: Results) -> Iterator[str]:
    """BLEU against speed, alone and in the largest batches that were measured."""
    sizes = dict.fromkeys(row.batch_size for row in results.speed if row.threads == 1)
    chosen = [size for size in (1, 32) if size in sizes] or list(sizes)[:1]
    for size in chosen:
        picture = bleu_against_speed(results, 1, size)
        if picture is not None:
            caption = "One sentence at a time" if size == 1 else batch_label(size).capitalize()
            yield (
                f"<h2>BLEU against speed: {caption.lower()}</h2>"
                f"<figure><div class=wide>{picture}</div><figcaption>"
                "Up and to the right is better; bars are intervals of 95 % of the speed, and the "
                "table below has those of BLEU.</figcaption></figure>"
            )


def _growth(results: Results) -> str:
    by_axis: dict[str, list[Growth]] = {}
    for one in results.growth:
        by_axis.setdefault(one.axis, []).append(one)
    figures = [
        f"<figure>{growth_picture(some)}<figcaption>Seconds of {escape(some[0].of)}: "
        f"{escape(', '.join(f'{one.system} x^{one.exponent:.2f}' for one in some))}"
        "</figcaption></figure>"
        for some in by_axis.values()
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'


def _table(table: Table, main: str) -> str:
    words = {0, *table.words}

    def cells(row: list[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=word' if column in words else ''}>{_inline(cell)}</{tag}>"
            for column, cell in enumerate(row)
        )

    rows = "\n".join(
        f"<tr{' class=main' if row[0] == main else ''}>{cells(row, 'td')}</tr>"
        for row in table.rows
    )
    head = cells(table.head, "th")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>'
        "</table></div>"
    )


def _inline(text: str) -> str:
    """Text as HTML; what stands between backticks as code."""
    return CODE.sub(r"<code>\1</code>", escape(text))

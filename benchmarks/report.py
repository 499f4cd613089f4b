"""The report of results as HTML and Markdown, figures for the README, and what changed between two
results.

The HTML page is one file: nothing is asked of elsewhere, and nothing runs.

A speed, latency, loading time or memory counts as worse where its change is larger than a limit and
the interval of 95 % of the change, bootstrapped from the rounds of both, excludes no change. BLEU
of the same text is compared sentence by sentence by paired bootstrap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.domains import DOMAINS_TITLE, bleu_by_domain
from benchmarks.plots import bleu_against_speed, scaling_plot
from benchmarks.quality import paired_difference
from benchmarks.results import (
    Figure,
    Machine,
    Quality,
    Results,
    ResultsError,
    ScalingFit,
    replace_section,
    save_results,
)
from benchmarks.speed import resampled_medians
from benchmarks.systems.base import WHOLE, SystemInfo
from benchmarks.tables import (
    NONE,
    Table,
    batch_label,
    decoding,
    domain_tables,
    megabytes,
    number,
    percent,
    rounds_of,
    spread,
    tables,
)
from benchmarks.targets import conclusions, headlines, method, skipped_lines
from export.metrics import bleu_of, unpack
from quickstudy.atomic import atomic_write


def write_report(results: Results, folder: Path, name: str = "results") -> Path:
    """Write `NAME.json`, `NAME.html`, `NAME.md`, `NAME.svg` and, where domains were measured,
    `NAME-domains.svg` into a folder; → the HTML file."""
    save_results(results, folder / f"{name}.json")
    pictures = {}
    for title, file, picture in (
        ("BLEU against sentences a second", f"{name}.svg", bleu_against_speed(results)),
        (DOMAINS_TITLE, f"{name}-domains.svg", bleu_by_domain(results)),
    ):
        if picture is not None:
            atomic_write(folder / file, picture + "\n")
            pictures[title] = file
    atomic_write(folder / f"{name}.html", html(results))
    atomic_write(folder / f"{name}.md", markdown(results, pictures))
    return folder / f"{name}.html"


# --- HTML -----------------------------------------------------------------------------------------

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
    for index, sentence in enumerate(conclusions(results)):
        warns = spoilt and index < results.settings.quick + bool(results.machine.noise)
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
    """BLEU against speed, alone and in the largest batches that were measured; BLEU by domain."""
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
    if (picture := bleu_by_domain(results)) is not None:
        yield (
            f"<h2>{DOMAINS_TITLE}</h2><figure><div class=wide>{picture}</div><figcaption>"
            "To the right is better; bars are intervals of 95 %. Every domain has its own scale."
            "</figcaption></figure>"
        )


def _growth(results: Results) -> str:
    by_axis: dict[str, list[ScalingFit]] = {}
    for one in results.growth:
        by_axis.setdefault(one.axis, []).append(one)
    figures = [
        f"<figure>{scaling_plot(some)}<figcaption>Seconds of {escape(some[0].of)}: "
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


# --- Markdown -------------------------------------------------------------------------------------


def markdown(results: Results, pictures: dict[str, str]) -> str:
    """The whole report; `pictures` are files beside it, by their titles."""
    blocks = [f"# Benchmark of {results.name}", *conclusions(results)]
    blocks += [f"![{title}]({file})" for title, file in pictures.items()]
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


# --- README ---------------------------------------------------------------------------------------

BEGIN, END = "<!-- bench: make bench-readme replaces this -->", "<!-- bench: end -->"
BATCHES = (32, 64, WHOLE, 8)


def update_page(results: Results, page: Path, picture: Path) -> None:
    """Put verdict, picture and table between the markers of a page, then those of domains; their
    picture is beside the other, its name ending in `-domains`.

    Raises ResultsError where the page has no markers or there is no figure to draw.
    """
    drawn = bleu_against_speed(results)
    if drawn is None:
        raise ResultsError(
            "no system has both a BLEU and a speed on one thread at batch 1: measure with "
            "--parts quality,speed at least"
        )
    picture.parent.mkdir(parents=True, exist_ok=True)
    blocks = [
        _drawn(drawn, "BLEU against sentences a second", picture, page),
        "\n".join(f"- {line}" for line in headlines(results)),
        markdown_table(short_table(results)),
        _settings(results),
    ]
    if (by_domain := bleu_by_domain(results)) is not None:
        beside = picture.with_stem(f"{picture.stem}-domains")
        blocks.append(_drawn(by_domain, DOMAINS_TITLE, beside, page))
    for table in domain_tables(results):
        blocks += [markdown_table(table), table.note]
    replace_section(page, BEGIN, END, "\n\n".join(blocks))


def _drawn(svg: str, title: str, path: Path, page: Path) -> str:
    """Write a picture; → the Markdown that shows it on the page."""
    atomic_write(path, svg + "\n")
    return f"![{title}]({Path(os.path.relpath(path, page.parent)).as_posix()})"


def short_table(results: Results) -> Table:
    """The fewest figures that a reader decides by: the shipped student, what it came from, and what
    else there is."""
    size = next((n for n in BATCHES if any(row.batch_size == n for row in results.speed)), 1)
    widest = max((system.beam_size for system in results.systems), default=1)
    rows = []
    for system in results.systems:
        if system.beam_size not in _shown_beams(system, widest):
            continue
        alone = results.speed_of(system.name, 1, 1)
        if alone is None:
            continue
        batched = results.speed_of(system.name, 1, size)
        quality = next((row for row in results.quality if row.system == system.name), None)
        ratio = next(
            (
                one.times
                for one in results.ratios
                if (one.against, one.threads, one.batch_size) == (system.name, 1, 1)
            ),
            None,
        )
        shipped = system.name == results.main_system
        name = f"**{system.name}, as shipped**" if shipped else system.name
        rows.append(
            [
                name
                + ("" if results.same_pair(system.name) else f" ({system.source}→{system.target})"),
                f"{system.engine} {system.precision}, {decoding(system.beam_size)}",
                megabytes(system.bytes),
                f"{quality.scores[0].score:.2f}" if quality else NONE,
                percent(quality.bleu_share) if quality else NONE,
                number(alone.sentences_per_second.median),
                number(batched.sentences_per_second.median) if batched else NONE,
                spread(ratio, 2) if ratio else ("1" if shipped else NONE),
            ]
        )
    batch = "as a whole file" if size == WHOLE else f"in batches of {size}"
    head = [
        "system",
        "engine",
        "MB",
        "BLEU",
        "of the teacher's",
        "sentences/s, one at a time",
        f"… {batch}",
        "the shipped one is × as fast",
    ]
    return Table("Systems", head, rows, words=frozenset({1}))


def _shown_beams(system: SystemInfo, widest: int) -> tuple[int, ...]:
    """A teacher is asked by its widest beam; a student greedily, or by its widest one."""
    return (widest,) if system.role == "teacher" and widest > 1 else (1, widest)


def _settings(results: Results) -> str:
    about = results.machine
    signatures = dict.fromkeys(
        f"`{one.signature}`"
        for row in results.quality
        for one in row.scores
        if one.metric == "BLEU"
    )
    return (
        f"{results.timed_text}, one thread, medians of {rounds_of(results.speed)} interleaved "
        f"rounds (ratio with its interval of 95 %), text in, text out; {about.processor}, "
        f"{about.cores} cores, load {about.load_before} before. BLEU: "
        f"{', '.join(signatures) or 'not measured'}."
    )


# --- two results ----------------------------------------------------------------------------------

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
    comparison = Comparison()
    comparison.notes += list(_notes(before, after))
    comparison.changes += _quality_changes(before, after, bleu_limit)
    if same_machine(before.machine, after.machine):
        comparison.changes += _speed_changes(before, after, limit)
        comparison.changes += _latency_changes(before, after, limit)
        comparison.changes += _cost_changes(before, after, limit)
    return comparison


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
    yield from _domain_notes(before, after)


def _domain_notes(before: Results, after: Results) -> Iterator[str]:
    """Domains that are not compared, and why."""
    old, new = ({text.name: text.sha256 for text in one.texts} for one in (before, after))
    for text in (*before.domains, *after.domains):
        if text.name not in new:
            yield f"Domain {text.name}: only before."
        elif text.name not in old:
            yield f"Domain {text.name}: only after."
        elif old[text.name] != new[text.name] and text in after.domains:
            yield f"Domain {text.name}: another text after than before, so it is not compared."


def _quality_changes(before: Results, after: Results, limit: float) -> Iterator[Change]:
    texts = {text.name: text.sha256 for text in before.texts}
    same = {text.name for text in after.texts if texts.get(text.name) == text.sha256}
    domains = {text.name for text in after.domains}
    old = {(row.system, row.text): row for row in before.quality}
    for row in after.quality:
        former = old.get((row.system, row.text))
        if former is not None and row.text in same:
            label = f"BLEU, domain {row.text}" if row.text in domains else f"BLEU, {row.text}"
            yield _bleu_change(label, former, row, limit)


def _bleu_change(label: str, before: Quality, after: Quality, limit: float) -> Change:
    old, new = unpack(before.statistics), unpack(after.statistics)
    paired = paired_difference(new, old)
    certain = paired.p_value < CERTAIN
    return Change(
        system=after.system,
        figure=label,
        before=round(bleu_of(old), 2),
        after=round(bleu_of(new), 2),
        change=paired.difference,
        low=paired.low,
        high=paired.high,
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


def render(comparison: Comparison) -> str:
    """The comparison as Markdown: what changed first, then how much was compared."""
    blocks = list(comparison.notes)
    for title, some in (
        ("Worse", comparison.regressions),
        ("Better", [one for one in comparison.changes if one.better]),
        ("The same, or within the limits and the noise", _others(comparison)),
    ):
        if some:
            blocks += [f"## {title}", markdown_table(_change_table(title, some))]
    if not comparison.changes:
        blocks.append(
            "The two results have no figure in common, so nothing was compared: give results of "
            "the same systems on the same text, and of the same machine for speeds."
        )
        return "\n\n".join(blocks)
    count = len(comparison.regressions)
    blocks.append(
        f"{len(comparison.changes)} figures compared, "
        + (f"{count} worse beyond the limit." if count else "none worse beyond the limit.")
    )
    return "\n\n".join(blocks)


def _others(comparison: Comparison) -> list[Change]:
    return [one for one in comparison.changes if not one.worse and not one.better]


def _change_table(title: str, changes: Sequence[Change]) -> Table:
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

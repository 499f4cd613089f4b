"""The table and picture of a README, from results: never written by hand."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.bench.formats import NONE, decoding, megabytes, number, percent, spread
from benchmarks.bench.pictures import bleu_against_speed
from benchmarks.bench.report_markdown import markdown_table
from benchmarks.bench.results import Results, ResultsError
from benchmarks.bench.table import Table
from benchmarks.bench.tables import rounds_of
from benchmarks.bench.verdict import headlines
from benchmarks.systems.base import WHOLE, SystemInfo
from training.atomic import atomic_write

BEGIN, END = "<!-- bench: make bench-readme replaces this -->", "<!-- bench: end -->"
BATCHES = (32, 64, WHOLE, 8)


def update_page(results: Results, page: Path, picture: Path) -> None:
    """Put verdict, picture and table between the markers of a page.

    Raises ResultsError where the page has no markers or there is no figure to draw.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"{page} has no place for the figures: put {BEGIN} and {END} into it")
    drawn = bleu_against_speed(results)
    if drawn is None:
        raise ResultsError(
            "no system has both a BLEU and a speed on one thread at batch 1: measure with "
            "--parts quality,speed at least"
        )
    picture.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(picture, drawn + "\n")
    shown = Path(os.path.relpath(picture, page.parent)).as_posix()
    blocks = [
        f"![BLEU against sentences a second]({shown})",
        "\n".join(f"- {line}" for line in headlines(results)),
        markdown_table(short_table(results)),
        _settings(results),
    ]
    atomic_write(page, "\n\n".join([f"{before}{BEGIN}", *blocks, f"{END}{after}"]))


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

"""Results as files: JSON, and the report as HTML and Markdown with its picture."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench.pictures import bleu_against_speed
from benchmarks.bench.report_html import html
from benchmarks.bench.report_markdown import markdown
from benchmarks.bench.results import Results, save_results
from training.atomic import atomic_write


def write_report(results: Results, folder: Path, name: str = "results") -> Path:
    """Write `NAME.json`, `NAME.html`, `NAME.md` and `NAME.svg` into a folder; → the HTML file."""
    save_results(results, folder / f"{name}.json")
    picture = bleu_against_speed(results)
    if picture is not None:
        atomic_write(folder / f"{name}.svg", picture + "\n")
    atomic_write(folder / f"{name}.html", html(results))
    shown = f"{name}.svg" if picture is not None else None
    atomic_write(folder / f"{name}.md", markdown(results, shown))
    return folder / f"{name}.html"

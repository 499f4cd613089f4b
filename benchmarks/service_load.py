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
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.load import measures
from benchmarks.load.measures import read_sentences
from benchmarks.load.served import LoadWorker, ServiceProcess
from benchmarks.plots import draw_load
from benchmarks.results import replace_section
from benchmarks.speed import QUIET_LOAD
from export.runtime.bundle import Bundle, load_bundle
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine, usable_cores

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
    report: dict[str, Any] = {}
    pair = bundle.manifest.source_lang, bundle.manifest.target_lang
    with (
        LoadWorker("engine", str(bundle.path), str(threads)) as engine,
        LoadWorker("clients") as client,
    ):
        for name in services:
            settings, wanted = SERVICES[name]
            if not only.intersection(wanted):
                continue
            _say(f"starting the service, {name}")
            with ServiceProcess(bundle.path, settings) as served:
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
                report[name] = figures
    return report


# --- report ---------------------------------------------------------------------------------------

BEGIN, END = "<!-- service-load: generated -->", "<!-- service-load: end -->"
OVERHEAD_MS, SHARE, GROWTH_PERCENT, READY_S, MEMORY_MB, AGAIN_S = 2.5, 0.75, 5.0, 5.0, 300.0, 10.0
CHECK_NAMES = {
    "greedy only": "no cache, no fallback decoding",
    "no cache": "no cache",
    "default": "default settings, sentences that come again",
}


def write(report: dict[str, Any], out: Path, docs: Path | None) -> None:
    """Write a report as JSON, Markdown and a picture, and into the page of the documentation."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"{NAME}.png"
    has_picture = draw_load(report, picture)
    text = markdown(report, picture.name if has_picture else None)
    atomic_write(out / f"{NAME}.md", text)
    atomic_write(out / f"{NAME}.json", json.dumps(report, indent=1) + "\n")
    if docs is not None:
        update_docs(docs, report)


def targets(report: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What is aimed at, the aim, what was measured, and whether it is reached."""
    services = report["services"]
    default = services.get("default", {})
    if figures := services.get("no cache", {}).get("overhead"):
        p50 = figures["native"]["overhead_ms"]["p50"]
        aim = f"≤ {OVERHEAD_MS} ms"
        yield (
            "one client: p50 beyond the engine's own call",
            aim,
            f"{p50:.2f} ms",
            (p50 <= OVERHEAD_MS),
        )
    if figures := services.get("greedy only", {}).get("throughput"):
        what = f"{figures['clients']} clients, a sentence each: share of the engine's sentences/s"
        share = figures["share"]["median"]
        yield what, f"≥ {SHARE:.0%}", f"{share:.0%}", share >= SHARE
    if figures := default.get("soak"):
        minutes = figures["seconds"] / 60
        what = f"{minutes:.0f} minutes of mixed sizes, {figures['clients']} clients: errors"
        yield what, "0", f"{figures['errors']} of {figures['answered']:,}", not figures["errors"]
        growth = figures["memory"]["growth_percent"]
        aim = f"within {GROWTH_PERCENT:.0f} %"
        yield "… memory after warm-up", aim, f"{growth:+.1f} %", abs(growth) <= GROWTH_PERCENT
    if default:
        ready, size = default["ready_s"], default["ready_mb"]
        yield "ready after its start", f"≤ {READY_S:.0f} s", f"{ready:.1f} s", ready <= READY_S
        yield "resident when ready", f"≤ {MEMORY_MB:.0f} MB", f"{size:.0f} MB", size <= MEMORY_MB
    if figures := default.get("crash"):
        again = max(figures["seconds_to_serve"])
        what = "`kill -9` of the worker under load: serving again"
        yield what, f"≤ {AGAIN_S:.0f} s", f"{again:.1f} s", again <= AGAIN_S


def tables(report: dict[str, Any]) -> str:
    """The targets and the tables, without a title."""
    blocks = [_method(report), _target_table(report)]
    services = report["services"]
    if figures := services.get("no cache", {}).get("overhead"):
        blocks.append(_overhead(figures))
    if rows := [
        (CHECK_NAMES[name], one["throughput"])
        for name, one in services.items()
        if "throughput" in one
    ]:
        blocks.append(_throughput(rows))
    if figures := services.get("no cache", {}).get("open-loop"):
        blocks.append(_open(figures))
    if figures := services.get("default", {}).get("soak"):
        blocks.append(_soak(figures))
    if figures := services.get("default", {}).get("crash"):
        blocks.append(_crash(figures))
    return "\n\n".join(blocks)


def markdown(report: dict[str, Any], picture: str | None) -> str:
    """The whole report."""
    shown = f"\n\n![Latency against throughput]({picture})" if picture else ""
    return f"# The service under load\n\n{tables(report)}{shown}\n"


def update_docs(page: Path, report: dict[str, Any]) -> None:
    """Put the tables between the markers of a page. Raises ResultsError if it has none."""
    replace_section(page, BEGIN, END, tables(report))


def _method(report: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    quiet = (
        "Nothing else ran."
        if report["quiet"]
        else f"**The machine was busy (load average {report['load_at_start']} at the start): times "
        "are longer than they would be.**"
    )
    trial = " **A trial of a few seconds, no figures to rely on.**" if report["quick"] else ""
    return (
        f"`{report['bundle']}`, engine `{report['engine']}`, {report['threads']} translations at "
        f"the same time, {report['text']}. Service, client and engine share the machine: {about}. "
        f"{quiet}{trial}"
    )


def _target_table(report: dict[str, Any]) -> str:
    rows = [
        f"| {what} | {aim} | {value} | {'yes' if reached else '**no**'} |"
        for what, aim, value, reached in targets(report)
    ]
    return "\n".join(["| target | | measured | reached |", "| --- | --- | --- | --- |", *rows])


def _overhead(figures: dict[str, Any]) -> str:
    rows = [f"| engine in process | {_ms(figures['engine_ms'])} | |"]
    for name, path in (("native", "/v1/translate"), ("libretranslate", "/translate")):
        one = figures[name]
        rows.append(f"| `{path}` | {_ms(one['request_ms'])} | {_ms(one['overhead_ms'])} |")
    return "\n".join(
        [
            f"One client, {figures['sentences']} sentences, medians of {figures['rounds']} rounds "
            f"in turns; p50 / p95 / p99. The client takes {figures['client_cpu_ms']:.2f} ms of "
            "processor time a request.",
            "",
            "| | ms | ms beyond the engine |",
            "| --- | --: | --: |",
            *rows,
        ]
    )


def _throughput(rows: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for name, one in rows:
        alone, cpu, share, cpu_share = (
            _median(one, key) for key in ("engine_per_s", "engine_cpu_ms", "share", "cpu_share")
        )
        lines.append(
            f"| {name} | {one['served_per_s']['median']:.0f} | {alone} | "
            f"{_percent(share)} | {_median(one, 'alike_per_s')} | "
            f"{one['batch_sentences']['median']:.1f} | "
            f"{one['served_cpu_ms']['median']:.2f} | {cpu} | {_percent(cpu_share)} | "
            f"{one['p50_ms']['median']:.0f} / {one['p95_ms']['median']:.0f} |"
        )
    first = rows[0][1]
    return "\n".join(
        [
            f"{first['clients']} clients with a sentence each, medians of {first['rounds']} "
            "rounds; the engine in process translates in batches of the sizes that `/metrics` "
            "told, of sentences as the text has them, which is what the share is of, and of like "
            "lengths, which the service's queue makes by itself. The client shares the cores with "
            f"the service and takes {first['client_cpu_ms']['median']:.2f} ms a request, so the "
            "shares of processor time say what the service itself adds. Second tries are "
            "translations too, mostly in small batches of their own.",
            "",
            "| settings | sentences/s | engine alone | share | … of like lengths | sentences a "
            "batch | CPU ms a sentence | engine's | share | p50 / p95, ms |",
            "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
            *lines,
        ]
    )


def _open(figures: dict[str, Any]) -> str:
    lines = [
        "Requests at random times (Poisson), whatever is not answered yet; ms from when a request "
        f"was due, {figures['seconds']:g} s at each rate, no cache.",
        "",
        "| sent a second | `/v1/translate` p50 / p95 / p99 | answered a second | `/translate` "
        "p50 / p95 / p99 | answered a second |",
        "| --: | --: | --: | --: | --: |",
    ]
    by_rate: dict[int, dict[str, Any]] = {}
    for shape in ("native", "libretranslate"):
        for row in figures[shape]:
            by_rate.setdefault(row["rate"], {})[shape] = row
    for rate, rows in by_rate.items():
        cells = [_open_cell(rows.get(shape)) for shape in ("native", "libretranslate")]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _open_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "– | –"
    refused = f", {row['refused']} refused" if row["refused"] else ""
    return f"{_ms(row)} | {row['per_s']:.0f}{refused}"


def _soak(figures: dict[str, Any]) -> str:
    size = figures["memory"]
    return (
        f"Soak: {figures['seconds']:.0f} s, {figures['clients']} clients, {figures['answered']:,} "
        f"requests answered (p50 / p95 / p99 {_ms(figures['request_ms'])} ms), {figures['errors']} "
        f"errors; {figures['retried_503']} were told by 503 to come back, and did. Memory "
        f"{size['first_mb']} MB at its start, {size['mean_mb']} MB on average after warm-up, "
        f"{size['most_mb']} MB at most; {size['growth_percent']:+.1f} % along the fitted line."
    )


def _crash(figures: dict[str, Any]) -> str:
    seconds = ", ".join(f"{one:.1f}" for one in figures["seconds_to_serve"])
    lost = ", ".join(str(one) for one in figures["requests_lost"])
    return (
        f"`kill -9` of the worker with {figures['clients']} clients: {seconds} s until a "
        f"translation succeeded; {lost} attempts failed meanwhile, tried again every 50 ms by each "
        "client."
    )


def _median(one: dict[str, Any], name: str) -> str:
    if name not in one:
        return "–"
    value = one[name]["median"]
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _percent(value: str) -> str:
    return value if value == "–" else f"{float(value):.0%}"


def _ms(quantiles: dict[str, float]) -> str:
    return " / ".join(f"{quantiles[name]:.1f}" for name in ("p50", "p95", "p99"))


# --- command --------------------------------------------------------------------------------------


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
    about = describe_machine(PACKAGES)
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

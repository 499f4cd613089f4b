"""What `benchmarks.service_load` measured, as tables of the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.bench.formats import NONE, number, percent
from benchmarks.bench.results import Results
from benchmarks.bench.table import Table
from benchmarks.load.report import NAMES, targets

PERCENTILES = ("p50", "p95", "p99")
PATHS = {"native": "/v1/translate", "libretranslate": "/translate"}
Row = list[str]


def service_tables(results: Results) -> Iterator[Table]:
    """The service against the engine and what it is to reach, then the open loop; none where no
    load was measured."""
    if not results.service:
        return
    yield summary(results.service)
    for name, service in results.service["services"].items():
        for shape, rows in service.get("open-loop", {}).items():
            if isinstance(rows, list):
                yield _open_loop(name, shape, rows)


def summary(report: dict[str, Any]) -> Table:
    """One small table of all but the open loop, with its signature."""
    rows = [
        [what, found, aim, "yes" if reached else "no"]
        for what, aim, found, reached in targets(report)
    ]
    for name, service in report["services"].items():
        rows += [[*row, NONE, NONE] for row in _details(NAMES.get(name, name), service)]
    head = ["service", "measured", "aim", "reached"]
    return Table("The service", head, rows, _signature(report), frozenset({1, 2, 3}))


def _details(name: str, service: dict[str, Any]) -> Iterator[Row]:
    """Name and figure of what has no aim."""
    if found := service.get("overhead"):
        yield from _overhead(found)
    if found := service.get("throughput"):
        yield from _throughput(f"{found['clients']} clients, {name}", found)
    if found := service.get("soak"):
        yield [f"soak, {found['seconds']:.0f} s: p50 / p95 / p99, ms", _ms(found["request_ms"])]
        yield ["soak: MB on average / at most", _memory(found["memory"])]


def _overhead(found: dict[str, Any]) -> Iterator[Row]:
    yield ["one client, engine in process: p50 / p95 / p99, ms", _ms(found["engine_ms"])]
    for shape, path in PATHS.items():
        if one := found.get(shape):
            yield [f"one client, `{path}`: ms beyond the engine", _ms(one["overhead_ms"])]


def _throughput(what: str, found: dict[str, Any]) -> Iterator[Row]:
    """Of the engine's, where it was measured beside the service: in batches of sentences as they
    come, whose share was taken round by round, and of like lengths."""
    served = found["served_per_s"]["median"]
    if "engine_per_s" in found:
        yield [f"{what}: sentences/s", _of(served, found["engine_per_s"], found["share"]["median"])]
    else:
        yield [f"{what}: sentences/s", number(served)]
    if alike := found.get("alike_per_s"):
        share = served / alike["median"]
        yield [f"{what}: sentences/s, engine with like lengths", _of(served, alike, share)]


def _of(served: float, engine: dict[str, float], share: float) -> str:
    return f"{number(served)} of {number(engine['median'])} ({percent(share, 0)})"


def _memory(found: dict[str, Any]) -> str:
    return f"{found['mean_mb']:.1f} / {found['most_mb']:.1f}"


def _ms(found: dict[str, float]) -> str:
    return " / ".join(f"{found[name]:.1f}" for name in PERCENTILES)


def _signature(report: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    load = f"load {report['load_at_start']} at its start"
    quiet = "nothing else ran" if report["quiet"] else "the machine was busy, so times are too long"
    trial = " A trial of a few seconds, no figures to rely on." if report["quick"] else ""
    return (
        f"`{report['bundle']}`, engine `{report['engine']}`, {report['text']}; "
        f"{report['threads']} threads, {load}: {quiet}. Client, service and engine share the "
        f"machine; sentences/s are of what the engine does in process at the same batch sizes. "
        f"{about}.{trial}"
    )


def _open_loop(name: str, shape: str, rows: list[dict[str, Any]]) -> Table:
    return Table(
        f"Service under load: {shape}, {name}",
        ["requests/s sent", "answered/s", "p50, ms", "p95, ms", "p99, ms", "refused"],
        [
            [
                f"{row['rate']:g}",
                number(row["per_s"]),
                *(number(row[key]) for key in PERCENTILES),
                str(row["refused"]),
            ]
            for row in rows
        ],
        "Requests at random times whatever the answers do (open loop); their time counts from when "
        "they were to be sent.",
    )

"""The report of a load run: what it says against the targets, then tables; in Markdown.

The picture of a load run: latency against throughput.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quickstudy.atomic import atomic_write

BEGIN, END = "<!-- service-load: generated -->", "<!-- service-load: end -->"
OVERHEAD_MS, SHARE, GROWTH_PERCENT, READY_S, MEMORY_MB, AGAIN_S = 2.5, 0.75, 5.0, 5.0, 300.0, 10.0
CHECK_NAMES = {
    "greedy only": "no cache, no fallback decoding",
    "no cache": "no cache",
    "default": "default settings, sentences that come again",
}


def targets(report: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What is aimed at, the aim, what was measured, and whether it is reached."""
    services = report["services"]
    default = services.get("default", {})
    if found := services.get("no cache", {}).get("overhead"):
        p50 = found["native"]["overhead_ms"]["p50"]
        aim = f"≤ {OVERHEAD_MS} ms"
        yield (
            "one client: p50 beyond the engine's own call",
            aim,
            f"{p50:.2f} ms",
            (p50 <= OVERHEAD_MS),
        )
    if found := services.get("greedy only", {}).get("throughput"):
        what = f"{found['clients']} clients, a sentence each: share of the engine's sentences/s"
        share = found["share"]["median"]
        yield what, f"≥ {SHARE:.0%}", f"{share:.0%}", share >= SHARE
    if found := default.get("soak"):
        minutes = found["seconds"] / 60
        what = f"{minutes:.0f} minutes of mixed sizes, {found['clients']} clients: errors"
        yield what, "0", f"{found['errors']} of {found['answered']:,}", not found["errors"]
        growth = found["memory"]["growth_percent"]
        aim = f"within {GROWTH_PERCENT:.0f} %"
        yield "… memory after warm-up", aim, f"{growth:+.1f} %", abs(growth) <= GROWTH_PERCENT
    if default:
        ready, size = default["ready_s"], default["ready_mb"]
        yield "ready after its start", f"≤ {READY_S:.0f} s", f"{ready:.1f} s", ready <= READY_S
        yield "resident when ready", f"≤ {MEMORY_MB:.0f} MB", f"{size:.0f} MB", size <= MEMORY_MB
    if found := default.get("crash"):
        again = max(found["seconds_to_serve"])
        what = "`kill -9` of the worker under load: serving again"
        yield what, f"≤ {AGAIN_S:.0f} s", f"{again:.1f} s", again <= AGAIN_S


def tables(report: dict[str, Any]) -> str:
    """The targets and the tables, without a title."""
    blocks = [_method(report), _target_table(report)]
    services = report["services"]
    if found := services.get("no cache", {}).get("overhead"):
        blocks.append(_overhead(found))
    if rows := [
        (CHECK_NAMES[name], one["throughput"])
        for name, one in services.items()
        if "throughput" in one
    ]:
        blocks.append(_throughput(rows))
    if found := services.get("no cache", {}).get("open-loop"):
        blocks.append(_open(found))
    if found := services.get("default", {}).get("soak"):
        blocks.append(_soak(found))
    if found := services.get("default", {}).get("crash"):
        blocks.append(_crash(found))
    return "\n\n".join(blocks)


def markdown(report: dict[str, Any], picture: str | None) -> str:
    """The whole report."""
    shown = f"\n\n![Latency against throughput]({picture})" if picture else ""
    return f"# The service under load\n\n{tables(report)}{shown}\n"


def update_docs(page: Path, report: dict[str, Any]) -> None:
    """Put the tables between the marks of a page. Raises ValueError if it has none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the figures: put {BEGIN} and {END} into it")
    atomic_write(page, f"{before}{BEGIN}\n\n{tables(report)}\n\n{END}{after}")


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
        f"| {what} | {aim} | {found} | {'yes' if reached else '**no**'} |"
        for what, aim, found, reached in targets(report)
    ]
    return "\n".join(["| target | | measured | reached |", "| --- | --- | --- | --- |", *rows])


def _overhead(found: dict[str, Any]) -> str:
    rows = [f"| engine in process | {_ms(found['engine_ms'])} | |"]
    for name, path in (("native", "/v1/translate"), ("libretranslate", "/translate")):
        one = found[name]
        rows.append(f"| `{path}` | {_ms(one['request_ms'])} | {_ms(one['overhead_ms'])} |")
    return "\n".join(
        [
            f"One client, {found['sentences']} sentences, medians of {found['rounds']} rounds in "
            f"turns; p50 / p95 / p99. The client takes {found['client_cpu_ms']:.2f} ms of "
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


def _open(found: dict[str, Any]) -> str:
    lines = [
        "Requests at random times (Poisson), whatever is not answered yet; ms from when a request "
        f"was due, {found['seconds']:g} s at each rate, no cache.",
        "",
        "| sent a second | `/v1/translate` p50 / p95 / p99 | answered a second | `/translate` "
        "p50 / p95 / p99 | answered a second |",
        "| --: | --: | --: | --: | --: |",
    ]
    by_rate: dict[int, dict[str, Any]] = {}
    for shape in ("native", "libretranslate"):
        for row in found[shape]:
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


def _soak(found: dict[str, Any]) -> str:
    size = found["memory"]
    return (
        f"Soak: {found['seconds']:.0f} s, {found['clients']} clients, {found['answered']:,} "
        f"requests answered (p50 / p95 / p99 {_ms(found['request_ms'])} ms), {found['errors']} "
        f"errors; {found['retried_503']} were told by 503 to come back, and did. Memory "
        f"{size['first_mb']} MB at its start, {size['mean_mb']} MB on average after warm-up, "
        f"{size['most_mb']} MB at most; {size['growth_percent']:+.1f} % along the fitted line."
    )


def _crash(found: dict[str, Any]) -> str:
    seconds = ", ".join(f"{one:.1f}" for one in found["seconds_to_serve"])
    lost = ", ".join(str(one) for one in found["requests_lost"])
    return (
        f"`kill -9` of the worker with {found['clients']} clients: {seconds} s until a translation "
        f"succeeded; {lost} attempts failed meanwhile, tried again every 50 ms by each client."
    )


def _median(one: dict[str, Any], name: str) -> str:
    if name not in one:
        return "–"
    value = one[name]["median"]
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _percent(value: str) -> str:
    return value if value == "–" else f"{float(value):.0%}"


def _ms(found: dict[str, float]) -> str:
    return " / ".join(f"{found[name]:.1f}" for name in ("p50", "p95", "p99"))


STYLES = {"native": ("#0b6e99", "-", "/v1/translate"), "libretranslate": ("#d98f2b", "--", "/translate")}  # fmt: skip # noqa: E501
LINES = (("p50", "o"), ("p95", "^"))


def draw(report: dict[str, Any], path: Path) -> bool:
    """Write a PNG of the open loop; False if there was none."""
    found = report["services"].get("no cache", {}).get("open-loop")
    if not found:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for shape, (colour, line, label) in STYLES.items():
        for name, marker in LINES:
            axis.plot(
                [row["per_s"] for row in found[shape]],
                [row[name] for row in found[shape]],
                f"{line}{marker}",
                color=colour,
                alpha=1.0 if name == "p50" else 0.55,
                label=f"{label}, {name}",
            )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="requests answered a second, one sentence each (log scale)",
        ylabel="ms from when a request was due (log scale)",
    )
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(ScalarFormatter())
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=130)
    draft.replace(path)
    return True

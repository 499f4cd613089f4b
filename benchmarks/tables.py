"""The tables of a report, as rows of text that HTML and Markdown share, and figures as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.plan import NAMES
from benchmarks.results import Figure, PairedDifference, Results, ScalingFit, Speed
from benchmarks.service_load import CHECK_NAMES, targets
from benchmarks.systems.base import WHOLE


@dataclass(frozen=True)
class Table:
    """A table; the first column is text, the others are figures unless `words` names them."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    words: frozenset[int] = field(default_factory=frozenset)


# --- results --------------------------------------------------------------------------------------


def tables(results: Results) -> Iterator[Table]:
    """Every table that the results have figures for."""
    makers = (
        overview,
        domain_table,
        domain_difference_table,
        quality_table,
        buckets_table,
        *(lambda r, t=threads: speed_table(r, t) for threads in results.settings.threads),
        latency_table,
        cost_table,
        roofline_table,
        profile_table,
        scaling_table,
    )
    for make in makers:
        table = make(results)
        if table is not None and table.rows:
            yield table
    yield from service_tables(results)


LENGTH_NOTE = "Length: tokens of the translations over those of the references."


def overview(results: Results) -> Table:
    """What a reader decides by, one row a system."""
    rows = []
    for system in results.systems:
        bleu = results.bleu(system.name) if results.same_pair(system.name) else None
        alone = results.speed_of(system.name, 1, 1)
        batched = results.speed_of(system.name, 1, 32) or results.speed_of(system.name, 1, 8)
        quality = next((q for q in results.quality if q.system == system.name), None)
        rows.append(
            [
                system.name,
                system.role,
                f"{system.engine} {system.precision}",
                decoding(system.beam_size),
                f"{system.source}→{system.target}",
                f"{system.parameters / 1e6:.1f}" if system.parameters else NONE,
                megabytes(system.bytes),
                f"{bleu.score:.2f}" if bleu else NONE,
                percent(quality.bleu_share) if quality else NONE,
                number(alone.sentences_per_second.median) if alone else NONE,
                number(batched.sentences_per_second.median) if batched else NONE,
                number(alone.source_words_per_second) if alone else NONE,
            ]
        )
    against = next((row.against for row in results.quality if row.against), None)
    head = [
        "system",
        "role",
        "engine",
        "decoding",
        "pair",
        "parameters, M",
        "MB",
        "BLEU",
        "of the teacher's",
        "sentences/s, alone",
        "… in batches",
        "source words/s, alone",
    ]
    note = f"One thread. The teacher is `{against}`." if against else "One thread."
    notes = [f"{row.name}: {row.note}" for row in results.systems if row.note]
    if notes:
        note += " " + "; ".join(notes) + "."
    return Table("Systems", head, rows, note, frozenset({1, 2, 3, 4}))


def quality_table(results: Results) -> Table:
    rows = []
    for row in results.quality:
        cells = [row.system, row.text]
        cells += [f"{one.score:.2f} ({one.low:.2f}–{one.high:.2f})" for one in row.scores]
        cells.append(ratio_text(row.length_ratio))
        if row.bleu_difference is None:
            cells += [NONE, NONE, NONE]
        else:
            share = (
                f"{percent(row.bleu_share)} ({percent(row.bleu_share_low)}–"
                f"{percent(row.bleu_share_high)})"
            )
            cells += [f"{row.bleu_difference:+.2f}", share, f"{row.p_value:.3f}"]
        rows.append(cells)
    metrics = [one.metric for one in results.quality[0].scores] if results.quality else []
    metrics.append("length")
    head = ["system", "test set", *metrics, "BLEU to the teacher", "share of its BLEU", "p"]
    note = (
        "Intervals of 95 % from 1,000 bootstrap resamples of the sentences; difference, share and "
        "p (two-sided) from the same resamples of both systems. TER: less is better. "
        f"{LENGTH_NOTE}"
    )
    return Table("Quality", head, rows, note, frozenset({1}))


def domain_tables(results: Results) -> Iterator[Table]:
    """The tables by domain that the results have figures for."""
    for table in (domain_table(results), domain_difference_table(results)):
        if table.rows:
            yield table


def domain_table(results: Results) -> Table:
    """BLEU, chrF2 and length of every system by domain; no rows where no domain was measured."""
    domains = results.domains
    rows = []
    for system in results.scored_on(domains):
        cells = [system]
        for text in domains:
            row = results.quality_of(system, text.name)
            scores = [row.score(metric) if row else None for metric in ("BLEU", "chrF2")]
            cells += [f"{one.score:.2f}" if one else NONE for one in scores]
            cells.append(ratio_text(row.length_ratio if row else None))
        rows.append(cells)
    head = ["system"]
    for text in domains:
        head += [f"{text.name}: BLEU", "chrF2", "length"]
    sizes = ", ".join(f"{text.name} {text.sentences:,}" for text in domains)
    signatures = dict.fromkeys(
        f"{one.metric} `{one.signature}`"
        for row in results.quality
        for one in row.scores
        if one.metric in ("BLEU", "chrF2")
    )
    note = f"Sentences: {sizes}. {LENGTH_NOTE} {'; '.join(signatures)}."
    return Table("Quality by domain", head, rows, note)


def domain_difference_table(results: Results) -> Table:
    """BLEU of every other system less the shipped one's, by domain."""
    domains = results.domains
    rows = []
    for system in results.scored_on(domains):
        if system == results.main_system:
            continue
        cells = [system]
        for text in domains:
            row = results.quality_of(system, text.name)
            less = row.less_shipped if row else None
            cells.append(_difference(less) if less else NONE)
        if any(cell != NONE for cell in cells[1:]):
            rows.append(cells)
    head = ["system", *(text.name for text in domains)]
    note = (
        f"BLEU less that of `{results.main_system}` on the same sentences: interval of 95 % and "
        "two-sided p by paired bootstrap, 1,000 resamples."
    )
    return Table("BLEU by domain, less the shipped system's", head, rows, note)


def _difference(less: PairedDifference) -> str:
    interval = f"{less.low:+.2f} to {less.high:+.2f}"
    return f"{less.difference:+.2f} ({interval}; p {less.p_value:.3f})"


def buckets_table(results: Results) -> Table | None:
    if not results.quality or not results.texts:
        return None
    text = results.texts[0]
    head = ["system"]
    rows = []
    for row in results.quality:
        if row.text != text.name:
            continue
        head = ["system", *(f"{NAMES[one.by][one.third]} ({one.sentences})" for one in row.buckets)]
        rows.append([row.system, *(f"{one.bleu:.2f}" for one in row.buckets)])
    edges = text.bucket_edges.get("length")
    note = f"BLEU on {text.name} by thirds of source length, then by how rare the source words are."
    if edges:
        note += f" Middle sentences begin at {edges[0]:.0f} tokens, long ones at {edges[1]:.0f}."
    return Table("Quality by length and rare words", head, rows, note)


def speed_table(results: Results, threads: int) -> Table:
    """Sentences a second by batch size on so many threads."""
    own = [row for row in results.speed if row.threads == threads]
    sizes = list(dict.fromkeys(row.batch_size for row in own))
    rows = []
    for system in dict.fromkeys(row.system for row in own):
        cells = [system]
        for size in sizes:
            is_main = results.speed_of(system, threads, size)
            ratio = next(
                (
                    one.times
                    for one in results.ratios
                    if (one.against, one.threads, one.batch_size) == (system, threads, size)
                ),
                None,
            )
            cells.append(spread(is_main.sentences_per_second) if is_main else NONE)
            cells.append(spread(ratio) if ratio else ("1" if is_main else NONE))
        last = results.speed_of(system, threads, sizes[-1])
        tokens = number(last.source_tokens_per_second) if last else NONE
        cpu = number(last.cpu_seconds_per_million_source_tokens) if last else NONE
        cores = f"{last.cores_used:.2f}" if last else NONE
        rows.append([*cells, tokens, cpu, cores])
    head = ["system"]
    for size in sizes:
        head += [f"sentences/s, {batch_label(size)}", f"`{results.main_system}` is × as fast"]
    end = batch_label(sizes[-1]) if sizes else ""
    head += [f"source tokens/s, {end}", "CPU s a million source tokens", "cores busy"]
    note = (
        f"Medians with intervals of 95 % of {rounds_of(own)} interleaved rounds; ratios are taken "
        "round by round. Text in, text out."
    )
    plural = "thread" if threads == 1 else "threads"
    return Table(f"Speed on {threads} {plural}", head, rows, note)


def rounds_of(rows: Sequence[Speed]) -> str:
    """How many rounds some speeds had: `5`, or `3 to 5`."""
    counts = {len(row.sentences_per_second.rounds) for row in rows} or {0}
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def latency_table(results: Results) -> Table:
    names: dict[int | None, str] = {None: "all"}
    names.update(enumerate(NAMES["length"]))
    rows = [
        [
            row.system,
            str(row.threads),
            names[row.third],
            number(row.mean_source_tokens),
            spread(row.p50_ms),
            spread(row.p95_ms),
            spread(row.p99_ms),
        ]
        for row in results.latency
        if row.threads == 1 or row.third is None
    ]
    head = ["system", "threads", "sentences", "mean source tokens", "p50, ms", "p95, ms", "p99, ms"]
    note = "One sentence at a time; percentiles of each round, medians of the rounds (95 %)."
    return Table("Latency", head, rows, note, frozenset({2}))


def cost_table(results: Results) -> Table:
    rows = [
        [
            row.system,
            str(row.threads),
            number(row.load_seconds),
            megabytes(row.bytes_before),
            megabytes(row.bytes_loaded),
            megabytes(row.bytes_peak),
        ]
        for row in results.cost
    ]
    head = ["system", "threads", "load, s", "MB before", "MB loaded", "MB at most"]
    note = "Loading ends with a first translation. Memory is in RAM, of the process and children."
    return Table("Loading and memory", head, rows, note)


def roofline_table(results: Results) -> Table:
    rows = [
        [
            row.system,
            str(row.threads),
            batch_label(row.batch_size),
            number(row.operations_per_sentence / 1e6),
            number(row.gops),
            percent(row.share_of_float32),
            percent(row.share_of_int8),
        ]
        for row in results.shares
    ]
    peaks = "; ".join(
        f"{one.precision} on {one.threads}: {spread(one.gops)} GOP/s ({one.kernel})"
        for one in results.peaks
    )
    head = ["system", "threads", "batch", "MOP a sentence", "GOP/s", "of float32 peak", "of int8"]
    note = (
        "Operations of matrix products, a multiplication and an addition counted as two, as a "
        f"share of what square products of 1,024 reach here: {peaks}. Alone, a decoder multiplies "
        "matrices by single vectors, which no library does near that peak."
    )
    return Table("How far from the machine's limit", head, rows, note, frozenset({2}))


def profile_table(results: Results) -> Table:
    rows = [
        [one.system, batch_label(one.batch_size), part.name, percent(part.share)]
        for one in results.profiles
        for part in one.parts
        if part.share >= 0.005
    ]
    note = f"Share of processor time; {results.profiles[0].method}." if results.profiles else ""
    head = ["system", "batch", "part", "share"]
    return Table("Where the time goes", head, rows, note, frozenset({1, 2}))


def scaling_table(results: Results) -> Table:
    rows = [
        [one.system, one.axis, _points(one), _exponent(one), f"{one.r_squared:.3f}", one.of]
        for one in results.growth
    ]
    head = ["system", "axis", "seconds at", "exponent (95 %)", "R²", "seconds of"]
    note = "Fitted: seconds = a · x ^ exponent; 1 is proportional, 0 is no growth."
    return Table("How cost grows", head, rows, note, frozenset({1, 2, 5}))


def _points(growth: ScalingFit) -> str:
    points = (f"{number(one.x)}: {number(one.seconds.median)}" for one in growth.points)
    return f"{growth.unit} {', '.join(points)}"


def _exponent(growth: ScalingFit) -> str:
    return f"{growth.exponent:.2f} ({growth.exponent_low:.2f}–{growth.exponent_high:.2f})"


# --- the service under load -----------------------------------------------------------------------

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
        [what, measured, aim, "yes" if reached else "no"]
        for what, aim, measured, reached in targets(report)
    ]
    for name, service in report["services"].items():
        rows += [[*row, NONE, NONE] for row in _details(CHECK_NAMES.get(name, name), service)]
    head = ["service", "measured", "aim", "reached"]
    return Table("The service", head, rows, _signature(report), frozenset({1, 2, 3}))


def _details(name: str, service: dict[str, Any]) -> Iterator[Row]:
    """Name and figure of what has no aim."""
    if figures := service.get("overhead"):
        yield from _overhead(figures)
    if figures := service.get("throughput"):
        yield from _throughput(f"{figures['clients']} clients, {name}", figures)
    if figures := service.get("soak"):
        yield [f"soak, {figures['seconds']:.0f} s: p50 / p95 / p99, ms", _ms(figures["request_ms"])]
        yield ["soak: MB on average / at most", _memory(figures["memory"])]


def _overhead(figures: dict[str, Any]) -> Iterator[Row]:
    yield ["one client, engine in process: p50 / p95 / p99, ms", _ms(figures["engine_ms"])]
    for shape, path in PATHS.items():
        if one := figures.get(shape):
            yield [f"one client, `{path}`: ms beyond the engine", _ms(one["overhead_ms"])]


def _throughput(what: str, figures: dict[str, Any]) -> Iterator[Row]:
    """Of the engine's, where it was measured beside the service: in batches of sentences as they
    come, whose share was taken round by round, and of like lengths."""
    served = figures["served_per_s"]["median"]
    if "engine_per_s" in figures:
        yield [
            f"{what}: sentences/s",
            _of(served, figures["engine_per_s"], figures["share"]["median"]),
        ]
    else:
        yield [f"{what}: sentences/s", number(served)]
    if alike := figures.get("alike_per_s"):
        share = served / alike["median"]
        yield [f"{what}: sentences/s, engine with like lengths", _of(served, alike, share)]


def _of(served: float, engine: dict[str, float], share: float) -> str:
    return f"{number(served)} of {number(engine['median'])} ({percent(share, 0)})"


def _memory(figures: dict[str, Any]) -> str:
    return f"{figures['mean_mb']:.1f} / {figures['most_mb']:.1f}"


def _ms(quantiles: dict[str, float]) -> str:
    return " / ".join(f"{quantiles[name]:.1f}" for name in PERCENTILES)


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


# --- figures as text ------------------------------------------------------------------------------

NONE = "–"


def batch_label(batch_size: int) -> str:
    return "whole file" if batch_size == WHOLE else f"batch {batch_size}"


def decoding(beam_size: int) -> str:
    return "greedy" if beam_size == 1 else f"beam {beam_size}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure to so many significant digits, without an exponent."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    text = f"{value:,.{max(0, digits - 1 - _power(value))}f}"
    return text


def _power(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def spread(figure: Figure, digits: int = 3) -> str:
    """`median (low–high)`."""
    low, high = number(figure.low, digits), number(figure.high, digits)
    return f"{number(figure.median, digits)} ({low}–{high})"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def ratio_text(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}" if value < 1e8 else f"{value / 1e6:,.0f}"

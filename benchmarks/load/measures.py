"""What is measured of a running service, each against the engine in the same run, and what is sent:
sentences, and requests of mixed sizes made of them. All seeded.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any, Literal

from benchmarks.load.served import LoadWorker, ServiceProcess
from benchmarks.speed import spread

Shape = Literal["native", "libretranslate"]
PATHS: dict[Shape, str] = {"native": "/v1/translate", "libretranslate": "/translate"}


# --- measurements ---------------------------------------------------------------------------------

WARM_UP = 30
SAMPLE_S = 2.0
COMPARABLE = 0.5
"""Share of the requests that the engine must have seen, for the cache's are not to be compared."""
SETTLING = 0.25
"""Share of a soak that counts as warm-up."""
SHAPES: tuple[Shape, ...] = ("native", "libretranslate")
RATES = (1, 2, 5, 10, 20, 50, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800, 1000, 1500, 2000)
SATURATED_MS = 1000.0
"""An open loop ends at the rate at which half of the requests take longer, or one is refused."""


@dataclass(frozen=True)
class LoadPlan:
    """How much is measured."""

    clients: int = 64
    rounds: int = 5
    overhead_sentences: int = 200
    throughput_s: float = 8.0
    soak_s: float = 600.0
    soak_bodies: int = 3000
    crash_s: float = 25.0
    crashes: int = 2
    open_s: float = 6.0
    rates: tuple[int, ...] = RATES


@dataclass(frozen=True)
class LoadBench:
    """A service, the engine in process, the client, and the sentences that both get."""

    served: ServiceProcess
    engine: LoadWorker
    client: LoadWorker
    sentences: Sequence[str]
    languages: tuple[str, str]
    scores: bool
    """Whether the service asks the engine for scores, so the engine gives them here too."""
    plan: LoadPlan
    say: Callable[[str], None]

    def closed(self, bodies: Sequence[str], clients: int, **fields: Any) -> dict[str, Any]:
        """Send by so many clients. `path`, `seconds` and `count` as `workers.py` describes them."""
        return self.client.run(**self.command(bodies, clients, **fields))

    def command(self, bodies: Sequence[str], clients: int, **fields: Any) -> dict[str, Any]:
        """The command for a closed loop."""
        given = {"path": PATHS["native"], "seconds": 3600, **fields}
        return {
            "loop": "closed", "port": self.served.port, "bodies": list(bodies), "clients": clients,
            **given,
        }  # fmt: skip

    def bodies(self, shape: Shape, sentences: Sequence[str]) -> list[str]:
        """A request for each sentence."""
        return [body(shape, sentence, *self.languages) for sentence in sentences]

    def warm_up(self) -> None:
        """Let both do some work that does not count."""
        few = self.sentences[-WARM_UP:]
        self.closed(self.bodies("native", few), 8, count=10 * WARM_UP)
        self.engine.run(sentences=few, scores=self.scores)


def overhead(bench: LoadBench) -> dict[str, Any]:
    """Milliseconds that a lone request takes beyond the engine's own call for the same sentence.

    Of each sentence the median of the rounds counts, in which the engine and the shapes take turns.
    """
    sentences = bench.sentences[: bench.plan.overhead_sentences]
    bodies = {shape: bench.bodies(shape, sentences) for shape in SHAPES}
    engine: list[list[float]] = []
    served_ms: dict[Shape, list[list[float]]] = {shape: [] for shape in SHAPES}
    client_ms: list[float] = []
    for turn in range(bench.plan.rounds):
        engine.append(bench.engine.run(sentences=sentences, scores=bench.scores)["ms"])
        for shape in SHAPES:
            answer = bench.closed(bodies[shape], 1, path=PATHS[shape], count=len(sentences))
            served_ms[shape].append(_all_answered(answer, len(sentences)))
            client_ms.append(answer["cpu_seconds"] * 1e3 / len(sentences))
        bench.say(f"overhead: round {turn + 1} of {bench.plan.rounds}")
    alone = [median(times) for times in zip(*engine, strict=True)]
    result: dict[str, Any] = {
        "sentences": len(sentences),
        "rounds": bench.plan.rounds,
        "engine_ms": quantiles(alone),
        "client_cpu_ms": round(median(client_ms), 3),
    }
    for shape, rounds in served_ms.items():
        served = [median(times) for times in zip(*rounds, strict=True)]
        beyond = [one - other for one, other in zip(served, alone, strict=True)]
        result[shape] = {"request_ms": quantiles(served), "overhead_ms": quantiles(beyond)}
    return result


def throughput(bench: LoadBench) -> dict[str, Any]:
    """Sentences a second of many clients with one sentence each, and the engine's in process in
    batches of the same sizes, as the text comes and of like lengths; the processor time that a
    sentence takes of each."""
    bodies = bench.bodies("native", bench.sentences)
    rounds: list[dict[str, float]] = []
    for turn in range(bench.plan.rounds):
        batches, cpu = bench.served.batches(), bench.served.cpu_seconds
        answer = bench.closed(bodies, bench.plan.clients, seconds=bench.plan.throughput_s)
        served_cpu = bench.served.cpu_seconds - cpu
        batches = bench.served.batches().since(batches)
        answered = len(_all_answered(answer))
        sizes = batches.sizes()
        row = {
            "served_per_s": answered / answer["seconds"],
            "served_cpu_ms": served_cpu * 1e3 / answered,
            "client_cpu_ms": answer["cpu_seconds"] * 1e3 / answered,
            "p50_ms": quantiles(answer["ms"])["p50"],
            "p95_ms": quantiles(answer["ms"])["p95"],
            "batch_sentences": fmean(sizes) if sizes else 0.0,
            "translated": sum(sizes) / answered,
        }
        if row["translated"] > COMPARABLE:
            for name, alike in (("engine", False), ("alike", True)):
                alone = bench.engine.run(
                    sentences=list(bench.sentences), sizes=sizes, scores=bench.scores, alike=alike
                )
                row |= {
                    f"{name}_per_s": alone["sentences"] / alone["seconds"],
                    f"{name}_cpu_ms": alone["cpu_seconds"] * 1e3 / alone["sentences"],
                }
            row["share"] = row["served_per_s"] / row["engine_per_s"]
            row["cpu_share"] = row["engine_cpu_ms"] / row["served_cpu_ms"]
        rounds.append(row)
        bench.say(f"throughput: round {turn + 1}, {row['served_per_s']:.0f} sentences/s")
    names = [name for name in rounds[0] if all(name in row for row in rounds)]
    return {
        "clients": bench.plan.clients,
        "rounds": len(rounds),
        "seconds": bench.plan.throughput_s,
        **{name: spread([row[name] for row in rounds], 3) for name in names},
    }


def soak(bench: LoadBench) -> dict[str, Any]:
    """Many clients with requests of mixed sizes for minutes: errors, and the worker's memory."""
    bodies = mixed(bench.sentences, bench.plan.soak_bodies)
    command = bench.command(bodies, bench.plan.clients, seconds=bench.plan.soak_s)
    begin = time.monotonic()
    bench.client.begin(**command)
    samples: list[tuple[float, int]] = []
    while (at := time.monotonic() - begin) < bench.plan.soak_s:
        samples.append((at, bench.served.resident_bytes))
        if len(samples) % 15 == 0:
            bench.say(f"soak: {at:.0f} s, {samples[-1][1] / 1e6:.0f} MB")
        time.sleep(min(SAMPLE_S, bench.plan.soak_s / 20))
    answer = bench.client.answer()
    statuses = {status: count for status, count in answer["statuses"].items() if status != "200"}
    return {
        "seconds": round(answer["seconds"], 1),
        "clients": bench.plan.clients,
        "answered": len(answer["ms"]),
        "errors": sum(statuses.values()) + answer["lost"],
        "statuses": answer["statuses"],
        "lost": answer["lost"],
        "retried_503": answer["retried"],
        "request_ms": quantiles(answer["ms"]),
        "memory": memory(samples, bench.plan.soak_s * SETTLING),
        "samples": [[round(at, 1), size] for at, size in samples],
    }


def memory(samples: Sequence[tuple[float, int]], settled_s: float) -> dict[str, float]:
    """How resident memory went after warm-up: by the least-squares line over it, in percent of
    its mean; MB."""
    later = [(at, size / 1e6) for at, size in samples if at >= settled_s] or [
        (at, size / 1e6) for at, size in samples
    ]
    sizes = [size for _, size in later]
    growth = 0.0
    if len(later) > 1:
        slope = linear_regression([at for at, _ in later], sizes).slope
        growth = 100 * slope * (later[-1][0] - later[0][0]) / fmean(sizes)
    return {
        "first_mb": round(samples[0][1] / 1e6, 1),
        "mean_mb": round(fmean(sizes), 1),
        "most_mb": round(max(size for _, size in samples) / 1e6, 1),
        "growth_percent": round(growth, 2),
        "range_percent": round(100 * (max(sizes) - min(sizes)) / fmean(sizes), 2),
    }


def crash(bench: LoadBench) -> dict[str, Any]:
    """`kill -9` of the worker under load: seconds until a translation succeeds again, and the
    requests that failed by it."""
    bodies = bench.bodies("native", bench.sentences)
    seconds, lost = [], []
    for turn in range(bench.plan.crashes):
        command = bench.command(bodies, bench.plan.clients, seconds=bench.plan.crash_s)
        bench.client.begin(**command)
        time.sleep(min(3.0, bench.plan.crash_s / 4))
        worker, killed = bench.served.worker, time.monotonic()
        os.kill(worker, signal.SIGKILL)
        answer = bench.client.answer()
        # What was on its way to the client at the kill is no proof of life: it comes at once.
        first_loss = min(answer["losses"], default=killed)
        again = [end for end in answer["ends"] if end > max(killed, first_loss)]
        bench.served.wait_until_ready()
        if not again:
            raise RuntimeError(f"nothing was translated within {bench.plan.crash_s:g} s of a kill")
        seconds.append(min(again) - killed)
        lost.append(answer["lost"])
        bench.say(f"crash {turn + 1}: serving again after {seconds[-1]:.1f} s")
    return {
        "crashes": len(seconds),
        "clients": bench.plan.clients,
        "seconds_to_serve": [round(one, 2) for one in seconds],
        "requests_lost": lost,
    }


def open_loop(bench: LoadBench) -> dict[str, Any]:
    """Requests at random times, at rates from one a second to saturation: their time from when
    they were to be sent."""
    report: dict[str, Any] = {"seconds": bench.plan.open_s}
    for shape in SHAPES:
        bodies = bench.bodies(shape, bench.sentences)
        rows = report[shape] = []
        for rate in bench.plan.rates:
            answer = bench.client.run(
                loop="open", port=bench.served.port, path=PATHS[shape], bodies=bodies, rate=rate,
                seconds=bench.plan.open_s, seed=rate,
            )  # fmt: skip
            if not answer["ms"]:
                break
            row = _open_row(rate, answer)
            rows.append(row)
            bench.say(f"open loop, {shape}: {rate}/s, p50 {row['p50']:.1f} ms")
            if row["refused"] or row["p50"] > SATURATED_MS:
                break
    return report


def _open_row(rate: int, answer: dict[str, Any]) -> dict[str, Any]:
    answered = len(answer["ms"])
    sent = sum(answer["statuses"].values()) + answer["lost"]
    return {
        "rate": rate,
        "sent": sent,
        "per_s": round(answered / answer["seconds"], 1),
        "refused": sent - answered,
        "client_cpu_share": round(answer["cpu_seconds"] / answer["seconds"], 3),
        **quantiles(answer["ms"]),
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """50th, 95th and 99th percentile. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no request was answered")
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        name: round(ordered[round(last * share)], 3)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }


def _all_answered(answer: dict[str, Any], count: int | None = None) -> list[float]:
    """Milliseconds of all requests. Raises RuntimeError if not each was answered."""
    times: list[float] = answer["ms"]
    others = {status: n for status, n in answer["statuses"].items() if status != "200"}
    if others or answer["lost"] or not times or (count is not None and len(times) != count):
        raise RuntimeError(
            f"{len(times)} requests were answered, {answer['lost']} connections lost, others: "
            f"{others}: a figure would not count all"
        )
    return times


# --- requests -------------------------------------------------------------------------------------

WHO = (
    "The old man", "My sister", "A small dog", "The teacher", "Our neighbour", "The young doctor",
    "Nobody", "Her brother", "The driver", "A friend of mine", "The children", "The committee",
    "Tom", "The woman next door", "Everyone in the village", "The new student",
)  # fmt: skip
DOES = (
    "wants to buy", "never talks about", "has always liked", "is looking for", "forgot to bring",
    "will soon sell", "could not find", "has just repaired", "is afraid of", "dreams about",
    "would like to see", "has to pay for", "was waiting for", "does not need",
)  # fmt: skip
WHAT = (
    "a red bicycle", "the big house at the end of the street", "the train to the coast", "a map",
    "the letter that came on Monday", "a cup of tea", "the blue door", "his father's car",
    "the answer to this question", "a ticket for the concert", "some bread and cheese",
    "the keys of the office", "a warm coat", "the bridge over the river",
)  # fmt: skip
WHEN = (
    "", " today", " after work", " because the weather is bad", " in the middle of the night",
    " when the shop is closed", " again", ", but there is not enough time left for it",
    " without telling anybody", " since last summer", ", and that is why we are late",
    " in the rain",
)  # fmt: skip

SIZES = {"sentence": 70, "paragraph": 12, "list": 9, "html": 7, "document": 2}
"""Of a hundred mixed requests so many are of each kind."""
DOCUMENT_LINES = 60
MAX_CHARS = 9000
"""Characters of a document at most, under the service's own limit of a text."""


def read_sentences(path: Path | None, limit: int, seed: int = 1) -> list[str]:
    """Different sentences of a text file (one a line, .gz or not) in a shuffled order; made-up
    ones where no file is given. Raises OSError, and ValueError if there are none."""
    if path is None:
        sentences = [f"{' '.join(words)}{end}." for *words, end in _made_up()]
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            sentences = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not sentences:
        raise ValueError(f"{path} has no sentence: give a text with one a line")
    random.Random(seed).shuffle(sentences)
    return sentences[:limit]


def _made_up() -> itertools.product[Any]:
    return itertools.product(WHO, DOES, WHAT, WHEN)


def body(shape: Shape, text: str | Sequence[str], source: str, target: str) -> str:
    """A request's body for one text, or for a list."""
    if shape == "libretranslate":
        return json.dumps({"q": text, "source": source, "target": target, "format": "text"})
    return json.dumps({"text": text})


def mixed(sentences: Sequence[str], count: int, seed: int = 1) -> list[str]:
    """Bodies of the native API: mostly sentences, some paragraphs, lists, HTML, few documents."""
    chance = random.Random(seed)
    kinds = chance.choices(list(SIZES), list(SIZES.values()), k=count)
    return [json.dumps(_request(kind, sentences, chance)) for kind in kinds]


def _request(kind: str, sentences: Sequence[str], chance: random.Random) -> dict[str, Any]:
    def some(least: int, most: int) -> list[str]:
        return chance.choices(sentences, k=chance.randint(least, most))

    if kind == "paragraph":
        return {"text": " ".join(some(3, 8))}
    if kind == "list":
        return {"text": some(4, 16)}
    if kind == "html":
        paragraphs = "".join(f"<p>{_marked(one)}</p>\n" for one in some(2, 6))
        return {"text": f"<h1>{some(1, 1)[0]}</h1>\n{paragraphs}", "format": "html"}
    if kind == "document":
        lines = some(DOCUMENT_LINES, DOCUMENT_LINES)
        return {"text": "\n\n".join(lines)[:MAX_CHARS]}
    return {"text": some(1, 1)[0]}


def _marked(sentence: str) -> str:
    """A sentence with its second word in bold."""
    first, _, rest = sentence.partition(" ")
    second, space, rest = rest.partition(" ")
    return f"{first} <b>{second}</b>{space}{rest}" if rest else sentence

"""A bundle's engine called in process, as the service is measured against it; told by JSON lines.

{"sentences": […], "scores": true}                   one by one: {"ms": […]}
{"sentences": […], "sizes": […], "scores": true}     in batches of these sizes, as many at a time
                                                     as threads: {"seconds", "cpu_seconds"};
                                                     with "alike": true each of like lengths
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from export.runtime.bundle import load_bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine


def one_by_one(engine: Engine, sentences: Sequence[str], options: TranslateOptions) -> list[float]:
    """Milliseconds of each sentence."""
    found = []
    for sentence in sentences:
        begin = time.perf_counter()
        engine.translate_batch([sentence], options)
        found.append((time.perf_counter() - begin) * 1e3)
    return found


def in_batches(
    engine: Engine,
    sentences: Sequence[str],
    sizes: Sequence[int],
    options: TranslateOptions,
    threads: int,
) -> dict[str, Any]:
    """Seconds, of the clock and of the processor, that all batches take together."""
    batches = list(_cut(sentences, sizes))
    cpu, begin = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda batch: engine.translate_batch(batch, options), batches):
            pass
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "sentences": sum(map(len, batches)),
    }


def _cut(sentences: Sequence[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Batches of these sizes, from the start again where the sentences end."""
    place = 0
    for size in sizes:
        yield [sentences[(place + index) % len(sentences)] for index in range(size)]
        place += size


def main(path: str, threads: str) -> None:
    engine = load_engine(load_bundle(Path(path)), inter_threads=int(threads))
    for line in sys.stdin:
        order = json.loads(line)
        options = TranslateOptions(return_scores=order["scores"])
        sentences = order["sentences"]
        if order.get("alike"):
            sentences = sorted(sentences, key=engine.count_tokens)
        if "sizes" in order:
            found = in_batches(engine, sentences, order["sizes"], options, int(threads))
        else:
            found = {"ms": one_by_one(engine, sentences, options)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

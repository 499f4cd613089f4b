"""One engine of a bundle in a process of its own, without torch, that does as it is told.

Commands come as JSON lines on standard input, answers go as JSON lines to standard output:
`{"translate": [sentences], "batch": N, "texts": true}` → `{"seconds": …, "texts": […]}`. At the
start there is one line with the seconds that loading took and the resident memory before and after.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from export.bundle import Bundle, load_bundle
from export.engines import Engine, TranslateOptions, load_engine
from export.manifest import EngineEntry

STOCK = "ctranslate2-stock-int8"
"""Not an engine of bundles: CTranslate2's own int8, made from the float32 weights on loading."""


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not say how much memory a process has")


def with_stock(bundle: Bundle) -> Bundle:
    """The bundle with CTranslate2's own int8 as one more engine, if it has float32 weights."""
    for engine in bundle.manifest.engines:
        if engine.kind == "ctranslate2" and engine.precision == "float32":
            stock = EngineEntry(**{**engine.model_dump(), "name": STOCK, "compute": "int8"})
            engines = (*bundle.manifest.engines, stock)
            return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))
    return bundle


def translate(engine: Engine, sentences: list[str], batch: int) -> tuple[float, list[str]]:
    """Seconds, text in, text out, and the translations: greedy, so many sentences a call."""
    options, texts = TranslateOptions(), []
    start = time.perf_counter()
    for first in range(0, len(sentences), batch):
        found = engine.translate_batch(sentences[first : first + batch], options)
        texts += [one.text for one in found]
    return time.perf_counter() - start, texts


def main(path: str, name: str, threads: str) -> None:
    bundle = with_stock(load_bundle(Path(path)))
    before, start = resident_bytes(), time.perf_counter()
    engine = load_engine(bundle, name, intra_threads=int(threads), max_batch_tokens=4096)
    engine.translate_batch(["A first sentence."], TranslateOptions())
    seconds = time.perf_counter() - start
    answer({"load_seconds": seconds, "bytes_before": before, "bytes_after": resident_bytes()})
    for line in sys.stdin:
        order = json.loads(line)
        taken, texts = translate(engine, order["translate"], order["batch"])
        told = {"texts": texts} if order.get("texts") else {}
        answer({"seconds": taken, "bytes": resident_bytes(), **told})


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

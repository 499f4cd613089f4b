"""What each engine of a bundle costs and keeps: size, load, memory, identical lines, BLEU, speed.

    python -m benchmarks.engine_figures models/en-de --src test.en.gz --ref test.de.gz \
        --out benchmarks/results/engines-en-de

Every engine that a bundle can have is written anew from the bundle's own weights (or from a
checkpoint's), and CTranslate2's own int8 joins them. Each runs in a process of its own, on one
thread; they take turns. Run it with nothing else running. `CT2_FORCE_CPU_ISA=AVX2
DNNL_MAX_CPU_ISA=AVX2` before it shows what processors without VNNI do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.engine_worker import STOCK, with_stock
from benchmarks.speed import machine, ratios, spread
from export.bundle import Bundle, load_bundle
from export.exporter import write_engines
from export.from_ctranslate2 import from_ctranslate2
from export.gate import HeldOut, translate_in_torch
from export.manifest import BundleInfo
from export.quality import scores
from export.upgrade import reference_of, weights_of
from export.writers import Lexicon, chosen_writers, known_writers
from training.atomic import atomic_write
from training.checkpoint import load_checkpoint
from training.data import taught_pairs
from training.model import Transformer

BATCHES = (1, 32)
CONFINING = ("CT2_FORCE_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


class Worker:
    """An engine in its own process."""

    def __init__(self, bundle: Path, name: str, threads: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine_worker", str(bundle), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.start = self._answer()

    def translate(self, sentences: list[str], batch: int, texts: bool = False) -> dict[str, Any]:
        """Translate, `batch` sentences a call; seconds, memory, and the texts if asked for."""
        assert self._process.stdin is not None
        order = {"translate": sentences, "batch": batch, "texts": texts}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"engine {self.name} ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def every_engine(bundle: Bundle, model: Transformer, lexicon: Lexicon | None) -> Iterator[Bundle]:
    """A bundle of the same model with all engines there are, in a temporary folder."""
    names = [name for name in known_writers() if lexicon or not name.endswith("shortlist")]
    writers = chosen_writers(names)
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}
    info = BundleInfo(
        **{**fields, "engines": tuple(one.entry for one in writers), "default_engine": names[0]}
    )
    recipe = (bundle.path / bundle.manifest.recipe).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        yield write_engines(model, bundle.tokenizer_path, recipe, out, info, None, lexicon)


def measure(
    bundle: Bundle,
    reference: list[str],
    text: HeldOut,
    rounds: int,
    speed_sentences: int,
    threads: int,
) -> dict[str, Any]:
    """Every engine of a bundle, and stock int8: figures by name."""
    bundle = with_stock(bundle)
    src, ref = list(text.src), list(text.ref)
    timed = src[:: max(1, len(src) // speed_sentences)][:speed_sentences]
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        workers = []
        for entry in bundle.manifest.engines:
            worker = Worker(bundle.path, entry.name, threads)
            stack.callback(worker.close)
            workers.append(worker)
            output = worker.translate(src, 32, texts=True)
            alone = worker.translate(src, 1, texts=True)["texts"]
            folder = bundle.path / entry.path
            found[entry.name] = {
                "precision": entry.precision,
                "compute": entry.compute,
                "bytes": sum(one.stat().st_size for one in folder.iterdir()),
                "load_seconds": round(worker.start["load_seconds"], 3),
                "resident_bytes": output["bytes"],
                "resident_bytes_before": worker.start["bytes_before"],
                "identical": sum(map(str.__eq__, output["texts"], reference)) / len(src),
                "as_alone": sum(map(str.__eq__, output["texts"], alone)) / len(src),
                "scores": {one.metric: one.score for one in scores(output["texts"], ref)},
            }
        for batch, rates in _speeds(workers, timed, rounds).items():
            for name, values in rates.items():
                found[name][f"sentences_per_second_batch_{batch}"] = spread(values)
                found[name][f"times_stock_batch_{batch}"] = ratios(values, rates[STOCK])
    return found


def _speeds(
    workers: list[Worker], timed: list[str], rounds: int
) -> dict[int, dict[str, list[float]]]:
    """Sentences a second by batch size, engine and round; the engines take turns."""
    found: dict[int, dict[str, list[float]]] = {
        batch: {worker.name: [] for worker in workers} for batch in BATCHES
    }
    for batch in BATCHES:
        for turn in range(rounds + 1):
            for worker in workers:
                seconds = worker.translate(timed, batch)["seconds"]
                if turn:  # the first one warms up
                    found[batch][worker.name].append(len(timed) / seconds)
    return found


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Engines of {report['bundle']}",
        "",
        f"{report['sentences']} test sentences; torch float32 greedy ({report['reference']}) has "
        f"{report['torch_bleu']:.2f} BLEU. One thread, medians (least–most) of {report['rounds']} "
        f"interleaved rounds of {report['speed_sentences']} sentences, greedy, text in, text out.",
        "",
        "| engine | size, MB | load, s | resident, MB | lines as torch's | BLEU "
        "| sentences/s, batch 1 | × stock | sentences/s, batch 32 | × stock | batch 32 as alone |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, one in report["engines"].items():
        speeds = [
            value
            for batch in BATCHES
            for value in (
                f"{one[f'sentences_per_second_batch_{batch}']['median']:.0f}",
                _ratio(one[f"times_stock_batch_{batch}"]),
            )
        ]
        lines.append(
            f"| `{name}` | {one['bytes'] / 1e6:.2f} | {one['load_seconds']:.2f} | "
            f"{one['resident_bytes'] / 1e6:.0f} | {one['identical']:.1%} | "
            f"{one['scores']['BLEU']:.2f} | {' | '.join(speeds)} | {one['as_alone']:.1%} |"
        )
    about = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return "\n".join([*lines, "", f"{report['signature']}; {about}.", ""])


def _confined() -> dict[str, str]:
    """Environment variables that keep libraries from instructions that the processor has."""
    return {name: os.environ[name] for name in CONFINING if name in os.environ}


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['least']:.2f}–{found['most']:.2f})"


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle whose model is measured.")],
    src: Annotated[Path, typer.Option(help="Test sentences, one a line.")],
    ref: Annotated[Path, typer.Option(help="Their references.")],
    out: Annotated[Path, typer.Option(help="Results, without .json and .md.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Take the weights from this checkpoint instead.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of a run whose labels make a shortlist.")
    ] = None,
    rounds: int = 7,
    speed_sentences: int = 200,
    threads: int = 1,
) -> None:
    """Measure every engine that a bundle can have."""
    torch.set_num_threads(threads)
    opened = load_bundle(bundle)
    model = (
        from_ctranslate2(weights_of(opened))
        if checkpoint is None
        else load_checkpoint(checkpoint).model
    )
    text = HeldOut.read(src, ref)
    with every_engine(opened, model.eval(), _lexicon(labels)) as everything:
        reference = translate_in_torch(everything, model, text)
        bleu = scores(reference.texts, list(reference.held_out.ref))[0]
        report = {
            "bundle": opened.manifest.name,
            "reference": "its checkpoint" if checkpoint else reference_of(bundle),
            "sentences": len(reference.texts),
            "torch_bleu": bleu.score,
            "signature": bleu.signature,
            "rounds": rounds,
            "speed_sentences": speed_sentences,
            "threads": threads,
            "machine": {**machine(("onnxruntime",)), **_confined()},
            "engines": measure(
                everything, reference.texts, reference.held_out, rounds, speed_sentences, threads
            ),
        }
    atomic_write(out.with_suffix(".json"), json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    atomic_write(out.with_suffix(".md"), table(report))
    print(table(report))


def _lexicon(run: Path | None) -> Lexicon | None:
    if run is None:
        return None
    shards = sorted((run / "tokens" / "train").glob("*.arrow"))
    return lambda: taught_pairs(shards, run / "labels")


if __name__ == "__main__":
    typer.run(main)

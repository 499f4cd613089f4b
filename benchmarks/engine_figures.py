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
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.speed import ratios, spread, take_turns
from benchmarks.systems.base import bytes_on_disk
from benchmarks.systems.ours import STOCK, bundle_systems, with_stock
from benchmarks.systems.process import SystemProcess, start_systems
from export.ctranslate2 import from_ctranslate2
from export.exporter import (
    TranslatedText,
    engine_names,
    exporters_of,
    reference_of,
    weights_of,
    write_engines,
)
from export.metrics import scores
from export.quality_gate import EvalSet, translate_in_torch
from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.runtime.manifest import BundleInfo, EngineEntry
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine
from training.checkpoint import load_checkpoint
from training.data.dataset import translated_pairs
from training.model.transformer import Transformer

BATCHES = (1, 32)
CONFINING = ("CT2_FORCE_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@contextmanager
def every_engine(
    bundle: Bundle, model: Transformer, translated_text: TranslatedText | None
) -> Iterator[Bundle]:
    """A bundle of the same model with all engines there are, in a temporary folder."""
    names = [name for name in engine_names() if translated_text or not name.endswith("shortlist")]
    exporters = exporters_of(names)
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}
    info = BundleInfo(
        **{**fields, "engines": tuple(one.entry for one in exporters), "default_engine": names[0]}
    )
    recipe = bundle.recipe_text()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        yield write_engines(model, bundle.tokenizer_path, recipe, out, info, None, translated_text)


def measure(
    bundle: Bundle,
    reference: list[str],
    text: EvalSet,
    rounds: int,
    speed_sentences: int,
    threads: int,
) -> dict[str, Any]:
    """Every engine of a bundle, and stock int8: figures by name."""
    src, ref = list(text.src), list(text.ref)
    timed = src[:: max(1, len(src) // speed_sentences)][:speed_sentences]
    systems = bundle_systems(bundle, stock=True)
    engines = {one.info.name: with_stock(bundle).engine(one.engine) for one in systems}
    failed: dict[str, str] = {}
    figures: dict[str, Any] = {}
    with start_systems(systems, threads, failed) as running:
        for one in running:
            entry = engines[one.info.name]
            figures[entry.name] = _kept(bundle, entry, one, reference, src, ref)
        for batch in BATCHES:
            turns = take_turns(running, timed, batch, rounds, failed)
            rates = {engines[name].name: t.sentences_per_second for name, t in turns.items()}
            for name, values in rates.items():
                figures[name][f"sentences_per_second_batch_{batch}"] = spread(values)
                figures[name][f"times_stock_batch_{batch}"] = ratios(values, rates[STOCK])
    if failed:
        raise BundleError("; ".join(failed.values()))
    return figures


def _kept(
    bundle: Bundle,
    entry: EngineEntry,
    running: SystemProcess,
    reference: list[str],
    src: list[str],
    ref: list[str],
) -> dict[str, Any]:
    """What an engine is, what loading costs, and how its translations compare."""
    texts, alone = running.translate(src, 32), running.translate(src, 1)
    return {
        "precision": entry.precision,
        "compute": entry.compute,
        "bytes": bytes_on_disk(bundle.path / entry.path),
        "load_seconds": round(running.loaded.seconds, 3),
        "resident_bytes": running.peak_bytes(),
        "resident_bytes_before": running.loaded.bytes_before,
        "identical": sum(map(str.__eq__, texts, reference)) / len(src),
        "as_alone": sum(map(str.__eq__, texts, alone)) / len(src),
        "scores": {one.metric: one.score for one in scores(texts, ref)},
    }


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


def _ratio(times: dict[str, float]) -> str:
    return f"{times['median']:.2f} ({times['least']:.2f}–{times['most']:.2f})"


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
    text = EvalSet.read(src, ref)
    with every_engine(opened, model.eval(), _translated_text(labels)) as everything:
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
            "machine": {**describe_machine(("onnxruntime",)), **_confined()},
            "engines": measure(
                everything, reference.texts, reference.held_out, rounds, speed_sentences, threads
            ),
        }
    atomic_write(out.with_suffix(".json"), json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    atomic_write(out.with_suffix(".md"), table(report))
    print(table(report))


def _translated_text(run: Path | None) -> TranslatedText | None:
    if run is None:
        return None
    shards = sorted((run / "tokens" / "train").glob("*.arrow"))
    return lambda: translated_pairs(shards, run / "labels")


if __name__ == "__main__":
    typer.run(main)

"""How far a system is from what the machine can do: its arithmetic against matrix products alone.

Peaks are those of square matrix products of 1,024 in the libraries that are installed, on as many
threads; the best library counts. One sentence at a time, a decoder multiplies matrices by single
vectors, which no library does near that peak: the share says how much of the machine is left
unused, not how much faster a better program would be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml

from benchmarks.bench.plan import BenchPlan
from benchmarks.bench.results import Peak, Share, Speed
from benchmarks.bench.rounds import figure, tidy
from benchmarks.flops import KERNELS, flops_per_sentence, kernel_rounds
from benchmarks.trainers.task import in_fresh_process
from training.checkpoint import build_model
from training.model import parameter_count
from training.model_config import ModelConfig


def measure_peaks(threads: Sequence[int], rounds: int, seconds: float) -> list[Peak]:
    """The best kernel of each precision, for every number of threads; kernels take turns."""
    found = []
    for count in threads:
        measured = in_fresh_process(kernel_rounds, count, rounds, seconds)
        for precision, kernels in KERNELS.items():
            rates = {name: measured[name] for name in kernels if name in measured}
            if not rates:
                continue
            best = max(rates, key=lambda name: float(np.median(rates[name])))
            gops = figure(rates[best])
            found.append(Peak(precision=precision, threads=count, gops=gops, kernel=best))
    return found


def dimensions(plan: BenchPlan) -> dict[int, ModelConfig]:
    """The models that the bundle's recipe describes, by their number of parameters."""
    manifest = plan.bundle.manifest
    text = (plan.bundle.path / manifest.recipe).read_text(encoding="utf-8")
    found = {}
    tree = yaml.safe_load(text)
    for side in ("student", "teacher"):
        try:
            config = ModelConfig.model_validate(tree[side]["model"])
        except (KeyError, TypeError, ValueError):
            continue  # a given teacher has no dimensions here
        found[parameter_count(build_model(config, manifest.vocab_size))] = config
    return found


def shares(
    plan: BenchPlan,
    speed: Sequence[Speed],
    peaks: Sequence[Peak],
    lengths: dict[str, tuple[np.ndarray, np.ndarray]],
) -> list[Share]:
    """Shares of the peaks of every system whose dimensions are known; `lengths` are the source and
    target tokens of its sentences, end of sentence counted."""
    models = dimensions(plan)
    vocab_size = plan.bundle.manifest.vocab_size
    best = {(peak.precision, peak.threads): peak.gops.median for peak in peaks}
    infos = {one.info.name: one.info for one in plan.systems}
    found = []
    for row in speed:
        info = infos[row.system]
        config = models.get(info.parameters or -1)
        if config is None or row.system not in lengths:
            continue
        src, trg = lengths[row.system]
        operations = flops_per_sentence(config, vocab_size, src, trg, info.beam_size)
        gops = operations * row.sentences_per_second.median / 1e9
        found.append(
            Share(
                system=row.system,
                threads=row.threads,
                batch_size=row.batch_size,
                operations_per_sentence=tidy(operations),
                gops=tidy(gops),
                share_of_float32=_share(gops, best.get(("float32", row.threads))),
                share_of_int8=_share(gops, best.get(("int8", row.threads))),
            )
        )
    return found


def _share(gops: float, peak: float | None) -> float | None:
    return tidy(gops / peak) if peak else None

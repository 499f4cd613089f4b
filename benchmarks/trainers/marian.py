"""Marian's CPU trainer, from the PyPI package `pymarian` (wheels for CPython up to 3.12).

Its package has no `marian` program: `pymarian.Trainer` is called in a process of its own, and its
log read. Synchronous SGD with one graph and one thread a core; Marian splits a batch among them, so
the batch is `batch_tokens` × cores. Dropout is where ours is; attention weights are not dropped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import harmonic_mean

from benchmarks.trainers.ours import (
    BETAS,
    CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    Task,
    TrainerUnavailable,
)
from quickstudy.machine import usable_cores
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.model.transformer import EOS

INSTALL = "pip install -e '.[train,bench]'"
SPEED = re.compile(r"Up\. [\d,]+ .*?([\d.]+) words/s")
TRAIN = "import json, sys, pymarian; pymarian.Trainer(**json.loads(sys.argv[1])).train()"
LOG_LINES = 5


@dataclass(frozen=True)
class MarianTrainer:
    """Marian's Transformer of the same dimensions, float32."""

    name: str = "Marian, 32-true"

    def tokens_per_second(self, task: Task) -> float:
        """Target words a second as Marian logs them (EOS counted, padding not)."""
        if find_spec("pymarian") is None:
            raise TrainerUnavailable(f"pymarian is not installed: {INSTALL}")
        folder = task.folder / "marian"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_text(task, folder)
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, json.dumps(options(task, folder))],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise TrainerUnavailable(f"it ended with {done.returncode}: {' '.join(words[-3:])}")
        return timed(done.stderr + done.stdout, LOG_LINES)


def _write_text(task: Task, folder: Path) -> None:
    """Every token as one word of plain text, and the vocabulary as Marian's YAML."""
    data = ParallelDataset(task.tokens)
    for side, rows in (("src", data.src), ("trg", data.trg)):
        lines = (" ".join(f"t{i}" for i in rows[n] if i != EOS) for n in range(len(data)))
        (folder / side).write_text("\n".join(lines) + "\n")
    words = ["</s>", "<unk>", *(f"t{i}" for i in range(2, len(Tokenizer(task.tokenizer))))]
    vocabulary = "".join(f"{json.dumps(word)}: {number}\n" for number, word in enumerate(words))
    (folder / "vocab.yml").write_text(vocabulary)


def options(task: Task, folder: Path) -> dict[str, object]:
    """Marian's options for the model of a task: pre-norm, tied embeddings, the same optimiser."""
    model, cores = task.model, usable_cores()
    every = max(task.steps // LOG_LINES, 1)
    warm_up = -(-task.warm_up // every) * every
    vocabulary = str(folder / "vocab.yml")
    return {
        "type": "transformer",
        "model": str(folder / "model.npz"),
        "train_sets": [str(folder / "src"), str(folder / "trg")],
        "vocabs": [vocabulary, vocabulary],
        "dim_emb": model.width,
        "transformer_heads": model.heads,
        "transformer_dim_ffn": model.ffn,
        "transformer_ffn_activation": "relu",
        "enc_depth": model.encoder_layers,
        "dec_depth": model.decoder_layers,
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "n",
        "transformer_postprocess_emb": "d",
        "transformer_dropout": model.dropout,
        "transformer_dropout_ffn": model.dropout,
        "tied_embeddings_all": True,
        "label_smoothing": LABEL_SMOOTHING,
        "cost_type": "ce-mean-words",
        "optimizer": "adam",
        "optimizer_params": [*BETAS, 1e-9],
        "learn_rate": LEARNING_RATE,
        "clip_norm": CLIP_NORM,
        "max_length": model.max_length,
        "mini_batch": 10_000,
        "mini_batch_words": task.batch_tokens * cores,
        "maxi_batch": 1000,
        "maxi_batch_sort": "trg",
        "cpu_threads": cores,
        "sync_sgd": True,
        "workspace": 1024,
        "seed": task.seed,
        "disp_freq": f"{every}u",
        "save_freq": "1000000u",
        "after": f"{warm_up + every * LOG_LINES}u",
    }


def timed(log: str, lines: int) -> float:
    """Mean speed of a log's last lines; each covers as many updates.

    Raises Unavailable where the log has fewer.
    """
    rates = [float(rate) for rate in SPEED.findall(log)]
    if len(rates) < lines:
        raise TrainerUnavailable(
            f"its log has {len(rates)} speeds instead of {lines}: {log[-300:]}"
        )
    return harmonic_mean(rates[-lines:])

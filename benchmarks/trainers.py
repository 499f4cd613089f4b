"""Trainers of the same model on the same text, to be timed: ours, a plain torch loop, Marian.

Each takes a `Task` and runs in a process of its own. The text is made up, or a run's.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from statistics import harmonic_mean
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor, nn

from quickstudy.machine import usable_cores
from training.config.losses import NllObjective
from training.config.recipe import ModelConfig, TrainingConfig
from training.data.batching import Batch
from training.data.dataset import ParallelDataset, map_table
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, write_tokens
from training.distill.label_store import label_schema, write_manifest, write_shard
from training.distributed import precision
from training.model.transformer import BOS, EOS, PAD, UNK, position_encodings
from training.trainer import TrainingRun, train

T = TypeVar("T")

LABEL_SMOOTHING = 0.1
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Task:
    """The same work for every trainer; plain data, so that processes can be spawned with it."""

    model: ModelConfig
    tokenizer: Path
    tokens: list[Path]
    """Token shards."""
    labels: Path
    """A label store with distributions along `hypothesis`."""
    validation: Path
    """A few pairs of text: the loop wants some at its end, and their time is not counted."""
    folder: Path
    """Where trainers may write; a folder of their own each time."""
    batch_tokens: int = 1024
    warm_up: int = 30
    """Steps before the clock starts."""
    steps: int = 100
    """Steps that are timed."""
    seed: int = 1


class TrainerUnavailable(Exception):
    """A trainer that cannot run here; the message says why, or which command installs it."""


class BaselineTrainer(Protocol):
    """One way to train the model of a task."""

    @property
    def name(self) -> str:
        """What the tables call it, with its precision."""
        ...

    def tokens_per_second(self, task: Task) -> float:
        """Target tokens a second (EOS counted, padding not), all cores together.

        Raises TrainerUnavailable where it cannot be measured.
        """
        ...


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """Run a picklable function in a new process: no threads, caches or settings of others."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def use_cores(threads: int | None = None) -> None:
    """Let torch use so many threads in this process; all cores by default."""
    torch.set_num_threads(threads or usable_cores())


# --- ours -----------------------------------------------------------------------------------------

LOG_LINES = 5
"""Timed lines of a log."""


@dataclass(frozen=True)
class Ours:
    """`training.trainer.Trainer` through `training.distributed`: one process a core."""

    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"

    @property
    def name(self) -> str:
        chosen = precision(TrainingConfig(max_steps=1, precision=self.precision))
        return f"Quickstudy, {chosen}" + (" (auto)" if self.precision == "auto" else "")

    def tokens_per_second(self, task: Task) -> float:
        """The loop's own count, from its log: first process's tokens × processes, validations
        and savings not counted."""
        folder = task.folder / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        in_fresh_process(train, self._run(task, folder))
        return _timed(folder / "log.jsonl", task.warm_up)

    def _run(self, task: Task, folder: Path) -> TrainingRun:
        every = max(task.steps // LOG_LINES, 1)
        # Log lines fall on multiples of `every`; the last of the warm-up starts the clock.
        warm_up = -(-task.warm_up // every) * every
        steps = warm_up + every * LOG_LINES
        return TrainingRun(
            name="ours",
            folder=folder,
            model=task.model,
            training=TrainingConfig(
                batch_tokens=task.batch_tokens,
                learning_rate=LEARNING_RATE,
                clip_norm=CLIP_NORM,
                betas=BETAS,
                max_steps=steps,
                log_every=every,
                validate_every=steps,
                checkpoint_minutes=1e6,
                average=1,
                precision=self.precision,
            ),
            objective=NllObjective(label_smoothing=LABEL_SMOOTHING),
            token_shards=task.tokens,
            labels=None,
            tokenizer=task.tokenizer,
            validation=task.validation,
            seed=task.seed,
            recipe_text="name: training-speed\n",
        )


def _timed(log: Path, warm_up: int) -> float:
    """Mean speed of the log's lines after the warm-up; each covers as many steps."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    skipped = len(rates) - LOG_LINES
    assert skipped >= 0, f"{len(rates)} log lines after {warm_up} steps of warm-up"
    return harmonic_mean(rates[skipped:])


# --- a plain torch loop ---------------------------------------------------------------------------


class PlainTransformer(nn.Module):
    """`nn.Transformer` (pre-norm) with one embedding table for source, target and output."""

    positions: Tensor

    def __init__(self, vocab_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.width)
        self.embedding = nn.Embedding(vocab_size, config.width, padding_idx=PAD)
        self.register_buffer("positions", position_encodings(config.max_length, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = nn.Transformer(
            d_model=config.width,
            nhead=config.heads,
            num_encoder_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            dim_feedforward=config.ffn,
            dropout=config.dropout,
            activation=config.activation if config.activation == "gelu" else "relu",
            batch_first=True,
            norm_first=True,
        )
        self.output = nn.Linear(config.width, vocab_size)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.output.weight = self.embedding.weight

    def embed(self, ids: Tensor) -> Tensor:
        return self.dropout(self.embedding(ids) * self.scale + self.positions[: ids.shape[1]])

    def forward(self, src: Tensor, trg_in: Tensor) -> Tensor:
        """Source ids [B, S] and target inputs [B, T] → logits [B, T, V]."""
        hidden = torch.ones(trg_in.shape[1], trg_in.shape[1], dtype=torch.bool).triu(1)
        states = self.transformer(
            self.embed(src),
            self.embed(trg_in),
            tgt_mask=hidden,
            tgt_is_causal=True,
            src_key_padding_mask=src == PAD,
            memory_key_padding_mask=src == PAD,
        )
        return self.output(states)


@dataclass(frozen=True)
class Plain:
    """A torch loop around `torch.nn.Transformer`, float32, as a competent user would write it.

    One process with all cores; the same batches, vocabulary, tied embeddings, dropout, label
    smoothing and optimiser. What it does not do: run one process a core, leave padded positions out
    of the output layer, draw dropout's numbers cheaply. `nn.Transformer` also drops attention
    weights.
    """

    name: str = "torch.nn.Transformer, 32-true"

    def tokens_per_second(self, task: Task) -> float:
        return in_fresh_process(_train, task)


def task_batches(task: Task) -> Iterator[Batch]:
    """The batches of a task, epoch after epoch."""
    data = ParallelDataset(task.tokens)
    for number in count():
        yield from data.epoch(number, task.seed, task.batch_tokens, ("reference",), (), 0, 1)


def _train(task: Task) -> float:
    use_cores()
    torch.manual_seed(task.seed)
    model = PlainTransformer(len(Tokenizer(task.tokenizer)), task.model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=1e-9, weight_decay=0.0, fused=True
    )
    batches = task_batches(task)
    for batch in islice(batches, task.warm_up):
        _step(model, optimizer, batch)
    started, tokens = time.perf_counter(), 0
    for batch in islice(batches, task.steps):
        _step(model, optimizer, batch)
        tokens += batch.ntokens
    return tokens / (time.perf_counter() - started)


def _step(model: PlainTransformer, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    assert batch.reference is not None
    logits = model(batch.src, batch.reference.trg_in)
    loss = F.cross_entropy(
        logits.flatten(0, 1),
        batch.reference.trg_out.flatten(),
        ignore_index=PAD,
        label_smoothing=LABEL_SMOOTHING,
    )
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()


# --- Marian ---------------------------------------------------------------------------------------

MARIAN_INSTALL = "pip install -e '.[train,bench]'"
MARIAN_SPEED = re.compile(r"Up\. [\d,]+ .*?([\d.]+) words/s")
MARIAN_COMMAND = "import json, sys, pymarian; pymarian.Trainer(**json.loads(sys.argv[1])).train()"


@dataclass(frozen=True)
class MarianTrainer:
    """Marian's CPU trainer, from the PyPI package `pymarian` (wheels for CPython up to 3.12).

    The package has no `marian` program: `pymarian.Trainer` is called in a process of its own, and
    its log read. Synchronous SGD with one graph and one thread a core; Marian splits a batch among
    them, so the batch is `batch_tokens` × cores. Dropout is where ours is; attention weights are
    not dropped.
    """

    name: str = "Marian, 32-true"

    def tokens_per_second(self, task: Task) -> float:
        """Target words a second as Marian logs them (EOS counted, padding not)."""
        if find_spec("pymarian") is None:
            raise TrainerUnavailable(f"pymarian is not installed: {MARIAN_INSTALL}")
        folder = task.folder / "marian"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_marian_text(task, folder)
        done = subprocess.run(
            [sys.executable, "-c", MARIAN_COMMAND, json.dumps(marian_options(task, folder))],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise TrainerUnavailable(f"it ended with {done.returncode}: {' '.join(words[-3:])}")
        return marian_speed(done.stderr + done.stdout, LOG_LINES)


def _write_marian_text(task: Task, folder: Path) -> None:
    """Every token as one word of plain text, and the vocabulary as Marian's YAML."""
    data = ParallelDataset(task.tokens)
    for side, rows in (("src", data.src), ("trg", data.trg)):
        lines = (" ".join(f"t{i}" for i in rows[n] if i != EOS) for n in range(len(data)))
        (folder / side).write_text("\n".join(lines) + "\n")
    words = ["</s>", "<unk>", *(f"t{i}" for i in range(2, len(Tokenizer(task.tokenizer))))]
    vocabulary = "".join(f"{json.dumps(word)}: {number}\n" for number, word in enumerate(words))
    (folder / "vocab.yml").write_text(vocabulary)


def marian_options(task: Task, folder: Path) -> dict[str, object]:
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


def marian_speed(log: str, lines: int) -> float:
    """Mean speed of a log's last lines; each covers as many updates.

    Raises TrainerUnavailable where the log has fewer.
    """
    rates = [float(rate) for rate in MARIAN_SPEED.findall(log)]
    if len(rates) < lines:
        raise TrainerUnavailable(
            f"its log has {len(rates)} speeds instead of {lines}: {log[-300:]}"
        )
    return harmonic_mean(rates[-lines:])


# --- made-up text ---------------------------------------------------------------------------------

MEAN_LENGTH = 14.0
"""Target tokens of a made-up sentence, EOS not counted. Lengths are those of short captions, and
words follow Zipf's law, so batches, padding and the embedding's gradient look like real ones."""


def lengths(pairs: int, longest: int, generator: np.random.Generator) -> np.ndarray:
    """Tokens of both sides of some pairs, EOS not counted: [2, pairs], source first."""
    trg = generator.gamma(8.0, MEAN_LENGTH / 8.0, pairs)
    src = trg * generator.normal(1.0, 0.15, pairs)
    return np.clip(np.rint(np.stack([src, trg])), 2, longest - 2).astype(np.int64)


def _words(count: int, vocab_size: int, generator: np.random.Generator) -> np.ndarray:
    """Token ids [count] after the special ones, by Zipf's law with exponent 1."""
    weights = 1.0 / np.arange(1, vocab_size - EOS)
    return generator.choice(len(weights), count, p=weights / weights.sum()) + EOS + 1


def _sentences(count: np.ndarray, vocab_size: int, generator: np.random.Generator) -> pa.Array:
    """A list column of sentences with so many words each and EOS last."""
    ends = np.cumsum(count + 1)
    values = _words(int(ends[-1]), vocab_size, generator)
    values[ends - 1] = EOS
    offsets = np.concatenate([[0], ends])
    return pa.ListArray.from_arrays(offsets.astype(np.int32), values.astype(np.int32))


def write_text(path: Path, pairs: int, vocab_size: int, longest: int, seed: int = 0) -> None:
    """Write one shard of made-up token ids."""
    generator = np.random.default_rng(seed)
    src, trg = lengths(pairs, longest, generator)
    columns = [
        pa.array(np.arange(pairs)),
        _sentences(src, vocab_size, generator),
        _sentences(trg, vocab_size, generator),
    ]
    write_tokens(path, pa.table(columns, schema=TOKEN_SCHEMA))


def write_labels(
    tokens: list[Path], folder: Path, vocab_size: int, top_k: int = 8, seed: int = 0
) -> None:
    """Write a label store whose hypotheses are the references, so that both paths have the same
    batches, with distributions of a rather sure teacher along them."""
    generator = np.random.default_rng(seed)
    for shard in tokens:
        table = map_table(shard)
        write_shard(folder / shard.name, _label_shard(table, vocab_size, top_k, generator))
    write_manifest(folder, [shard.name for shard in tokens], top_k, ["hypothesis"])


def _label_shard(
    table: pa.Table, vocab_size: int, top_k: int, generator: np.random.Generator
) -> pa.Table:
    trg = table["trg"].combine_chunks()
    target, offsets = trg.flatten().to_numpy(), trg.offsets.to_numpy().astype(np.int64)
    ids, logp, tail = _distributions(target, vocab_size, top_k, generator)

    def ragged(values: np.ndarray, width: int) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets * width, values.ravel())

    nbest = pa.ListArray.from_arrays(np.arange(len(table) + 1, dtype=np.int32), trg)
    columns = {
        "id": table["id"].combine_chunks(),
        "nbest": nbest,
        "scores": pa.array([[-1.0]] * len(table), pa.list_(pa.float32())),
        "hypothesis": trg,
        "hypothesis_ids": ragged(ids.astype(np.int32), top_k),
        "hypothesis_logp": ragged(logp.astype(np.float16), top_k),
        "hypothesis_tail": ragged(tail.astype(np.float32), 1),
    }
    return pa.table(columns, schema=label_schema(["hypothesis"], n_best=1))


def _distributions(
    target: np.ndarray, vocab_size: int, top_k: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [N, K] with the target first, log-probabilities [N, K] and tail mass [N]."""
    count = len(target)
    stride = generator.integers(1, max(vocab_size // top_k, 2), (count, 1))
    ids = (target[:, None] + stride * np.arange(top_k)) % vocab_size
    shares = -np.sort(-generator.dirichlet([4.0] + [0.5] * top_k, count)[:, :top_k], axis=1)
    shares = np.maximum(shares, 1e-6)
    return ids, np.log(shares), np.maximum(1 - shares.sum(1), 0.0)


def write_tokenizer(path: Path, vocab_size: int) -> None:
    """Write a SentencePiece model with exactly so many pieces: the special ones, and words."""
    protocol: Any = sentencepiece_model_pb2
    model = protocol.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.trainer_spec.vocab_size = vocab_size
    model.normalizer_spec.name = "identity"
    special = {PAD: "<pad>", UNK: "<unk>", BOS: "<s>", EOS: "</s>"}
    spec = model.trainer_spec
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = PAD, UNK, BOS, EOS
    spec.pad_piece = special[PAD]
    kinds = protocol.ModelProto.SentencePiece
    for number in range(vocab_size):
        piece = model.pieces.add()
        piece.piece = special.get(number, f"▁t{number}")
        piece.score = 0.0 if number in special else -float(number) / vocab_size
        piece.type = kinds.UNKNOWN if number == UNK else kinds.NORMAL
        if number in special and number != UNK:
            piece.type = kinds.CONTROL
    path.write_bytes(model.SerializeToString())


def write_validation(path: Path) -> None:
    """Write two short pairs of text: the loop validates once, at its end."""
    text = {"id": [0, 1], "src": ["t4 t5", "t6"], "trg": ["t4", "t6 t7"]}
    table = pa.table(text)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)

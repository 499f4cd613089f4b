"""A plain torch loop around `torch.nn.Transformer`, as a competent user would write it.

One process with all cores; the same batches, vocabulary, tied embeddings, dropout, label smoothing
and optimiser. What it does not do: run one process a core, leave padded positions out of the
output layer, draw dropout's numbers cheaply. `nn.Transformer` also drops attention weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trainers.task import (
    BETAS,
    CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    Task,
    in_fresh_process,
    use_cores,
)
from training.batching import Batch
from training.data import ParallelDataset
from training.model import PAD, sinusoids
from training.recipe import ModelConfig
from training.tokenizer import Tokenizer


class PlainTransformer(nn.Module):
    """`nn.Transformer` (pre-norm) with one embedding table for source, target and output."""

    positions: Tensor

    def __init__(self, vocab_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.width)
        self.embedding = nn.Embedding(vocab_size, config.width, padding_idx=PAD)
        self.register_buffer("positions", sinusoids(config.max_length, config.width))
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
    """The plain loop, float32."""

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

"""A checkpoint in torch: eager, float32, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.systems.base import (
    PLAIN_BATCH,
    Role,
    SystemInfo,
    batches,
    bytes_on_disk,
    versions_of,
)

WEIGHTS = ("model.safetensors", "tokenizer.model")


@dataclass
class TorchCheckpoint:
    """Our own decoding in torch, the reference that engines are held to. Longer sources than the
    model takes are cut, end of sentence kept."""

    info: SystemInfo
    checkpoint: Path
    _model: Any = field(default=None, repr=False)
    _tokenizer: Any = field(default=None, repr=False)

    def load(self, threads: int) -> None:
        import torch

        from training.checkpoint import load_checkpoint
        from training.tokenizer import Tokenizer

        torch.set_num_threads(threads)
        loaded = load_checkpoint(self.checkpoint)
        self._model = loaded.model.eval()
        self._tokenizer = Tokenizer(loaded.tokenizer)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Whole files are sorted by length and cut into batches of PLAIN_BATCH sentences."""
        calls = batches(sentences, batch_size or max(len(sentences), 1))
        return [text for call in calls for text in self._batch(list(call), batch_size)]

    def close(self) -> None:
        self._model = self._tokenizer = None

    def _batch(self, sentences: list[str], batch_size: int) -> list[str]:
        from training.batched_beam import beam_corpus
        from training.batching import clipped
        from training.decoding import greedy_corpus

        rows = clipped(self._tokenizer.encode(sentences), self._model.max_length - 1)
        size = batch_size or PLAIN_BATCH
        if self.info.beam_size == 1:
            found = greedy_corpus(self._model, rows, size)
        else:
            found = beam_corpus(self._model, rows, self.info.beam_size, size)
        texts: list[str] = self._tokenizer.decode([hypothesis.ids for hypothesis in found])
        return texts


def torch_systems(
    checkpoint: Path, name: str, role: Role, source: str, target: str, beams: Sequence[int] = (1,)
) -> list[TorchCheckpoint]:
    """A checkpoint with every beam size."""
    parameters = count_parameters(checkpoint)
    size = bytes_on_disk(*(checkpoint / one for one in WEIGHTS))
    versions = versions_of("torch", "sentencepiece")
    return [
        TorchCheckpoint(
            SystemInfo(
                name=f"{name} torch" + (f" beam {beam}" if beam > 1 else ""),
                role=role,
                engine="torch",
                precision="float32",
                beam_size=beam,
                source=source,
                target=target,
                parameters=parameters,
                bytes=size,
                versions=versions,
            ),
            checkpoint,
        )
        for beam in beams
    ]


def count_parameters(checkpoint: Path) -> int:
    """Parameters of a checkpoint, from its weights' shapes alone."""
    from math import prod

    from safetensors import safe_open

    with safe_open(checkpoint / WEIGHTS[0], framework="np") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118

"""Made-up text for timing: token shards, label store, tokenizer and validation text.

Lengths are those of short captions and words follow Zipf's law, so batches, padding and the
gradient of the embedding look like real ones; the words themselves mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sentencepiece import sentencepiece_model_pb2

from training.data import map_table
from training.distill.labels import label_schema, write_manifest, write_shard
from training.model import BOS, EOS, PAD, UNK
from training.tokenizer import TOKEN_SCHEMA, write_tokens

MEAN_LENGTH = 14.0
"""Target tokens of a made-up sentence, EOS not counted."""


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

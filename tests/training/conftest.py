"""A small toy corpus, and a teacher's labels of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.config.recipe import TokenizerConfig
from training.data.batching import map_table
from training.data.tokenizer import Tokenizer, encode_rows, train_tokenizer, write_tokens
from training.data.toy import make_toy
from training.distill.label_store import label_schema, write_manifest, write_shard
from training.model.transformer import EOS

K = 4
"""Words of each of the labels' distributions."""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards, validation text and tokenizer of a small toy corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    pairs = make_toy(600, 3)
    text = pa.table(
        {
            "id": pa.array(range(500), pa.int64()),
            "src": [src for src, _ in pairs[:500]],
            "trg": [trg for _, trg in pairs[:500]],
        }
    )
    train_tokenizer(iter(pairs[:500]), TokenizerConfig(vocab_size=400), folder / "tokenizer.model")
    tokens, *left_out = encode_rows(text, Tokenizer(folder / "tokenizer.model"), 100)
    assert left_out == [0, 0]
    write_tokens(folder / "00000.arrow", tokens.slice(0, 250))
    write_tokens(folder / "00001.arrow", tokens.slice(250))
    held_out = pa.table(
        {
            "id": pa.array(range(20), pa.int64()),
            "src": [src for src, _ in pairs[500:520]],
            "trg": [trg for _, trg in pairs[500:520]],
        }
    )
    with pa.ipc.new_file(str(folder / "validation.arrow"), held_out.schema) as writer:
        writer.write_table(held_out)
    return folder


@pytest.fixture(scope="session")
def labels(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of the corpus: the references backwards, with random distributions along both."""
    folder = tmp_path_factory.mktemp("labels")
    generator = np.random.default_rng(2)
    names = ["00000.arrow", "00001.arrow"]
    for name in names:
        table = map_table(corpus / name)
        trg = table["trg"].to_pylist()
        backwards = [[*reversed(row[:-1]), EOS] for row in trg]
        columns: dict[str, Any] = {
            "id": table["id"].to_pylist(),
            "nbest": [[row] for row in backwards],
            "scores": [[-1.0]] * len(trg),
            "hypothesis": backwards,
        }
        for path, rows in (("hypothesis", backwards), ("reference", trg)):
            columns |= distributions(path, rows, generator)
        schema = label_schema(["hypothesis", "reference"], 1)
        write_shard(folder / name, pa.table(columns, schema=schema))
    write_manifest(folder, names, K, ["hypothesis", "reference"])
    return folder


def distributions(
    path: str, rows: list[list[int]], generator: np.random.Generator
) -> dict[str, Any]:
    """The word itself and three others, with falling probabilities, 0.1 left for the rest."""
    ids, logp, tail = [], [], []
    for row in rows:
        others = 4 + (np.array(row)[:, None] + generator.integers(1, 90, 3)[None]) % 300
        others += (others == np.array(row)[:, None]) * 301
        ids.append(np.concatenate([np.array(row)[:, None], others], axis=1).ravel())
        logp.append(np.tile(np.log([0.6, 0.15, 0.1, 0.05]), len(row)).astype(np.float16))
        tail.append(np.full(len(row), 0.1, dtype=np.float32))
    return {f"{path}_ids": ids, f"{path}_logp": logp, f"{path}_tail": tail}

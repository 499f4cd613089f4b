"""The gate report: g of sentences and of positions, grouped, and what is said of a collapse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from training.config.losses import (
    ConstantGateConfig,
    HybridObjective,
    SentenceGateConfig,
    TokenGateConfig,
)
from training.data.dataset import ParallelDataset
from training.data.tokenizer import TOKEN_SCHEMA, write_tokens
from training.distill.gate_report import (
    Measured,
    by_quantile,
    collapse_warning,
    gate_history,
    measure,
    sampled_rows,
)
from training.distill.label_store import LabelStore, label_schema, write_manifest, write_shard
from training.distill.losses import build_loss
from training.distill.losses.hybrid import HybridLoss
from training.model.transformer import EOS, Transformer

V, K = 20, 2


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[ParallelDataset, LabelStore]:
    """Three sentences; the teacher's entropy rises from one to the next."""
    src = [[5, EOS], [5, 6, EOS], [5, 6, 7, EOS]]
    trg = [[9, EOS], [9, 10, EOS], [9, 10, 11, EOS]]
    columns = {"id": [0, 1, 2], "src": src, "trg": trg}
    write_tokens(tmp_path / "0.arrow", pa.table(columns, schema=TOKEN_SCHEMA))
    sure = [0.9, 0.6, 0.3]
    labels = {
        "id": [0, 1, 2],
        "nbest": [[row] for row in trg],
        "scores": [[-1.0]] * 3,
        "hypothesis": trg,
        "hypothesis_ids": [[9, 10] * len(row) for row in trg],
        "hypothesis_logp": [
            np.log([p, 0.1] * len(row)).astype(np.float16) for p, row in zip(sure, trg, strict=True)
        ],
        "hypothesis_tail": [[0.9 - p] * len(row) for p, row in zip(sure, trg, strict=True)],
    }
    write_shard(
        tmp_path / "labels/0.arrow", pa.table(labels, schema=label_schema(["hypothesis"], 1))
    )
    write_manifest(tmp_path / "labels", ["0.arrow"], K, ["hypothesis"])
    store = LabelStore(tmp_path / "labels")
    return ParallelDataset([tmp_path / "0.arrow"], store), store


def student() -> Transformer:
    torch.manual_seed(0)
    return Transformer(V, 16, 2, 32, 1, 1, dropout=0.0, max_length=32).eval()


def gated(gate: SentenceGateConfig | TokenGateConfig | ConstantGateConfig) -> HybridLoss:
    objective = build_loss(HybridObjective(gate=gate), 16)
    assert isinstance(objective, HybridLoss)
    return objective.eval()


def test_a_sentence_gate_is_measured_by_sentence(
    labelled: tuple[ParallelDataset, LabelStore],
) -> None:
    rows = sampled_rows(labelled[0])
    found = measure(student(), gated(SentenceGateConfig(initial=0.3)), *labelled, rows)
    assert found.gate.tolist() == pytest.approx([0.3] * 3, abs=1e-5)
    assert found.length.tolist() == [2, 3, 4]
    assert (np.diff(found.entropy) > 0).all()
    expected = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert found.entropy[0] == pytest.approx(expected, abs=1e-3)
    words = np.array([9, EOS, 9, 10, EOS, 9, 10, 11, EOS])
    share = {word: (words == word).mean() for word in words}
    assert found.rarity[0] == pytest.approx(-np.log10([share[9], share[EOS]]).mean())


def test_a_token_gate_is_measured_by_position(labelled: tuple[ParallelDataset, LabelStore]) -> None:
    objective = gated(TokenGateConfig(floor=0.0))
    with torch.no_grad():
        objective.gate.linear.weight[0, -1] = 1.0
        objective.gate.linear.bias.zero_()
    found = measure(student(), objective, *labelled, np.arange(3))
    assert found.length.tolist() == [2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert found.gate == pytest.approx(1 / (1 + np.exp(-found.entropy)), abs=1e-3)
    assert found.sentence.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert found.by_sentence(found.length).tolist() == [2, 3, 4]


def test_groups_are_fifths() -> None:
    groups = by_quantile(np.linspace(0, 1, 10), np.arange(10.0))
    assert [group["units"] for group in groups] == [2] * 5
    assert groups[0]["mean"] == pytest.approx(1 / 18)
    assert sum(group["units"] for group in by_quantile(np.ones(4), np.ones(4))) == 4


@pytest.mark.parametrize(
    ("gate", "said"), [([0.05, 0.06], "token"), ([0.95, 0.94], "sentence"), ([0.05, 0.5], None)]
)
def test_a_collapsed_gate_is_named(gate: list[float], said: str | None) -> None:
    one = np.ones(2)
    warning = collapse_warning(
        Measured(np.array(gate), one, one, one, one), SentenceGateConfig(floor=0.05)
    )
    assert (warning is None) if said is None else (warning is not None and said in warning)
    given = Measured(np.zeros(2), one, one, one, one)
    assert collapse_warning(given, ConstantGateConfig(value=0)) is None


def test_the_log_gives_the_course_of_g_and_of_its_share(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [
        {"step": 5, "gate": 0.5, "gate_spread": 0.1, "gradient_share": 0.48, "loss": 1.0},
        {"step": 8, "validation_bleu": 3.0},
        {"step": 10, "gate": 0.4, "gate_spread": 0.2, "loss": 1.0},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gate_history(log) == [
        {"step": 5, "mean": 0.5, "spread": 0.1, "share": 0.48},
        {"step": 10, "mean": 0.4, "spread": 0.2},
    ]

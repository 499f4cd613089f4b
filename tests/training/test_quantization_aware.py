"""Training with rounded weights and activations: what is rounded, and when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.quantization import quantize_pairs
from export.runtime.native.library import NativeModel
from export.runtime.native.onnx_weights import read_onnx_weights
from export.runtime.native.weights import model_bytes
from tests.export.test_native_kernels import needs_library
from tests.export.test_native_onnx import LIMIT, heavy_model, written
from tests.export.test_onnx import padded, sources
from tests.training.test_trainer import losses
from tests.training.test_transfer import STEPS, pretrained, tokenized, training_run
from training.checkpoint import load_checkpoint
from training.model.decoding import greedy
from training.quantization_aware import QuantizationAware, rounded_positions, rounded_rows
from training.run import Run
from training.trainer import TrainingRun, train

__all__ = ["pretrained", "tokenized"]


def test_positions_are_rounded_to_steps_of_their_largest_value() -> None:
    states = torch.tensor([[127.0, 0.4, -63.6], [0.0, 0.0, 0.0]], requires_grad=True)
    rounded = rounded_positions(states)
    torch.testing.assert_close(rounded, torch.tensor([[127.0, 0, -64], [0, 0, 0]]))
    (rounded * torch.tensor([1.0, 2, 3])).sum().backward()
    assert torch.equal(states.grad, torch.tensor([[1.0, 2, 3], [1, 2, 3]]))  # type: ignore[arg-type]
    finer = rounded_positions(torch.tensor([[127.5, 0.3]]), 255)
    torch.testing.assert_close(finer, torch.tensor([[127.5, 0.5]]))


@pytest.mark.parametrize("width", [6, 7])
def test_weights_are_rounded_as_the_export_rounds_them(width: int) -> None:
    weight = np.random.default_rng(1).normal(size=(40, width)).astype(np.float32)
    weight[3] = 0
    quantized, scale = quantize_pairs(weight)
    expected = torch.from_numpy(quantized / scale[:, None])
    torch.testing.assert_close(rounded_rows(torch.from_numpy(weight)), expected)


@needs_library
def test_the_model_then_translates_as_the_compiled_engine_does(tmp_path: Path) -> None:
    model, rows = heavy_model(norm="post", decoder_cell="ssru"), sources(40)
    engine = NativeModel(
        model_bytes(read_onnx_weights(written(model, tmp_path / "model"), shortlisted=False))
    )
    expected = engine.translate(rows, [LIMIT] * len(rows), scored=True)

    def alike() -> tuple[float, float]:
        """Share of equal translations, and the median difference of their scores."""
        found = greedy(model, torch.from_numpy(padded(rows)), lambda length: LIMIT, min_length=1)
        pairs = [
            abs(one.score - other.score)
            for one, other in zip(found, expected, strict=True)
            if one.ids == other.ids
        ]
        return len(pairs) / len(rows), float(np.median(pairs))

    aware, before = QuantizationAware(model), [p.clone() for p in model.parameters()]
    plain_share, plain_difference = alike()
    with aware.rounding():
        share, difference = alike()
    assert share >= 0.9 > plain_share
    assert difference < 0.1 * plain_difference
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert alike() == (plain_share, plain_difference)


def aware_run(corpus: Run, folder: Path, pretrained: Path, share: float) -> TrainingRun:
    run = training_run(corpus, folder, pretrained, freeze=None)
    update = {"quantization_aware": share}
    return replace(run, training=run.training.model_copy(update=update))


def test_it_rounds_in_the_last_share_of_the_run(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    found = {}
    for share in (0.0, 0.5):
        run = aware_run(tokenized, tmp_path / str(share), pretrained, share)
        train(run)
        found[share] = losses(run.folder)
    half = STEPS // 2
    assert [found[0.5][step] for step in range(1, half + 1)] == [
        found[0.0][step] for step in range(1, half + 1)
    ]
    assert found[0.5][half + 1] != found[0.0][half + 1]
    assert found[0.5][STEPS] < 0.9 * found[0.5][1]
    state = load_checkpoint(tmp_path / "0.5" / "checkpoint").model.state_dict()
    weights = state["encoder.0.ffn.inner.weight"]
    assert not torch.allclose(weights, rounded_rows(weights), atol=1e-6)  # saved as they are

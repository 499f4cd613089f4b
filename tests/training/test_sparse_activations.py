"""Training with a penalty on active feed-forward units: what is counted, and that it falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_trainer import make_run
from training.distill.losses.base import LossOutput
from training.model.transformer import Transformer
from training.sparse_activations import SparseActivations, active_units
from training.trainer import train


def test_equal_units_count_whole_and_zeros_not_at_all() -> None:
    hidden = torch.tensor([[3.0, 3, 3, 3], [0, 5, 5, 0], [0, 0, 7, 0], [0, 0, 0, 0], [9, 3, 0, 0]])
    torch.testing.assert_close(active_units(hidden), torch.tensor([4, 2, 1, 0, 144 / 90]))
    torch.testing.assert_close(active_units(hidden * 1e-3), active_units(hidden))


def test_its_gradient_makes_small_units_smaller_and_large_ones_larger() -> None:
    hidden = torch.tensor([[4.0, 1, 0.5, 0], [0, 0, 0, 0]], requires_grad=True)
    active_units(hidden).sum().backward()
    assert hidden.grad is not None
    signs = hidden.grad[0, :3].sign().tolist()
    assert signs == [-1, 1, 1]
    assert hidden.grad[1].abs().sum() == 0  # and it is a number


def small_model(activation: str = "relu") -> Transformer:
    torch.manual_seed(1)
    return Transformer(
        50,
        width=16,
        heads=2,
        ffn=24,
        encoder_layers=2,
        decoder_layers=1,
        dropout=0.0,
        activation=activation,
    )


def test_all_layers_count_by_their_units() -> None:
    model = small_model()
    source, target = torch.randint(4, 50, (3, 7)), torch.randint(4, 50, (3, 5))
    hidden: list[Tensor] = []
    for layer in (*model.encoder, *model.decoder):
        layer.ffn.outer.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
    sparsity = SparseActivations(model, weight=0.5)

    def compute() -> LossOutput:
        with torch.no_grad():
            model(source, target)  # as translations are drawn: not counted
        return LossOutput(model(source, target).square().mean(), {"other": torch.tensor(1.0)})

    found = sparsity.penalised(compute)
    plain = compute().loss
    effective = sum(active_units(h).mean() for h in hidden[3:6]) / (3 * 24)
    torch.testing.assert_close(found.loss, plain + 0.5 * effective)
    share = sum((h > 0).float().sum(-1).mean() for h in hidden[3:6]) / (3 * 24)
    torch.testing.assert_close(found.logs["active_units"], share)
    assert set(found.logs) == {"other", "active_units"}
    found.loss.backward()


def test_other_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="activation relu"):
        SparseActivations(small_model("gelu"), 1.0)


def test_fewer_units_are_active_than_without_it(corpus: Path, tmp_path: Path) -> None:
    active = {}
    for weight in (0.01, 3.0):
        run = make_run(corpus, tmp_path / str(weight), sparse_activations=weight, log_every=1)
        train(run)
        lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        active[weight] = [line["active_units"] for line in lines if "active_units" in line]
    assert active[3.0][0] == active[0.01][0]
    assert active[3.0][-1] < 0.7 * active[0.01][-1]

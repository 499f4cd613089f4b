"""Controls of the gate report: shuffled difficulties, and gains on held-out text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.distill.test_gate_report import gated, labelled, student  # noqa: F401
from training.config.losses import ConstantGateConfig
from training.data.dataset import ParallelDataset
from training.distill.gate_controls import against_shuffled, gains_of, ranks
from training.distill.label_store import LabelStore
from training.distill.losses.held_out import held_out_nll


def test_ranks_of_equal_values_are_their_mean() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_what_goes_with_difficulty_is_told_from_what_does_not() -> None:
    generator = np.random.default_rng(4)
    hard = generator.random(400)
    with_it = against_shuffled(0.4 * hard + generator.random(400), hard)
    assert with_it.correlation > 0.2
    assert with_it.correlation > with_it.high
    assert with_it.p_value < 0.002
    against = against_shuffled(-hard, hard)
    assert against.correlation == pytest.approx(-1)
    without = against_shuffled(generator.random(400), hard)
    assert without.low < without.correlation < without.high
    assert without.p_value > 0.05
    assert -0.15 < without.low < -0.05 < 0.05 < without.high < 0.15


def test_a_gate_that_is_the_same_everywhere_goes_with_nothing() -> None:
    constant = against_shuffled(np.full(9, 0.5), np.arange(9.0))
    assert constant.correlation == 0
    assert constant.p_value == 1


def test_false_alarms_are_as_rare_as_p_says() -> None:
    generator = np.random.default_rng(6)
    p_values = [
        against_shuffled(generator.random(30), generator.random(30), seed).p_value
        for seed in range(60)
    ]
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.1)


def test_gains_are_what_a_step_does_for_held_out_text(
    labelled: tuple[ParallelDataset, LabelStore],  # noqa: F811
) -> None:
    """A small step by one loss of one sentence changes the held-out nll by as much."""
    data, _ = labelled
    model, objective = student(), gated(ConstantGateConfig())
    batch = data.batch(np.arange(3), ("reference", "hypothesis"), ("hypothesis",))
    held_out = [batch._replace(hypothesis=None)]
    gains = gains_of(model, objective, data, np.arange(3), held_out)
    assert gains.shape == (2, 3)
    weights, rate = list(model.parameters()), 1e-3
    for row in range(3):
        one = data.batch(np.array([row]), ("hypothesis",), ("hypothesis",))
        for side, name in enumerate(("sentence", "token")):
            loss = getattr(objective.parts(model, one), name).mean()
            step = torch.autograd.grad(loss, weights, allow_unused=True)
            before = held_out_nll(model, held_out[0]).item()
            with torch.no_grad():
                kept = [weight.clone() for weight in weights]
                for weight, gradient in zip(weights, step, strict=True):
                    if gradient is not None:
                        weight.sub_(gradient, alpha=rate)
                after = held_out_nll(model, held_out[0]).item()
                for weight, value in zip(weights, kept, strict=True):
                    weight.copy_(value)
            assert gains[side, row] == pytest.approx((before - after) / rate, rel=0.1, abs=0.01)

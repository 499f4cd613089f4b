"""Training that meets the errors of int8 arithmetic, so that a student learns to live with them.

Quantization-aware training (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3):
forward and backward passes compute with weights and activations that are rounded as `export.onnx`
rounds them for the int8 engines, and the optimiser changes the weights that are not. Gradients pass
through the rounding as if it were not there (Bengio et al. 2013, https://arxiv.org/abs/1308.3432).

Shapes: D width of what is rounded, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.transformer import FeedForward, Transformer

LARGEST_BYTE = 127
STEPS = 127
STEPS_OF_RELU = 255
"""Steps up to a position's largest value; the compiled engine gives those without a sign twice as
many, ONNX Runtime does not."""


class _RoundedPositions(torch.autograd.Function):
    @staticmethod
    def forward(states: Tensor, steps: int) -> Tensor:
        step = states.abs().amax(-1, keepdim=True) / steps
        return (states / step.clamp_min(torch.finfo(states.dtype).tiny)).round_() * step

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rounded_positions(states: Tensor, steps: int = STEPS) -> Tensor:
    """States [..., D] with each position rounded to so many steps up to its largest value."""
    rounded = _RoundedPositions.apply(states, steps)
    assert isinstance(rounded, Tensor)
    return rounded


def rounded_rows(weight: Tensor) -> Tensor:
    """Weights [R, D] rounded to bytes a row, as `export.quantization.quantize_pairs` does."""
    size = weight.abs()
    if size.shape[1] % 2:
        size = F.pad(size, (0, 1))
    largest = (size[:, ::2] + size[:, 1::2]).amax(1, keepdim=True)
    step = largest / LARGEST_BYTE
    return (weight / step.clamp_min(torch.finfo(weight.dtype).tiny)).round_() * step


class QuantizationAware:
    """Rounds a model's weights and activations where it is told to.

    Rounded are the weights of linear layers and embeddings, what goes into linear layers, and what
    goes into the output layer.
    """

    def __init__(self, model: Transformer) -> None:
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        self._weights: list[Tensor] = [
            *(linear.weight for linear in linears),
            *(table.weight for table in tables),
        ]
        blocks = [module for module in model.modules() if isinstance(module, FeedForward)]
        self._unsigned = {id(block.outer) for block in blocks if block.activation == "relu"}
        self._active = False
        for linear in linears:
            linear.register_forward_pre_hook(self._round_input)
        last = model.decoder[-1].ffn_norm if model.post_norm else model.decoder_norm
        assert isinstance(last, nn.Module)
        last.register_forward_hook(self._round_output)

    def _round_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._active:
            return None
        steps = STEPS_OF_RELU if id(module) in self._unsigned else STEPS
        return rounded_positions(inputs[0], steps), *inputs[1:]

    def _round_output(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return rounded_positions(output) if self._active else None

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Round in this block, which computes gradients; the weights are as before behind it."""
        with torch.no_grad():
            before = [weight.clone() for weight in self._weights]
            for weight in self._weights:
                weight.copy_(rounded_rows(weight))
        self._active = True
        try:
            yield
        finally:
            self._active = False
            with torch.no_grad():
                for weight, kept in zip(self._weights, before, strict=True):
                    weight.copy_(kept)

"""Dropout whose random bits are cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _random_bytes(count: int) -> Tensor:
    """`count` uniform bytes [count] from torch's CPU generator, eight from each 64-bit draw."""
    words = torch.empty((count + 7) // 8, dtype=torch.int64)
    return words.random_(-(2**63), None).view(torch.uint8)[:count]


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014).

    On a CPU torch draws one random number an element on one thread, 14 % of a small model's
    training step; here one byte an element decides, so `p` is rounded to a 256th there and
    the scale follows the rounded value. Elsewhere torch's own kernel is used. State: torch's
    default generator, so a saved generator state resumes the same masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout {p} must be at least 0 and below 1")
        self.p = p
        self.threshold = min(round(p * 256), 255)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        # In place, so that it stays bytes: torch converts those to floats several times as fast as
        # bools.
        keep = _random_bytes(x.numel()).ge_(self.threshold).view(x.shape)
        return x * keep.to(x.dtype).mul_(256 / (256 - self.threshold))

    def extra_repr(self) -> str:
        return f"p={self.p}"

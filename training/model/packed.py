"""Linear layers packed for oneDNN, for inference in float32 on a CPU.

Packed once, weights need not be laid out again in every product: products of a few rows, which a
step of decoding is made of, take up to half the time, and large ones 5 to 20 % less. Sums are added
up in another order, so results differ by rounding.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.transformer import Transformer


class PackedLinear(nn.Module):
    """x [..., in] → x Wᵀ + b [..., out], with W [out, in] packed where oneDNN is there.

    It takes no part in training: it has neither parameters nor gradients.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = can_pack(weight)
        self.bias = bias
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
            if self.packed
            else weight
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return product


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN takes a weight: float32 in the computer's memory, in a torch built with it."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def packed(model: Transformer) -> Transformer:
    """The model with packed linear layers, for inference; everything else is shared with it. On a
    GPU, or without oneDNN, the model itself."""
    if not can_pack(model.embedding.weight):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared).eval()
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                bias = None if child.bias is None else child.bias.detach()
                setattr(module, name, PackedLinear(child.weight, bias))
    return copied

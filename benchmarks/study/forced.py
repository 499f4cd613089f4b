"""Teacher forcing as decoding: each next word, given the reference's words before it.

The paper's easy end of the decoding axis, beam search being its hard one: a student that is given
the right words so far cannot go astray by its own.
"""

from __future__ import annotations

import numpy as np
import torch

from training.data.batching import pad_rows, target_sequence
from training.distill.losses.base import target_states
from training.distill.teachers.base import batches_by_length
from training.model.decoding import NEVER
from training.model.transformer import EOS, Transformer

BATCH_TOKENS = 2048


@torch.inference_mode()
def forced_outputs(
    model: Transformer, src: list[list[int]], trg: list[list[int]]
) -> tuple[list[list[int]], float]:
    """Source and reference ids, EOS last → the likeliest token at each place of the reference but
    EOS, and the share of all places, EOS counted, where it is the reference's.

    A place at which the student would rather end has no token.
    """
    outputs: list[list[int]] = [[]] * len(src)
    right = total = 0
    device = model.embedding.weight.device
    for rows in batches_by_length(trg, src, BATCH_TOKENS):
        target = target_sequence([np.array(trg[row]) for row in rows])
        memory, bias = model.encode(pad_rows([np.array(src[row]) for row in rows]).to(device))
        target = target._replace(trg_in=target.trg_in.to(device), trg_out=target.trg_out.to(device))
        logits = model.logits(target_states(model, target, memory, bias)).float()
        logits[:, list(NEVER)] = float("-inf")
        best = logits.argmax(1)
        right += int((best == target.targets).sum())
        total += len(best)
        parts = best.split([len(trg[row]) for row in rows])
        for row, part in zip(rows, parts, strict=True):
            outputs[row] = [token for token in part[:-1].tolist() if token != EOS]
    return outputs, right / max(total, 1)

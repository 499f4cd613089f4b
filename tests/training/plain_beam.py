"""Beam search as it is defined: one source, no cache, one prefix after another."""

from __future__ import annotations

import torch

from training.model.decoding import NEVER, Hypothesis, output_limit
from training.model.transformer import BOS, EOS, Transformer


@torch.inference_mode()
def plain_beam(
    model: Transformer, src: list[int], beam_size: int, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """Source ids, EOS last → up to `beam_size` hypotheses, best first."""
    memory, bias = model.encode(torch.tensor([src]))
    limit = output_limit(len(src), model.max_length)
    prefixes: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, Hypothesis]] = []
    for step in range(1, limit + 1):
        continued: list[tuple[float, list[int]]] = []
        for score, ids in prefixes:
            states = model.decode(torch.tensor([[BOS, *ids]]), memory, bias)
            logits = model.logits(states)[0, -1]
            logits[list(NEVER)] = float("-inf")
            logp = torch.log_softmax(logits, -1).tolist()
            continued += [
                (score + logp[token], [*ids, token])
                for token in range(len(logp))
                if token not in NEVER
            ]
        continued.sort(key=lambda entry: -entry[0])
        best = continued[: 2 * beam_size]
        for score, ids in best[:beam_size]:
            if ids[-1] == EOS or step == limit:
                words = ids[:-1] if ids[-1] == EOS else ids
                ended.append((score / step**length_penalty, Hypothesis(words, score)))
        prefixes = [entry for entry in best if entry[1][-1] != EOS][:beam_size]
        if len(ended) >= beam_size:
            break
    ended.sort(key=lambda entry: -entry[0])
    return [hypothesis for _, hypothesis in ended[:beam_size]]

"""Greedy and beam decoding in torch, the reference that the engines are held to; and sampling.

Shapes: B batch, S source length, T target length, V vocabulary, W beam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.model.transformer import BOS, EOS, PAD, UNK, DecoderCache, Transformer

NEVER = (PAD, UNK, BOS)
LimitOf = Callable[[int], int]


@dataclass(frozen=True)
class Hypothesis:
    """Target ids without BOS and EOS, and their log-probability (nats, EOS counted)."""

    ids: list[int]
    score: float


def output_limit(src_length: int, max_length: int) -> int:
    """Most target tokens, EOS counted, for a source of so many tokens."""
    return min(2 * src_length + 10, max_length - 1)


def next_logp(
    model: Transformer,
    last: Tensor,
    memory: Tensor,
    bias: Tensor | None,
    cache: DecoderCache,
    may_end: bool = True,
) -> Tensor:
    """Log-probabilities [B, V] of the next token; special tokens other than EOS are banned, and
    EOS where a translation may not end."""
    states = model.decode(last, memory, bias, cache)
    logits = model.logits(states[:, -1]).float()
    logits[:, list(NEVER if may_end else (*NEVER, EOS))] = float("-inf")
    return torch.log_softmax(logits, dim=-1)


Pick = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Log-probabilities [B, V] → those of the chosen tokens [B], and the tokens [B]."""


@torch.inference_mode()
def greedy(
    model: Transformer, src: Tensor, limit_of: LimitOf | None = None, min_length: int = 0
) -> list[Hypothesis]:
    """Source ids [B, S], EOS last, PAD right → one hypothesis a row, in order.

    Cached; rows that have ended leave the batch. `limit_of` gives the most target tokens, EOS
    counted, for a source of so many tokens, EOS counted; default: `output_limit`. A translation
    has at least `min_length` tokens.
    """
    written, scores = _decode(model, src, 1, lambda logp: logp.max(1), limit_of, min_length)
    return [
        Hypothesis([token for token in row if token not in (EOS, PAD)], score)
        for row, score in zip(written.tolist(), scores.tolist(), strict=True)
    ]


@torch.inference_mode()
def sample(
    model: Transformer, src: Tensor, count: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Source ids [B, S], EOS last, PAD right → ids [B, `count`, T], PAD right, and their
    log-probabilities [B, `count`], of as many translations a row, drawn word by word by torch's
    generator; they may repeat. EOS is last in those that do not end at the limit of `greedy`.

    Words are drawn from softmax(log-probabilities / temperature). Scores are the model's own.
    """
    written, scores = _decode(model, src, count, lambda logp: _draw(logp, temperature))
    return written.view(len(src), count, -1), scores.view(len(src), count)


def _draw(logp: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    mass = (logp / temperature).exp().cumsum(1)
    point = torch.rand(len(logp), 1, device=logp.device) * mass[:, -1:]
    choice = torch.searchsorted(mass, point, right=True).clamp_(max=logp.shape[1] - 1)
    return logp.gather(1, choice)[:, 0], choice[:, 0]


def _decode(
    model: Transformer,
    src: Tensor,
    count: int,
    pick: Pick,
    limit_of: LimitOf | None = None,
    min_length: int = 0,
) -> tuple[Tensor, Tensor]:
    """`count` translations a row, those of a row side by side, word by word as `pick` has it:
    their ids [B · `count`, T], EOS counted, PAD right, and log-probabilities [B · `count`].

    What is chosen stays on the device; the host learns of each step only how many rows go on.
    """
    limit_of = limit_of or (lambda length: output_limit(length, model.max_length))
    memory, bias = model.encode(src)
    if count > 1:
        memory = memory.repeat_interleave(count, dim=0)
        bias = None if bias is None else bias.repeat_interleave(count, dim=0)
    cache = model.new_cache(bias)
    given = [limit_of(n) for n in (src != PAD).sum(1).tolist()]
    limits = torch.tensor(given, device=src.device).repeat_interleave(count)
    rows = torch.arange(len(limits), device=src.device)
    last = src.new_full((len(limits), 1), BOS)
    written = src.new_full((len(limits), max(given, default=0)), PAD)
    scores = memory.new_zeros(len(limits), dtype=torch.float32)
    for step in range(1, written.shape[1] + 1):
        logp, choice = pick(
            next_logp(model, last, memory, cache.memory_bias, cache, may_end=step > min_length)
        )
        written[rows, step - 1] = choice
        scores.index_add_(0, rows, logp)
        kept = ((choice != EOS) & (limits[rows] > step)).nonzero()[:, 0]
        if not len(kept):
            return written[:, :step], scores
        if len(kept) < len(rows):
            cache.select(kept)
            memory, choice, rows = memory[kept], choice[kept], rows[kept]
        last = choice[:, None]
    return written, scores


def ranking(score: float, length: int, length_penalty: float) -> float:
    return score / max(length, 1) ** length_penalty


@torch.inference_mode()
def beam_one(
    model: Transformer, src: Tensor, beam_size: int, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """Beam search for one source row [1, S] → up to `beam_size` hypotheses, best first.

    Ranked by log-probability / (tokens, EOS counted) ^ length_penalty, which is CTranslate2's
    rule (Wu et al. 2016 in its plain form). Ends when `beam_size` hypotheses have ended.
    """
    memory, bias = model.encode(src)
    cache = model.new_cache(bias)
    limit = output_limit(src.shape[1], model.max_length)
    alive: list[list[int]] = [[]]
    scores = torch.zeros(1, device=src.device)
    last = torch.full((1, 1), BOS, device=src.device)
    done: list[tuple[float, Hypothesis]] = []
    for step in range(1, limit + 1):
        count = len(alive)
        logp = next_logp(model, last, memory.expand(count, -1, -1), bias, cache)
        total = scores[:, None] + logp
        values, flat = total.view(-1).topk(min(2 * beam_size, total.numel()))
        parents, tokens = flat // logp.shape[1], flat % logp.shape[1]
        chosen: list[tuple[int, int, float]] = []
        for rank, (value, parent, token) in enumerate(
            zip(values.tolist(), parents.tolist(), tokens.tolist(), strict=True)
        ):
            if token == EOS or step == limit:
                if rank < beam_size:
                    tail = [] if token == EOS else [token]
                    hypothesis = Hypothesis(alive[parent] + tail, value)
                    done.append((ranking(value, step, length_penalty), hypothesis))
            elif len(chosen) < beam_size:
                chosen.append((parent, token, value))
        if len(done) >= beam_size or not chosen:
            break
        alive = [[*alive[parent], token] for parent, token, _ in chosen]
        scores = torch.tensor([value for _, _, value in chosen], device=src.device)
        cache.select(torch.tensor([parent for parent, _, _ in chosen], device=src.device))
        last = torch.tensor([[token] for _, token, _ in chosen], device=src.device)
    done.sort(key=lambda item: -item[0])
    return [hypothesis for _, hypothesis in done[:beam_size]]


def beam(
    model: Transformer, src: Tensor, beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Beam search for each row of [B, S]; clear rather than fast, the engines are the fast ones."""
    found = []
    for row in src:
        length = int((row != PAD).sum())
        found.append(beam_one(model, row[None, :length], beam_size, length_penalty))
    return found


@torch.inference_mode()
def greedy_corpus(
    model: Transformer,
    rows: list[list[int]],
    batch_rows: int | None = None,
    limit_of: LimitOf | None = None,
    min_length: int = 0,
) -> list[Hypothesis]:
    """Greedy translation of many sources (ids, EOS last), batched by length, in order; `limit_of`
    and `min_length` as for `greedy`. `batch_rows` default: 64, on a GPU 512."""
    device = model.embedding.weight.device
    batch_rows = batch_rows or (512 if device.type == "cuda" else 64)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: list[Hypothesis | None] = [None] * len(rows)
    for start in range(0, len(order), batch_rows):
        group = order[start : start + batch_rows]
        longest = max(len(rows[index]) for index in group)
        src = torch.full((len(group), longest), PAD, dtype=torch.long)
        for position, index in enumerate(group):
            src[position, : len(rows[index])] = torch.tensor(rows[index])
        for index, hypothesis in zip(
            group, greedy(model, src.to(device), limit_of, min_length), strict=True
        ):
            found[index] = hypothesis
    return [hypothesis for hypothesis in found if hypothesis is not None]


@dataclass
class _Row:
    """The search of one source: prefixes that go on, and what has ended."""

    index: int
    limit: int
    alive: list[list[int]]
    done: list[tuple[float, Hypothesis]] = field(default_factory=list)

    def advance(
        self, step: int, candidates: list[tuple[float, int, int]], width: int, penalty: float
    ) -> list[tuple[int, int, float]]:
        """Take the 2·W best (value, parent, token), best first; → (parent, token, value) of the
        prefixes that go on, none where the search is over."""
        chosen: list[tuple[int, int, float]] = []
        for rank, (value, parent, token) in enumerate(candidates):
            if token == EOS or step == self.limit:
                if rank < width:
                    tail = [] if token == EOS else [token]
                    hypothesis = Hypothesis(self.alive[parent] + tail, value)
                    self.done.append((ranking(value, step, penalty), hypothesis))
            elif len(chosen) < width:
                chosen.append((parent, token, value))
        if len(self.done) >= width or len(chosen) < width:
            return []
        self.alive = [[*self.alive[parent], token] for parent, token, _ in chosen]
        return chosen


@torch.inference_mode()
def beam_batch(
    model: Transformer, src: Tensor, beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Source ids [B, S], EOS last, PAD right → up to W hypotheses a row, best first.

    Sources whose search is over leave the batch.
    """
    width, device = beam_size, src.device
    memory, bias = model.encode(src)
    cache = model.new_cache(None if bias is None else bias.repeat_interleave(width, 0))
    memory = memory.repeat_interleave(width, 0)
    limits = [output_limit(n, model.max_length) for n in (src != PAD).sum(1).tolist()]
    rows = [_Row(i, limit, [[] for _ in range(width)]) for i, limit in enumerate(limits)]
    going, step = rows, 0
    scores = torch.full((len(rows), width), float("-inf"), device=device)
    scores[:, 0] = 0.0
    last = torch.full((len(rows) * width, 1), BOS, device=device)
    while going:
        step += 1
        logp = next_logp(model, last, memory, cache.memory_bias, cache)
        vocab_size = logp.shape[1]
        total = (scores.view(-1, 1) + logp).view(len(going), -1)
        values, flat = total.topk(min(2 * width, total.shape[1]))
        found = zip(going, values.tolist(), flat.tolist(), strict=True)
        kept: list[tuple[int, _Row, list[tuple[int, int, float]]]] = []
        for place, (row, some_values, some_flat) in enumerate(found):
            candidates = [
                (value, index // vocab_size, index % vocab_size)
                for value, index in zip(some_values, some_flat, strict=True)
            ]
            if chosen := row.advance(step, candidates, width, length_penalty):
                kept.append((place, row, chosen))
        if not kept:
            break
        parents = [place * width + parent for place, _, some in kept for parent, _, _ in some]
        index = torch.tensor(parents, device=device)
        cache.select(index)
        if len(kept) < len(going):
            memory = memory.index_select(0, index)
        scores = torch.tensor([[v for _, _, v in some] for _, _, some in kept], device=device)
        last = torch.tensor([[t] for _, _, some in kept for _, t, _ in some], device=device)
        going = [row for _, row, _ in kept]
    return [_best(row, width) for row in rows]


def _best(row: _Row, width: int) -> list[Hypothesis]:
    row.done.sort(key=lambda item: -item[0])
    return [hypothesis for _, hypothesis in row.done[:width]]


def beam_corpus(
    model: Transformer, rows: list[list[int]], beam_size: int, batch_rows: int = 64
) -> list[Hypothesis]:
    """The best hypothesis of many sources (ids, EOS last), batched by length, in order."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: dict[int, Hypothesis] = {}
    device = model.embedding.weight.device
    for start in range(0, len(order), batch_rows):
        group = order[start : start + batch_rows]
        src = torch.full((len(group), len(rows[group[-1]])), PAD, dtype=torch.long)
        for position, index in enumerate(group):
            src[position, : len(rows[index])] = torch.tensor(rows[index])
        for index, hypotheses in zip(
            group, beam_batch(model, src.to(device), beam_size), strict=True
        ):
            found[index] = hypotheses[0]
    return [found[index] for index in range(len(rows))]

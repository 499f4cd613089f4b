"""Greedy decoding, sampling and beam search in torch: the reference that the engines are held to.

Shapes: B batch, S source length, T target length, V vocabulary, W beam size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from training.model.transformer import BOS, EOS, PAD, UNK, DecoderCache, Transformer

NEVER = (PAD, UNK, BOS)
"""Tokens that no translation holds."""
IMPOSSIBLE = float("-inf")
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


# --- greedy decoding and sampling --------------------------------------------------------------


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

    Chosen tokens stay on the device; after each step the host learns only how many rows remain.
    """
    limit_of = limit_of or (lambda length: output_limit(length, model.max_length))
    memory, bias = model.encode(src)
    if count > 1:
        memory = memory.repeat_interleave(count, dim=0)
        bias = None if bias is None else bias.repeat_interleave(count, dim=0)
    cache = model.new_cache(bias)
    row_limits = [limit_of(n) for n in (src != PAD).sum(1).tolist()]
    limits = torch.tensor(row_limits, device=src.device).repeat_interleave(count)
    rows = torch.arange(len(limits), device=src.device)
    last = src.new_full((len(limits), 1), BOS)
    written = src.new_full((len(limits), max(row_limits, default=0)), PAD)
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
    translations: dict[int, Hypothesis] = {}
    for indices, src in _batches_by_length(rows, batch_rows, device):
        hypotheses = greedy(model, src, limit_of, min_length)
        translations |= zip(indices, hypotheses, strict=True)
    return [translations[index] for index in range(len(rows))]


def _batches_by_length(
    rows: list[list[int]], batch_rows: int, device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of rows alike in length: their indices, and their ids [B, S], PAD right."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), batch_rows):
        indices = order[start : start + batch_rows]
        src = torch.full((len(indices), len(rows[indices[-1]])), PAD, dtype=torch.long)
        for position, index in enumerate(indices):
            src[position, : len(rows[index])] = torch.tensor(rows[index])
        yield indices, src.to(device)


# --- beam search -------------------------------------------------------------------------------


class DecodingSteps(Protocol):
    """The decoding of a batch step by step, as `beam_search` drives it."""

    def next_log_probs(self, last: Tensor) -> Tensor:
        """The tokens [B · W] chosen last (BOS at first) → log-probabilities [B · W, V] of the next
        ones, -inf for those of `NEVER`."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep these rows [B' · W] of the batch, in that order."""
        ...


class TransformerSteps:
    """Cached decoding of sources [B, S], each `times` times in turn, on the model's device."""

    @torch.inference_mode()
    def __init__(self, model: Transformer, src: Tensor, times: int) -> None:
        memory, bias = model.encode(src)
        self._model = model
        self._memory = memory.repeat_interleave(times, 0)
        self._cache = model.new_cache(None if bias is None else bias.repeat_interleave(times, 0))

    def next_log_probs(self, last: Tensor) -> Tensor:
        """Log-probabilities [B · W, V] of the next tokens, see `DecodingSteps`."""
        last = last[:, None].to(self._memory.device)
        return next_logp(self._model, last, self._memory, self._cache.memory_bias, self._cache)

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Probabilities [B · W, V] of the next tokens, none of them ruled out."""
        states = self._model.decode(
            last[:, None].to(self._memory.device),
            self._memory,
            self._cache.memory_bias,
            self._cache,
        )
        return torch.softmax(self._model.logits(states[:, -1]).float(), dim=-1)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in that order."""
        rows = rows.to(self._memory.device)
        self._cache.select(rows)
        # The cache holds the memory's keys and values; only the number of rows must agree.
        if len(rows) < len(self._memory):
            self._memory = self._memory.index_select(0, rows)


@dataclass
class _Search:
    """The search of one source: its unfinished prefixes, best first, and what has ended."""

    limit: int
    prefixes: list[list[int]]
    ended: list[tuple[float, Hypothesis]] = field(default_factory=list)
    """With their rank; higher is better."""

    def advance(
        self, step: int, candidates: Iterator[tuple[float, int, int]], length_penalty: float
    ) -> list[tuple[float, int, int]]:
        """Take the 2 · W best continuations (score, parent, token), best first → the W that the
        search goes on with; none where it is over."""
        width = len(self.prefixes)
        chosen: list[tuple[float, int, int]] = []
        for place, (score, parent, token) in enumerate(candidates):
            if token == EOS or step == self.limit:
                if place < width and score > IMPOSSIBLE:
                    ids = self.prefixes[parent] + ([] if token == EOS else [token])
                    rank = score / step**length_penalty
                    self.ended.append((rank, Hypothesis(ids, score)))
            elif len(chosen) < width:
                chosen.append((score, parent, token))
        over = len(self.ended) >= width or len(chosen) < width or chosen[0][0] == IMPOSSIBLE
        if over:
            return []
        self.prefixes = [[*self.prefixes[parent], token] for _, parent, token in chosen]
        return chosen

    def best(self) -> list[Hypothesis]:
        """At most W of the hypotheses that have ended, best first."""
        ranked = sorted(self.ended, key=lambda entry: -entry[0])
        return [hypothesis for _, hypothesis in ranked[: len(self.prefixes)]]


@torch.inference_mode()
def beam_search(
    steps: DecodingSteps, limits: Sequence[int], beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Up to `beam_size` hypotheses for each of B sources, best first.

    `steps` decodes B · W rows, each source `beam_size` times in turn; `limits` [B] are the most
    tokens of each, EOS counted. Ranked by log-probability / (tokens, EOS counted) ^
    `length_penalty`, which is CTranslate2's rule (Wu et al. 2016 in its plain form). The search of
    a source is over, and its rows leave the batch, when `beam_size` hypotheses have ended.
    """
    searches = [_Search(limit, [[] for _ in range(beam_size)]) for limit in limits]
    active, step = searches, 0
    # The prefixes of a source are all alike at first: one of them counts.
    scores = torch.tensor([0.0, *[IMPOSSIBLE] * (beam_size - 1)] * len(searches))
    last = torch.full((len(scores),), BOS)
    while active:
        step += 1
        logp = steps.next_log_probs(last)
        total = (scores.to(logp.device)[:, None] + logp).view(len(active), -1)
        values, flat = total.topk(min(2 * beam_size, total.shape[1]))
        parents, tokens = flat // logp.shape[1], flat % logp.shape[1]
        going: list[_Search] = []
        chosen: list[tuple[float, int, int]] = []
        rows = zip(active, values.tolist(), parents.tolist(), tokens.tolist(), strict=True)
        for index, (search, *candidates) in enumerate(rows):
            if best := search.advance(step, zip(*candidates, strict=True), length_penalty):
                going.append(search)
                first = index * beam_size
                chosen += [(score, first + parent, token) for score, parent, token in best]
        if going:
            scores = torch.tensor([score for score, _, _ in chosen])
            steps.select(torch.tensor([row for _, row, _ in chosen]))
            last = torch.tensor([token for _, _, token in chosen])
        active = going
    return [search.best() for search in searches]


def beam(
    model: Transformer, src: Tensor, beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Source ids [B, S], EOS last, PAD right → up to W hypotheses a row, best first."""
    limits = [output_limit(length, model.max_length) for length in (src != PAD).sum(1).tolist()]
    return beam_search(TransformerSteps(model, src, beam_size), limits, beam_size, length_penalty)


def beam_corpus(
    model: Transformer, rows: list[list[int]], beam_size: int, batch_rows: int = 64
) -> list[Hypothesis]:
    """The best hypothesis of many sources (ids, EOS last), batched by length, in order."""
    translations: dict[int, Hypothesis] = {}
    for indices, src in _batches_by_length(rows, batch_rows, model.embedding.weight.device):
        hypotheses = beam(model, src, beam_size)
        translations |= {index: best for index, (best, *_) in zip(indices, hypotheses, strict=True)}
    return [translations[index] for index in range(len(rows))]

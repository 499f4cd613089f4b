"""Greedy decoding and beam search in int8 in plain NumPy, one sentence at a time: what the compiled
engine does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.native.weights import NativeSource, Quantised

PAD, UNK, BOS, EOS = 0, 1, 2, 3
Floats = NDArray[np.float32]


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


def silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def gelu(x: Floats) -> Floats:
    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


ACTIVATIONS = {"relu": relu, "silu": silu, "gelu": gelu}


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


@dataclass
class Prefix:
    """The beginning of a hypothesis; `caches` are those after all of it but the last id."""

    ids: list[int]
    score: float
    caches: list[dict[str, Any]]


@dataclass
class Reference:
    """A model; `source` gives its weights."""

    source: NativeSource
    caches: list[dict[str, Any]] = field(default_factory=list)
    logp: list[Floats] = field(default_factory=list)
    """Log-probabilities [V] of each position of the last translation, that of `</s>` counted."""

    def translate(
        self, ids: Sequence[int], limit: int, candidates: NDArray[np.integer] | None = None
    ) -> tuple[list[int], float, bool]:
        """Ids, the sum of the log-probabilities, whether it has ended."""
        memory = self._encode(ids)
        self.caches = self._empty_caches()
        written: list[int] = []
        score, last = 0.0, BOS
        self.logp = []
        for place in range(limit + 1):
            logits = self._next_logits(last, place, memory, candidates)
            self.logp.append(log_softmax(logits))
            if place == limit:
                break
            if place == 0:
                logits[EOS] = -np.inf
            last = int(logits.argmax())
            score -= float(np.log(np.exp(logits - logits[last]).sum()))
            if last == EOS:
                return written, score, True
            written.append(last)
        return written, score, False

    def search(
        self,
        ids: Sequence[int],
        limit: int,
        beam_size: int,
        length_penalty: float = 1.0,
        candidates: NDArray[np.integer] | None = None,
    ) -> list[tuple[list[int], float, bool]]:
        """Up to `beam_size` hypotheses, best first, each as `translate` gives one."""
        memory = self._encode(ids)
        prefixes = [Prefix([], 0.0, self._empty_caches())]
        found: list[tuple[float, tuple[list[int], float, bool]]] = []
        for place in range(limit):
            continued: list[tuple[float, Prefix, int]] = []
            for prefix in prefixes:
                self.caches = [dict(cache) for cache in prefix.caches]
                last = prefix.ids[-1] if place else BOS
                logits = self._next_logits(last, place, memory, candidates)
                if place == 0:
                    logits[EOS] = -np.inf
                after = Prefix(prefix.ids, prefix.score, self.caches)
                scores = prefix.score + log_softmax(logits)
                possible = np.flatnonzero(scores > -np.inf).tolist()
                continued += [(float(scores[id_]), after, id_) for id_ in possible]
            continued.sort(key=lambda entry: -entry[0])
            prefixes = []
            for rank, (score, before, id_) in enumerate(continued[: 2 * beam_size]):
                ended = id_ == EOS
                written = before.ids if ended else [*before.ids, id_]
                if ended or place + 1 == limit:
                    if rank < beam_size:
                        found.append(
                            (score / (place + 1) ** length_penalty, (written, score, ended))
                        )
                elif len(prefixes) < beam_size:
                    prefixes.append(Prefix(written, score, before.caches))
            if len(found) >= beam_size:
                break
        found.sort(key=lambda entry: -entry[0])
        return [hypothesis for _, hypothesis in found[:beam_size]]

    def _empty_caches(self) -> list[dict[str, Any]]:
        return [{} for _ in range(self.source.dims.decoder_layers)]

    def _next_logits(
        self, last: int, place: int, memory: Floats, candidates: NDArray[np.integer] | None
    ) -> Floats:
        """Logits [V] after the token `last` at `place`, by what `caches` hold."""
        states = self._step(last, place, memory)
        table = self.source.quantised("embedding")
        logits: Floats = self._product(states, table, self.source.floats("output_bias"))[0]
        logits[[PAD, UNK, BOS]] = -np.inf
        if candidates is not None:
            logits[np.setdiff1d(np.arange(len(logits)), candidates)] = -np.inf
        return logits

    # --- arithmetic ---

    def _product(
        self, x: Floats, weight: Quantised, bias: Floats, positive: bool = False
    ) -> Floats:
        """x [N, inputs] quantised by row: to 0…255 where it is positive, else to ±127."""
        largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float32)
        top = np.float32(255 if positive else 127)
        scale = np.divide(top, largest, out=np.zeros_like(largest), where=largest > 0)
        rounded = np.rint(x * scale).astype(np.int64)
        sums = rounded @ weight.rows.astype(np.int64).T
        return (sums * (largest / top) * weight.steps + bias).astype(np.float32)

    def _linear(self, x: Floats, name: str, positive: bool = False) -> Floats:
        weight = self.source.quantised(name)
        return self._product(x, weight, self.source.floats(f"{name}.bias"), positive)

    def _norm(self, x: Floats, name: str) -> Floats:
        mean = x.mean(axis=1, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
        normal = (x - mean) / np.sqrt(variance + self.source.dims.epsilon)
        gain, bias = (self.source.floats(f"{name}.{part}") for part in ("weight", "bias"))
        return (normal * gain + bias).astype(np.float32)

    def _residual(self, x: Floats, norm: str, block: Any) -> Floats:
        if self.source.dims.post_norm:
            return self._norm(x + block(x), norm)
        return x + block(self._norm(x, norm))

    def _feed(self, x: Floats, name: str) -> Floats:
        activation = self.source.dims.activation

        def block(y: Floats) -> Floats:
            inner = ACTIVATIONS[activation](self._linear(y, f"{name}.ffn.inner"))
            return self._linear(inner, f"{name}.ffn.outer", positive=activation == "relu")

        return self._residual(x, f"{name}.ffn_norm", block)

    def _attend(self, query: Floats, key: Floats, value: Floats) -> Floats:
        heads = query.shape[1] // self.source.dims.head_width
        q, k, v = (np.stack(np.split(x, heads, axis=1)) for x in (query, key, value))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return np.concatenate(list(weights @ v), axis=1).astype(np.float32)

    def _embed(self, ids: Sequence[int], name: str, start: int) -> Floats:
        table = self.source.quantised(name)
        width = self.source.dims.width
        rows = table.rows[list(ids)] * table.steps[list(ids), None] * np.sqrt(width)
        return (rows + self.source.floats("positions")[start : start + len(ids)]).astype(np.float32)

    # --- the model ---

    def _encode(self, ids: Sequence[int]) -> Floats:
        own = self.source.dims.source_vocab_size
        x = self._embed(ids, "source_embedding" if own else "embedding", 0)
        for layer in range(self.source.dims.encoder_layers):
            name = f"encoder.{layer}"

            def block(y: Floats, name: str = name) -> Floats:
                qkv = np.split(self._linear(y, f"{name}.attention.qkv"), 3, axis=1)
                return self._linear(self._attend(*qkv), f"{name}.attention.out")

            x = self._feed(self._residual(x, f"{name}.attention_norm", block), name)
        return x if self.source.dims.post_norm else self._norm(x, "encoder_norm")

    def _step(self, last: int, place: int, memory: Floats) -> Floats:
        x = self._embed([last], "embedding", place)
        for layer, cache in enumerate(self.caches):
            name = f"decoder.{layer}"
            cell = self._recur if self.source.dims.recurrent else self._attend_before
            x = self._residual(
                x, f"{name}.attention_norm", lambda y, c=cell, n=name, k=cache: c(y, n, k)
            )
            x = self._residual(x, f"{name}.cross_norm", lambda y, n=name: self._cross(y, n, memory))
            x = self._feed(x, name)
        return x if self.source.dims.post_norm else self._norm(x, "decoder_norm")

    def _attend_before(self, y: Floats, name: str, cache: dict[str, Any]) -> Floats:
        query, key, value = np.split(self._linear(y, f"{name}.attention.qkv"), 3, axis=1)
        for kind, new in (("keys", key), ("values", value)):
            cache[kind] = np.concatenate([cache[kind], new]) if kind in cache else new
        mixed = self._attend(query, cache["keys"], cache["values"])
        return self._linear(mixed, f"{name}.attention.out")

    def _recur(self, y: Floats, name: str, cache: dict[str, Any]) -> Floats:
        candidate, forget = np.split(self._linear(y, f"{name}.attention.unit"), 2, axis=1)
        forget = 1 / (1 + np.exp(-forget))
        before = cache.get("state", np.zeros_like(candidate))
        cache["state"] = forget * before + (1 - forget) * candidate
        return np.maximum(cache["state"], 0)

    def _cross(self, y: Floats, name: str, memory: Floats) -> Floats:
        key, value = np.split(self._linear(memory, f"{name}.cross.kv"), 2, axis=1)
        mixed = self._attend(self._linear(y, f"{name}.cross.query"), key, value)
        return self._linear(mixed, f"{name}.cross.out")

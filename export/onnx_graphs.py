"""Whole ONNX graphs of a Transformer: greedy decoding in one, or its encoder and decoder step.

Greedy decoding is the encoder, the first step, then a Loop of cached steps. The first step stands
apart: nothing precedes it, and EOS is banned there alone, which so costs the others nothing.

Shapes: B batch, S source length, T target length, V vocabulary, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto

from export.onnx_builder import Graph, value
from export.onnx_layers import HIDDEN, Layers, Past, Source
from training.model import BOS, EOS


@dataclass(frozen=True)
class _State:
    """What a step hands to the next: its tokens [B] (PAD after the end), 1 for rows that go on and
    0 for rows that have ended [B], ids so far [B, T], the sum of their log-probabilities [B], and
    the past."""

    last: str
    alive: str
    ids: str
    scores: str
    past: Past

    def names(self) -> list[str]:
        return [self.last, self.alive, self.ids, self.scores, *self.past.keys, *self.past.values]

    @staticmethod
    def of(names: list[str]) -> _State:
        half = 4 + (len(names) - 4) // 2
        return _State(names[0], names[1], names[2], names[3], Past(names[4:half], names[half:]))


def greedy_graph(layers: Layers, vocab_size: int, max_steps: int) -> GraphProto:
    """`src` int64 [B, S], `limit` int64 (1 or more), `return_scores` bool → `trg` int64 [B, T],
    `scores` float32 [B]."""
    graph = Graph("greedy")
    source = layers.encode(graph, "src")
    state = _first_step(graph, layers, source, vocab_size)
    limit = graph.op("Min", "limit", graph.scalar("max_steps", max_steps, "int64"))
    steps = graph.op("Sub", limit, graph.scalar("one", 1, "int64"))
    body = _loop_body(graph, layers, source)
    names = state.names()
    going = _any(graph, state.alive)
    last = _State.of(graph.ops("Loop", steps, going, *names, outputs=len(names), body=body))
    graph.rename(last.ids, "trg")
    graph.rename(last.scores, "scores")
    return graph.proto(
        [
            value("src", "int64", ["B", "S"]),
            value("limit", "int64"),
            value("return_scores", "bool"),
        ],
        [value("trg", "int64", ["B", "T"]), value("scores", "float32", ["B"])],
    )


def encoder_graph(layers: Layers) -> GraphProto:
    """`src` int64 [B, S] → `mask` and, for each decoder layer, `memory_key.<layer>` and
    `memory_value.<layer>`."""
    graph = Graph("encoder")
    source = layers.encode(graph, "src")
    outputs = _source_values(layers)
    for name, output in zip([source.mask, *source.keys, *source.values], outputs, strict=True):
        graph.rename(name, output.name)
    return graph.proto([value("src", "int64", ["B", "S"])], outputs)


def step_graph(layers: Layers) -> GraphProto:
    """`last` int64 [B], what `encoder_graph` gives and, for each layer, `past_key.<layer>` and
    `past_value.<layer>` (T from 0) → `logits` float32 [B, V], `key.<layer>` and `value.<layer>`."""
    graph = Graph("step")
    source = Source(
        [f"memory_key.{index}" for index in range(layers.depth)],
        [f"memory_value.{index}" for index in range(layers.depth)],
        "mask",
    )
    past = _past_values(layers, "past_", "T")
    names = [one.name for one in past]
    length = graph.op("Shape", names[0], start=3, end=4)
    position = graph.op("Gather", layers.positions(graph), length)
    before = Past(names[: layers.depth], names[layers.depth :])
    logits, after = layers.step(graph, "last", position, source, before)
    outputs = _past_values(layers, "", "T + 1")
    graph.rename(logits, "logits")
    for name, output in zip([*after.keys, *after.values], outputs, strict=True):
        graph.rename(name, output.name)
    return graph.proto(
        [value("last", "int64", ["B"]), *_source_values(layers), *past],
        [value("logits", "float32", ["B", None]), *outputs],
    )


def _first_step(graph: Graph, layers: Layers, source: Source, vocab_size: int) -> _State:
    rows = graph.op("Shape", "src", start=0, end=1)
    bos = graph.op("Expand", graph.scalar("bos", BOS, "int64"), rows)
    position = graph.op("Gather", layers.positions(graph), graph.scalar("zero", 0, "int64"))
    logits, past = layers.step(graph, bos, position, source, None)
    choices = graph.weight("eos_ban", np.array([0, HIDDEN], np.float32))
    eos = graph.scalar("eos", EOS, "int64")
    ban = graph.op("OneHot", eos, graph.ints(vocab_size), choices)
    alive = graph.op("Expand", graph.scalar("one", 1, "int64"), rows)
    none = graph.op("Expand", graph.scalar("shown", 0.0, "float32"), rows)
    return _choose(graph, graph.op("Add", logits, ban), _State("", alive, "", none, past))


def _loop_body(graph: Graph, layers: Layers, source: Source) -> GraphProto:
    """The step after the first ones; its iteration 0 is at position 1."""
    end = graph.ints(2**63 - 1)
    positions = graph.op("Slice", layers.positions(graph), graph.ints(1), end)
    body = graph.child("step")
    inputs = [
        value("last", "int64", ["B"]),
        value("alive", "int64", ["B"]),
        value("ids", "int64", ["B", "T"]),
        value("sums", "float32", ["B"]),
        *_past_values(layers, "past_", "T"),
    ]
    before = _State.of([one.name for one in inputs])
    position = body.op("Gather", positions, "iteration")
    logits, past = layers.step(body, before.last, position, source, before.past)
    state = _State(before.last, before.alive, before.ids, before.scores, past)
    after = _choose(body, logits, state)
    outputs = [
        value(_any(body, after.alive), "bool"),
        value(after.last, "int64", ["B"]),
        value(after.alive, "int64", ["B"]),
        value(after.ids, "int64", ["B", "T + 1"]),
        value(after.scores, "float32", ["B"]),
    ]
    for name, like in zip(after.names()[4:], _past_values(layers, "", "T + 1"), strict=True):
        like.name = name
        outputs.append(like)
    return body.proto([value("iteration", "int64"), value("going", "bool"), *inputs], outputs)


def _choose(graph: Graph, logits: str, state: _State) -> _State:
    """The state after the likeliest tokens are taken; `state.past` is the new one already."""
    choice = graph.op("ArgMax", logits, axis=1, keepdims=0)
    token = graph.op("Mul", choice, state.alive)  # PAD is 0
    ended = graph.op("Equal", token, graph.scalar("eos", EOS, "int64"))
    alive = graph.op("Where", ended, graph.scalar("zero", 0, "int64"), state.alive)
    ids = graph.op("Unsqueeze", token, graph.ints(1))
    if state.ids:
        ids = graph.op("Concat", state.ids, ids, axis=1)
    return _State(token, alive, ids, _scores(graph, logits, state), state.past)


def _scores(graph: Graph, logits: str, state: _State) -> str:
    """The sum with this step's log-probabilities, only where they are asked for."""
    adding = graph.child("scored")
    best = adding.op("ReduceMax", logits, graph.ints(1), keepdims=0)
    total = adding.op("ReduceLogSumExp", logits, graph.ints(1), keepdims=0)
    alive = adding.op("Cast", state.alive, to=TensorProto.FLOAT)
    added = adding.op("Mul", adding.op("Sub", best, total), alive)
    added = adding.op("Add", state.scores, added)
    same = graph.child("unscored")
    kept = same.op("Identity", state.scores)
    return graph.op(
        "If",
        "return_scores",
        then_branch=adding.proto([], [value(added, "float32", ["B"])]),
        else_branch=same.proto([], [value(kept, "float32", ["B"])]),
    )


def _any(graph: Graph, alive: str) -> str:
    """Whether any row goes on."""
    most = graph.op("ReduceMax", alive, graph.ints(0), keepdims=0)
    return graph.op("Cast", most, to=TensorProto.BOOL)


def _source_values(layers: Layers) -> list[ValueInfoProto]:
    heads, width, depth = layers.heads, layers.head_width, range(layers.depth)
    return [
        value("mask", "float32", ["B", 1, 1, "S"]),
        *(value(f"memory_key.{index}", "float32", ["B", heads, width, "S"]) for index in depth),
        *(value(f"memory_value.{index}", "float32", ["B", heads, "S", width]) for index in depth),
    ]


def _past_values(layers: Layers, prefix: str, length: str) -> list[ValueInfoProto]:
    heads, width, depth = layers.heads, layers.head_width, range(layers.depth)
    return [
        *(value(f"{prefix}key.{i}", "float32", ["B", heads, width, length]) for i in depth),
        *(value(f"{prefix}value.{i}", "float32", ["B", heads, length, width]) for i in depth),
    ]

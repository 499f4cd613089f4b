"""Whole ONNX graphs of a Transformer: greedy decoding in one, or its encoder and decoder step.

Greedy decoding is the encoder, the first step, then a Loop of cached steps. The first step stands
apart: nothing precedes it, and EOS is banned there alone, which so costs the others nothing.

Shapes: B batch, S source length, T target length, V vocabulary, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, TensorProto, ValueInfoProto

from export.onnx.builder import Graph, value
from export.onnx.decoder import Decoder, Past
from export.onnx.encoder import EncodedSource, encode
from export.onnx.layers import positions
from export.onnx.linear import MakeArithmetic
from training.model import BOS, EOS, Transformer


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


def greedy_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """`src` int64 [B, S], `limit` int64 (1 or more), `return_scores` bool → `trg` int64 [B, T],
    `scores` float32 [B]."""
    graph = Graph("greedy")
    source = encode(graph, model, make, "src")
    rows = graph.op("Shape", "src", start=0, end=1)
    bos = graph.op("Expand", graph.scalar("bos", BOS, "int64"), rows)
    decoder = Decoder(model, make(graph, bos))
    state = _first_step(graph, decoder, source, bos, rows)
    limit = graph.op("Min", "limit", graph.scalar("longest", model.max_length - 1, "int64"))
    steps = graph.op("Sub", limit, graph.scalar("one", 1, "int64"))
    going = _any(graph, state.alive)
    body = _loop_body(graph, decoder, source)
    names = state.names()
    end = _State.of(graph.ops("Loop", steps, going, *names, outputs=len(names), body=body))
    graph.rename(end.ids, "trg")
    graph.rename(end.scores, "scores")
    return graph.proto(
        [
            value("src", "int64", ["B", "S"]),
            value("limit", "int64"),
            value("return_scores", "bool"),
        ],
        [value("trg", "int64", ["B", "T"]), value("scores", "float32", ["B"])],
    )


def encoder_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """`src` int64 [B, S] → `mask` and, for each decoder layer, `memory_key.<layer>` and
    `memory_value.<layer>`: what `step_graph` takes."""
    graph = Graph("encoder")
    source = encode(graph, model, make, "src")
    outputs = _source_values(model)
    for name, output in zip([source.mask, *source.keys, *source.values], outputs, strict=True):
        graph.rename(name, output.name)
    return graph.proto([value("src", "int64", ["B", "S"])], outputs)


def step_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """`last` int64 [B], what `encoder_graph` gives and, for each layer, `past_key.<layer>` and
    `past_value.<layer>` (T = 0 at first) → `logits` float32 [B, V], `key.<layer>` and
    `value.<layer>`."""
    graph = Graph("step")
    depth = len(model.decoder)
    read = [one.name for one in _source_values(model)]
    source = EncodedSource(read[1 : depth + 1], read[depth + 1 :], read[0])
    past = _past_values(model, "past_", "T")
    names = [one.name for one in past]
    length = graph.op("Shape", names[0], start=3, end=4)
    position = graph.op("Gather", positions(graph, model), length)
    decoder = Decoder(model, make(graph, "last"))
    before = Past(names[:depth], names[depth:])
    logits, after = decoder.step(graph, "last", position, source, before)
    outputs = _past_values(model, "", "T + 1")
    graph.rename(logits, "logits")
    for name, output in zip([*after.keys, *after.values], outputs, strict=True):
        graph.rename(name, output.name)
    return graph.proto(
        [value("last", "int64", ["B"]), *_source_values(model), *past],
        [value("logits", "float32", ["B", model.vocab_size]), *outputs],
    )


def _first_step(
    graph: Graph, decoder: Decoder, source: EncodedSource, bos: str, rows: str
) -> _State:
    logits, past = decoder.first_step(graph, bos, source)
    alive = graph.op("Expand", graph.scalar("one", 1, "int64"), rows)
    nothing = graph.op("Expand", graph.scalar("shown", 0, "float32"), rows)
    return _choose(graph, logits, _State("", alive, "", nothing, past))


def _loop_body(graph: Graph, decoder: Decoder, source: EncodedSource) -> GraphProto:
    """The steps after the first: iteration 0 is at position 1."""
    table = graph.op("Slice", positions(graph, decoder.model), graph.ints(1), graph.ints(2**62))
    body = graph.child("step")
    inputs = [
        value("last", "int64", ["B"]),
        value("alive", "int64", ["B"]),
        value("ids", "int64", ["B", "T"]),
        value("sums", "float32", ["B"]),
        *_past_values(decoder.model, "past_", "T"),
    ]
    before = _State.of([one.name for one in inputs])
    position = body.op("Gather", table, "iteration")
    logits, past = decoder.step(body, before.last, position, source, before.past)
    state = _State(before.last, before.alive, before.ids, before.scores, past)
    after = _choose(body, logits, state)
    outputs = [
        value(_any(body, after.alive), "bool"),
        value(after.last, "int64", ["B"]),
        value(after.alive, "int64", ["B"]),
        value(after.ids, "int64", ["B", "T + 1"]),
        value(after.scores, "float32", ["B"]),
        *_past_values(decoder.model, "", "T + 1"),
    ]
    for name, output in zip(after.names()[4:], outputs[5:], strict=True):
        output.name = name
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
    """The sum with this step's log-probabilities added, only where they are asked for."""
    adding = graph.child("scored")
    best = adding.op("ReduceMax", logits, graph.ints(1), keepdims=0)
    total = adding.op("ReduceLogSumExp", logits, graph.ints(1), keepdims=0)
    alive = adding.op("Cast", state.alive, to=TensorProto.FLOAT)
    gain = adding.op("Mul", adding.op("Sub", best, total), alive)
    scored = value(adding.op("Add", state.scores, gain), "float32", ["B"])
    passing = graph.child("unscored")
    unscored = value(passing.op("Identity", state.scores), "float32", ["B"])
    return graph.op(
        "If",
        "return_scores",
        then_branch=adding.proto([], [scored]),
        else_branch=passing.proto([], [unscored]),
    )


def _any(graph: Graph, alive: str) -> str:
    """Whether a row goes on."""
    most = graph.op("ReduceMax", alive, graph.ints(0), keepdims=0)
    return graph.op("Cast", most, to=TensorProto.BOOL)


def _source_values(model: Transformer) -> list[ValueInfoProto]:
    heads, width, depth = model.heads, model.width // model.heads, range(len(model.decoder))
    return [
        value("mask", "float32", ["B", 1, 1, "S"]),
        *(value(f"memory_key.{layer}", "float32", ["B", heads, width, "S"]) for layer in depth),
        *(value(f"memory_value.{layer}", "float32", ["B", heads, "S", width]) for layer in depth),
    ]


def _past_values(model: Transformer, prefix: str, length: str) -> list[ValueInfoProto]:
    heads, width, depth = model.heads, model.width // model.heads, range(len(model.decoder))
    return [
        *(value(f"{prefix}key.{layer}", "float32", ["B", heads, width, length]) for layer in depth),
        *(
            value(f"{prefix}value.{layer}", "float32", ["B", heads, length, width])
            for layer in depth
        ),
    ]

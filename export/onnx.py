"""Our Transformer as ONNX models, in float32 or with weights in bytes.

`greedy.onnx` is the whole of greedy decoding in one graph: token ids in, token ids out, on any ONNX
Runtime. `encoder.onnx` and `step.onnx` are its parts, for those who drive decoding themselves.
`beam.onnx` is beam search around ONNX Runtime's own operator `com.microsoft::BeamSearch`, which
runs two graphs with fixed names as for T5 (the encoder with the first decoder step, and a decoder
step), with int32 ids and keys whose length comes before the width:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BeamSearch

The graphs are written node by node (`export.onnx_builder`, `export.onnx_layers`), so the
same model gives the same bytes.

Greedy decoding is the encoder, the first step, then a Loop of cached steps. The first step stands
apart since nothing precedes it and EOS is banned there alone. A model with a shortlist is given the
candidates of its output layer along with the source. docs/bundle.md describes inputs and
outputs.

Shapes: B batch (in beam search's step, batch × beam), S source length, T steps so far, V
vocabulary, D width, H heads, C candidates of a shortlist.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from export.ctranslate2 import SPECIAL_PIECES, check_pieces
from export.onnx_builder import ARITHMETIC, Dims, Graph, MakeArithmetic, StoredPrecision, value
from export.onnx_layers import (
    ACTIVATIONS,
    HIDDEN,
    Decoder,
    EncodedSource,
    Past,
    encode,
    positions,
)
from export.runtime.manifest import PACKED
from quickstudy.atomic import atomic_folder
from training.model.transformer import BOS, EOS, PAD, UNK, FeedForward, Transformer

# --- greedy decoding ---------------------------------------------------------------------------


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
        return [self.last, self.alive, self.ids, self.scores, *chain(*self.past)]

    @staticmethod
    def of(names: list[str], layers: int) -> _State:
        return _State(names[0], names[1], names[2], names[3], _by_layer(names[4:], layers))


def _by_layer(names: list[str], layers: int) -> Past:
    """Names of the past, those of a layer side by side."""
    size = len(names) // layers
    return [names[start : start + size] for start in range(0, len(names), size)]


def greedy_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """`src` int64 [B, S], `limit` int64 (1 or more), `return_scores` bool → `trg` int64 [B, T],
    `scores` float32 [B]."""
    return _greedy(model, make, shortlisted=False)


def shortlisted_greedy_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """As `greedy_graph`, and takes `candidates` int64 [C] and `candidate_mask` float32 [B, C],
    which is added to their logits: 0 for a sentence's own candidates, `HIDDEN` for others."""
    return _greedy(model, make, shortlisted=True)


def _greedy(model: Transformer, make: MakeArithmetic, shortlisted: bool) -> GraphProto:
    graph = Graph("greedy")
    source = encode(graph, model, make, "src")
    rows = graph.op("Shape", "src", start=0, end=1)
    bos = graph.op("Expand", graph.scalar("bos", BOS, "int64"), rows)
    decoder = Decoder(model, make(graph, bos))
    if shortlisted:
        decoder = decoder.shortlisted(graph, "candidates", "candidate_mask")
    state = _first_step(graph, decoder, source, bos, rows)
    limit = graph.op("Min", "limit", graph.scalar("longest", model.max_length - 1, "int64"))
    steps = graph.op("Sub", limit, graph.scalar("one", 1, "int64"))
    going = _any(graph, state.alive)
    body = _loop_body(graph, decoder, source)
    names = state.names()
    outputs = graph.ops("Loop", steps, going, *names, outputs=len(names), body=body)
    end = _State.of(outputs, len(model.decoder))
    graph.rename(end.ids, "trg")
    graph.rename(end.scores, "scores")
    chosen = [value("candidates", "int64", ["C"]), value("candidate_mask", "float32", ["B", "C"])]
    return graph.proto(
        [
            value("src", "int64", ["B", "S"]),
            value("limit", "int64"),
            value("return_scores", "bool"),
            *(chosen if shortlisted else []),
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
    `value.<layer>`; of a recurrent decoder `position` int64 [1] and `past_state.<layer>` (zeros at
    first) → `state.<layer>`."""
    graph = Graph("step")
    depth = len(model.decoder)
    read = [one.name for one in _source_values(model)]
    source = EncodedSource(read[1 : depth + 1], read[depth + 1 :], read[0])
    past = _past_values(model, "past_", "T")
    names = [entry.name for entry in past]
    recurrent = model.decoder_cell == "ssru"
    length = "position" if recurrent else graph.op("Shape", names[0], start=3, end=4)
    position = graph.op("Gather", positions(graph, model), length)
    decoder = Decoder(model, make(graph, "last"))
    before = _by_layer(names, depth)
    logits, after = decoder.step(graph, "last", position, source, before)
    outputs = _past_values(model, "", "T + 1")
    graph.rename(logits, "logits")
    for name, output in zip(chain(*after), outputs, strict=True):
        graph.rename(name, output.name)
    place = [value("position", "int64", [1])] if recurrent else []
    return graph.proto(
        [value("last", "int64", ["B"]), *_source_values(model), *place, *past],
        [value("logits", "float32", ["B", model.vocab_size]), *outputs],
    )


def _first_step(
    graph: Graph, decoder: Decoder, source: EncodedSource, bos: str, rows: str
) -> _State:
    logits, past = decoder.first_step(graph, bos, source)
    alive = graph.op("Expand", graph.scalar("one", 1, "int64"), rows)
    nothing = graph.op("Expand", graph.scalar("shown", 0, "float32"), rows)
    return _choose(graph, decoder, logits, _State("", alive, "", nothing, past))


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
    before = _State.of([entry.name for entry in inputs], len(decoder.model.decoder))
    position = body.op("Gather", table, "iteration")
    logits, past = decoder.step(body, before.last, position, source, before.past)
    state = _State(before.last, before.alive, before.ids, before.scores, past)
    after = _choose(body, decoder, logits, state)
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


def _choose(graph: Graph, decoder: Decoder, logits: str, state: _State) -> _State:
    """The state after the likeliest tokens are taken; `state.past` is the new one already."""
    choice = decoder.token(graph, graph.op("ArgMax", logits, axis=1, keepdims=0))
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
    width = model.width // model.heads
    heads = list(enumerate(layer.cross_heads for layer in model.decoder_sizes))
    return [
        value("mask", "float32", ["B", 1, 1, "S"]),
        *(value(f"memory_key.{layer}", "float32", ["B", n, width, "S"]) for layer, n in heads),
        *(value(f"memory_value.{layer}", "float32", ["B", n, "S", width]) for layer, n in heads),
    ]


def _past_values(model: Transformer, prefix: str, length: str) -> list[ValueInfoProto]:
    """What a step reads of those before it, layer by layer."""
    depth = range(len(model.decoder))
    if model.decoder_cell == "ssru":
        return [value(f"{prefix}state.{layer}", "float32", ["B", model.width]) for layer in depth]
    width = model.width // model.heads

    def shapes(heads: int) -> dict[str, Dims]:
        return {"key": ["B", heads, width, length], "value": ["B", heads, length, width]}

    return [
        value(f"{prefix}{part}.{number}", "float32", shape)
        for number, layer in enumerate(model.decoder_sizes)
        for part, shape in shapes(layer.heads).items()
    ]


# --- beam search -------------------------------------------------------------------------------


DOMAIN = "com.microsoft"
MODEL_TYPE = 1
"""Encoder and decoder, in the operator's words."""


def beam_graph(model: Transformer, make: MakeArithmetic) -> GraphProto:
    """`src` int64 [B, S], `limit` int64 (2 or more), `beam_size` int64 → `trg` int64 [B, T] without
    EOS, `scores` float32 [B]: the mean log-probability of a token, EOS counted."""
    graph = Graph("beam")
    src = graph.op("Cast", "src", to=TensorProto.INT32)
    pad = graph.scalar("pad_int32", PAD, "int32")
    mask = graph.op("Cast", graph.op("Greater", src, pad), to=TensorProto.INT32)
    limit = graph.op("Min", "limit", graph.scalar("longest", model.max_length - 1, "int64"))
    limit = graph.op("Add", limit, graph.scalar("one", 1, "int64"))  # BOS counts
    lengths = {
        "max_length": _int32_list(graph, limit),
        "min_length": _int32_list(graph, graph.scalar("zero", 0, "int64")),
        "num_beams": _int32_list(graph, "beam_size"),
        "num_return_sequences": _int32_list(graph, graph.scalar("one", 1, "int64")),
    }
    penalty = graph.weight("penalty", np.ones(1, np.float32))  # of length: the mean; of repetition
    encoder, decoder = _encoder(graph, model, make), _decoder(graph, model, make)
    sequences, scores = graph.ops(
        "BeamSearch",
        src,
        *lengths.values(),
        penalty,
        penalty,
        *("", ""),  # nothing of the vocabulary is masked
        mask,
        outputs=2,
        domain=DOMAIN,
        model_type=MODEL_TYPE,
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=BOS,
        early_stopping=1,
        encoder=encoder,
        decoder=decoder,
    )
    best = graph.op("Squeeze", sequences, graph.ints(1))
    best = graph.op("Slice", best, graph.ints(1), graph.ints(2**62), graph.ints(1))
    graph.rename(graph.op("Cast", best, to=TensorProto.INT64), "trg")
    graph.rename(graph.op("Squeeze", scores, graph.ints(1)), "scores")
    return graph.proto(
        [value("src", "int64", ["B", "S"]), value("limit", "int64"), value("beam_size", "int64")],
        [value("trg", "int64", ["B", "T"]), value("scores", "float32", ["B"])],
    )


def _int32_list(graph: Graph, name: str) -> str:
    """A scalar as int32 [1]."""
    return graph.op("Cast", graph.op("Reshape", name, graph.ints(1)), to=TensorProto.INT32)


def _encoder(outer: Graph, model: Transformer, make: MakeArithmetic) -> GraphProto:
    """The encoder and the first step, whose input is BOS."""
    graph = outer.child("encoder")
    source = encode(graph, model, make, graph.op("Cast", "encoder_input_ids", to=TensorProto.INT64))
    last = graph.op("Reshape", "decoder_input_ids", graph.ints(-1))
    logits, past = Decoder(model, make(graph, last)).first_step(graph, last, source)
    memory = [list(pair) for pair in zip(source.keys, source.values, strict=True)]
    outputs = [
        _named(graph, graph.op("Unsqueeze", logits, graph.ints(1)), _logits_value(model)),
        # Nothing reads it, but the operator wants it there.
        _named(graph, source.mask, value("encoder_hidden_states", "float32", ["B", 1, 1, "S"])),
        *_present(graph, past, _cache(model, "present", "self", "T + 1")),
        *_present(graph, memory, _cache(model, "present", "cross", "S")),
    ]
    inputs = [
        value("encoder_input_ids", "int32", ["B", "S"]),
        value("encoder_attention_mask", "int32", ["B", "S"]),
        value("decoder_input_ids", "int32", ["B", 1]),
    ]
    return graph.proto(inputs, outputs)


def _decoder(outer: Graph, model: Transformer, make: MakeArithmetic) -> GraphProto:
    """A step after the first."""
    graph = outer.child("decoder")
    before = _cache(model, "past", "self", "T")
    memory = _cache(model, "past", "cross", "S")
    keys, values = map(list, zip(*_past(graph, memory), strict=True))
    shown = graph.op("Cast", "encoder_attention_mask", to=TensorProto.BOOL)
    mask = graph.op(
        "Where",
        shown,
        graph.scalar("shown", 0, "float32"),
        graph.scalar("hidden", HIDDEN, "float32"),
    )
    source = EncodedSource(keys, values, graph.op("Unsqueeze", mask, graph.ints(1, 2)))
    last = graph.op("Reshape", "input_ids", graph.ints(-1))
    length = graph.op("Shape", before[0].name, start=2, end=3)
    position = graph.op("Gather", positions(graph, model), length)
    decoder = Decoder(model, make(graph, last))
    logits, past = decoder.step(graph, last, position, source, _past(graph, before))
    outputs = [
        _named(graph, graph.op("Unsqueeze", logits, graph.ints(1)), _logits_value(model)),
        *_present(graph, past, _cache(model, "present", "self", "T + 1")),
    ]
    inputs = [
        value("input_ids", "int32", ["B", 1]),
        value("encoder_attention_mask", "int32", ["B", "S"]),
        *before,
        *memory,
    ]
    return graph.proto(inputs, outputs)


def _logits_value(model: Transformer) -> ValueInfoProto:
    return value("logits", "float32", ["B", 1, model.vocab_size])


def _cache(model: Transformer, when: str, kind: str, length: str) -> list[ValueInfoProto]:
    """Keys and values [B, H, length, D / H] of all layers by the operator's names, in its order."""
    dims: Dims = ["B", model.heads, length, model.width // model.heads]
    return [
        value(f"{when}_{part}_{kind}_{layer}", "float32", dims)
        for layer in range(len(model.decoder))
        for part in ("key", "value")
    ]


def _past(graph: Graph, cache: list[ValueInfoProto]) -> Past:
    """Keys [B, H, D / H, length] and values of a cache, by layer."""
    keys = [graph.op("Transpose", entry.name, perm=[0, 1, 3, 2]) for entry in cache[::2]]
    return [[key, entry.name] for key, entry in zip(keys, cache[1::2], strict=True)]


def _present(graph: Graph, past: Past, cache: list[ValueInfoProto]) -> list[ValueInfoProto]:
    """Give keys and values the names of a cache."""
    for index, (key, kept) in enumerate(past):
        turned = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        graph.rename(turned, cache[2 * index].name)
        graph.rename(kept, cache[2 * index + 1].name)
    return cache


def _named(graph: Graph, name: str, output: ValueInfoProto) -> ValueInfoProto:
    graph.rename(name, output.name)
    return output


# --- model files -------------------------------------------------------------------------------


FORMAT_VERSION = 1
OPSET = 21
IR_VERSION = 10
GraphName = Literal["greedy", "encoder", "step", "beam"]
GRAPHS: dict[str, Callable[[Transformer, MakeArithmetic], GraphProto]] = {
    "greedy": greedy_graph,
    "encoder": encoder_graph,
    "step": step_graph,
    "beam": beam_graph,
}
SHORTLISTED = {"greedy": shortlisted_greedy_graph}
"""The graphs of a model with a shortlist."""


@dataclass(frozen=True)
class OnnxModelInfo:
    """What a model file says of itself besides its dimensions."""

    name: str
    source_lang: str
    target_lang: str


def to_onnx(
    model: Transformer,
    pieces: list[str],
    output_dir: Path,
    precision: StoredPrecision,
    info: OnnxModelInfo,
    graphs: Sequence[GraphName] = ("greedy",),
    shortlist: bool = False,
    packed: bool = False,
) -> None:
    """Write `<graph>.onnx` for each of `graphs` to a folder, `packed` as `<graph>.onnx.gz`.

    `pieces` are the SentencePiece pieces in the order of their ids, the special ones first. "int8"
    stores weight matrices and embeddings in bytes, one scale a row (`keep_bytes`). With a
    `shortlist` the greedy graph takes candidates. A former folder is replaced only when the new one
    is written. Raises ValueError if pieces and model do
    not match, or for a graph, a precision or an activation that there is not.
    """
    check_pieces(pieces, model.vocab_size)
    _check_choices(model, precision, graphs)
    with atomic_folder(output_dir) as folder:
        for name in graphs:
            write = SHORTLISTED.get(name, GRAPHS[name]) if shortlist else GRAPHS[name]
            proto = _model_proto(write(model, ARITHMETIC[precision]), model, precision, info)
            onnx.checker.check_model(proto, full_check=True)
            content = proto.SerializeToString(deterministic=True)
            if packed:
                (folder / f"{name}.onnx{PACKED}").write_bytes(gzip.compress(content, 9, mtime=0))
            else:
                (folder / f"{name}.onnx").write_bytes(content)


def _check_choices(model: Transformer, precision: str, graphs: Sequence[str]) -> None:
    if precision not in ARITHMETIC:
        raise ValueError(f"precision is {precision!r}: choose from {sorted(ARITHMETIC)}")
    if not graphs or not set(graphs) <= set(GRAPHS) or len(set(graphs)) != len(graphs):
        raise ValueError(f"graphs: {list(graphs)}; choose from {sorted(GRAPHS)}, each once")
    if "beam" in graphs and model.decoder_cell != "attention":
        raise ValueError(
            "ONNX Runtime's beam search keeps keys and values, and a recurrent decoder has none: "
            "leave the graph beam out"
        )
    heads = {many for layer in model.decoder_sizes for many in (layer.heads, layer.cross_heads)}
    if "beam" in graphs and heads != {model.heads}:
        raise ValueError(
            "ONNX Runtime's beam search takes decoder layers with all their heads alone: leave the "
            "graph beam out"
        )
    used = {module.activation for module in model.modules() if isinstance(module, FeedForward)}
    if not used <= set(ACTIVATIONS):
        raise ValueError(f"activations are {sorted(used)}: only {sorted(ACTIVATIONS)} are written")


def _model_proto(
    graph: GraphProto, model: Transformer, stored: StoredPrecision, info: OnnxModelInfo
) -> ModelProto:
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain == DOMAIN for node in graph.node):
        opsets.append(helper.make_opsetid(DOMAIN, 1))
    proto = helper.make_model(
        graph,
        producer_name="quickstudy",
        opset_imports=opsets,
        ir_version=IR_VERSION,
    )
    helper.set_model_props(proto, _metadata(model, stored, info))
    return proto


def _metadata(model: Transformer, stored: StoredPrecision, info: OnnxModelInfo) -> dict[str, str]:
    """Keys and values that travel in the file. Lengths are in tokens, EOS counted."""
    special = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
    tokens = {
        name: {"id": index, "piece": SPECIAL_PIECES[index]} for name, index in special.items()
    }
    own = model.source_embedding
    return {
        "format": "quickstudy-onnx",
        "format_version": str(FORMAT_VERSION),
        "name": info.name,
        "source_lang": info.source_lang,
        "target_lang": info.target_lang,
        "precision": stored,
        "vocab_size": str(model.vocab_size),
        "special_tokens": json.dumps(tokens),
        "max_source_length": str(model.max_length),
        "max_target_length": str(model.max_length - 1),
        **({} if own is None else {"source_vocab_size": str(own.num_embeddings)}),
    }

"""Beam search as one ONNX graph, around ONNX Runtime's own operator `com.microsoft::BeamSearch`.

The operator runs two graphs with inputs and outputs of fixed names, as for T5: the encoder with the
first decoder step, and a decoder step. Both are the ones of greedy decoding; ids are int32, and
keys have the length before the width.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BeamSearch

Shapes: B batch (in the step, batch × beam), S source length, T steps so far, V vocabulary, D width,
H heads.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto

from export.onnx.builder import Dims, Graph, value
from export.onnx.decoder import Decoder, Past
from export.onnx.encoder import HIDDEN, EncodedSource, encode
from export.onnx.layers import positions
from export.onnx.linear import MakeArithmetic
from training.model import BOS, EOS, PAD, Transformer

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
    outputs = [
        _named(graph, graph.op("Unsqueeze", logits, graph.ints(1)), _logits_value(model)),
        # Nothing reads it, but the operator wants it there.
        _named(graph, source.mask, value("encoder_hidden_states", "float32", ["B", 1, 1, "S"])),
        *_present(graph, past, _cache(model, "present", "self", "T + 1")),
        *_present(graph, Past(source.keys, source.values), _cache(model, "present", "cross", "S")),
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
    keys, values = _past(graph, memory)
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
    logits, past = decoder.step(graph, last, position, source, Past(*_past(graph, before)))
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


def _past(graph: Graph, cache: list[ValueInfoProto]) -> tuple[list[str], list[str]]:
    """Keys [B, H, D / H, length] and values of a cache."""
    keys = [graph.op("Transpose", one.name, perm=[0, 1, 3, 2]) for one in cache[::2]]
    return keys, [one.name for one in cache[1::2]]


def _present(graph: Graph, past: Past, cache: list[ValueInfoProto]) -> list[ValueInfoProto]:
    """Give keys and values the names of a cache."""
    for index, (key, kept) in enumerate(zip(past.keys, past.values, strict=True)):
        turned = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        graph.rename(turned, cache[2 * index].name)
        graph.rename(kept, cache[2 * index + 1].name)
    return cache


def _named(graph: Graph, name: str, output: ValueInfoProto) -> ValueInfoProto:
    graph.rename(name, output.name)
    return output

"""Our Transformer as ONNX models, in float32 or with 7-bit weights.

`greedy.onnx` is the whole of greedy decoding in one graph: token ids in, token ids out, on any ONNX
Runtime. `encoder.onnx` and `step.onnx` are its parts, for those who drive decoding themselves;
`beam.onnx` is beam search, by an operator that ONNX Runtime alone has. The graphs are written node
by node (`export/onnx/graphs.py`), so the same model gives the same bytes. docs/bundle.md says what
goes in and comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from onnx import GraphProto, ModelProto, helper

from export.onnx.beam import DOMAIN, beam_graph
from export.onnx.graphs import encoder_graph, greedy_graph, step_graph
from export.onnx.layers import ACTIVATIONS
from export.onnx.linear import ARITHMETIC, MakeArithmetic
from export.to_ctranslate2 import SPECIAL_PIECES, check_pieces
from training.atomic import atomic_folder
from training.model import BOS, EOS, PAD, UNK, FeedForward, Transformer

FORMAT_VERSION = 1
OPSET = 21
IR_VERSION = 10
STORED = {"float32": "float32", "int8": "int8-7bit"}
"""Precisions as the manifest names them."""

GraphName = Literal["greedy", "encoder", "step", "beam"]
GRAPHS: dict[str, Callable[[Transformer, MakeArithmetic], GraphProto]] = {
    "greedy": greedy_graph,
    "encoder": encoder_graph,
    "step": step_graph,
    "beam": beam_graph,
}


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
    precision: Literal["float32", "int8"],
    info: OnnxModelInfo,
    graphs: Sequence[GraphName] = ("greedy",),
) -> None:
    """Write `<graph>.onnx` for each of `graphs` to a folder.

    `pieces` are the SentencePiece pieces in the order of their ids, the special ones first. "int8"
    stores weight matrices and embeddings in 7 bits, one scale a row. A former folder is replaced
    only when the new one is written. Raises ValueError if pieces and model do not match, or for a
    graph, a precision or an activation that there is not.
    """
    check_pieces(pieces, model.vocab_size)
    _check_choices(model, precision, graphs)
    with atomic_folder(output_dir) as folder:
        for name in graphs:
            proto = _model_proto(GRAPHS[name](model, ARITHMETIC[precision]), model, precision, info)
            onnx.checker.check_model(proto, full_check=True)
            (folder / f"{name}.onnx").write_bytes(proto.SerializeToString(deterministic=True))


def _check_choices(model: Transformer, precision: str, graphs: Sequence[str]) -> None:
    if precision not in ARITHMETIC:
        raise ValueError(f"precision is {precision!r}: choose from {sorted(ARITHMETIC)}")
    if not graphs or not set(graphs) <= set(GRAPHS) or len(set(graphs)) != len(graphs):
        raise ValueError(f"graphs: {list(graphs)}; choose from {sorted(GRAPHS)}, each once")
    used = {module.activation for module in model.modules() if isinstance(module, FeedForward)}
    if not used <= set(ACTIVATIONS):
        raise ValueError(f"activations are {sorted(used)}: only {sorted(ACTIVATIONS)} are written")


def _model_proto(
    graph: GraphProto, model: Transformer, precision: str, info: OnnxModelInfo
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
    helper.set_model_props(proto, _metadata(model, precision, info))
    return proto


def _metadata(model: Transformer, precision: str, info: OnnxModelInfo) -> dict[str, str]:
    """Keys and values that travel in the file. Lengths are in tokens, EOS counted."""
    special = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
    tokens = {
        name: {"id": index, "piece": SPECIAL_PIECES[index]} for name, index in special.items()
    }
    return {
        "format": "quickstudy-onnx",
        "format_version": str(FORMAT_VERSION),
        "name": info.name,
        "source_lang": info.source_lang,
        "target_lang": info.target_lang,
        "precision": STORED[precision],
        "vocab_size": str(model.vocab_size),
        "special_tokens": json.dumps(tokens),
        "max_source_length": str(model.max_length),
        "max_target_length": str(model.max_length - 1),
    }

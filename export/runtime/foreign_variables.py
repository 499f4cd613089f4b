"""Check the variables of any Transformer that CTranslate2 4.8 translates with, whoever wrote it.

CTranslate2 checks neither that shapes fit each other nor that an index lies inside of its array, so
a folder of a stranger's is opened only if every variable has a name listed here, and the shape that
width, heads, layers and vocabularies ask for. What is not listed (rotary positions, grouped heads,
T5's position buckets, other quantisations …) is refused with its name.

Binary versions 4 to 6 and revisions 3 to 7 of `TransformerSpec` are read: CTranslate2 1.20 to 4.8.
Up to revision 4, heads, norms and activation are scalars of the whole model, then of each side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.ctranslate2_format import (
    SCALE,
    SIDES,
    SPEC,
    Shape,
    VariableEntry,
    VariableTable,
    blocks_of,
    layer_count,
    linear_shapes,
    parse_table,
    read_array,
    shape_of,
)
from export.runtime.manifest import Precision

BINARY_VERSIONS = (4, 5, 6)
REVISIONS = range(3, 8)
SCOPED_SINCE = 5
"""Revision from which scalars are those of a side."""
MAX_TOKEN_BYTES = 100
FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32")
PRECISIONS: dict[str, Precision] = {
    "int8": "int8",
    "int16": "int16",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
}
TOKEN_ARRAYS = ("unk_token", "bos_token", "eos_token")
CONFIG_FLAGS = (
    *("with_source_bos", "with_source_eos", "with_target_bos", "user_decoder_start_tokens"),
)
"""What binary versions before 6 say in variables, later ones in config.json."""

Values = dict[str, float]


@dataclass(frozen=True)
class Variables:
    """What the variables of a model say of it.

    `positions`: the longest sequence that a side takes, None where positions have no end.
    `starts_from_zero`: the decoder starts from a zero embedding, as Marian's do. `tokens` and
    `flags`: what binary versions before 6 hold of the configuration.
    """

    precision: Precision
    parameters: int
    positions: dict[str, int | None]
    starts_from_zero: bool
    binary_version: int
    tokens: dict[str, str]
    flags: dict[str, bool]


def check_variables(path: Path, source_size: int, target_size: int) -> Variables:
    """Check a model.bin against the sizes of its vocabularies and say what it is.

    Raises ValueError naming the variable that is unknown, missing, of another shape or type, or
    out of range.
    """
    table = parse_table(path, BINARY_VERSIONS)
    if table.spec != SPEC or table.revision not in REVISIONS:
        raise ValueError(
            f"it is a {table.spec} of revision {table.revision}; "
            f"{SPEC} {REVISIONS[0]} to {REVISIONS[-1]} is read"
        )
    _check_aliases(table)
    entries = table.resolved()
    scalars = _scalar_types(table, entries)
    values = _read_scalars(table, entries, scalars)
    heads = {side: _heads(values, side) for side in SIDES}
    arrays = dict(_arrays(entries, source_size, target_size, heads))
    token_arrays = TOKEN_ARRAYS if table.binary_version < 6 else ()
    for name, entry in entries.items():
        if name not in scalars and name not in token_arrays:
            _check_array(name, entry, entries, arrays)
    if missing := sorted(set(arrays) - set(entries)):
        raise ValueError(f"{', '.join(missing[:3])} is missing")
    precision = _weight_precision(entries)
    _check_ranges(values, entries)
    _check_finite(table)
    return Variables(
        precision=precision,
        parameters=_parameters(table),
        positions={side: _positions(entries, side) for side in SIDES},
        starts_from_zero=values.get("decoder/start_from_zero_embedding", 0) != 0,
        binary_version=table.binary_version,
        tokens=_tokens(table, token_arrays),
        flags={name: values[name] != 0 for name in CONFIG_FLAGS if name in values},
    )


def _check_aliases(table: VariableTable) -> None:
    """Aliases share weights with weights, and other arrays with other arrays."""
    for alias, name in table.aliases.items():
        if alias.endswith(SCALE) or name.endswith(SCALE):
            raise ValueError(f"{alias} stands for {name}: scales follow their weights")
        if alias.endswith("weight") != name.endswith("weight"):
            raise ValueError(f"{alias} stands for {name}, which is of another kind")
        if alias + SCALE in table.entries:
            raise ValueError(f"{alias} stands for {name} and has a scale of its own")


# --- scalars -----------------------------------------------------------------------------------


def _scalar_types(
    table: VariableTable, entries: dict[str, VariableEntry]
) -> dict[str, tuple[str, ...]]:
    """Every scalar that the model may have, with the types that it may be of."""
    flag = ("int8",)
    types: dict[str, tuple[str, ...]] = {}
    if table.revision < SCOPED_SINCE:
        whole = ("num_heads", "activation", "alignment_layer", "alignment_heads")
        flags = ("pre_norm", "embeddings_merge", "with_relative_position", "layernorm_embedding")
        types |= dict.fromkeys(whole, INTEGERS) | dict.fromkeys(flags, flag)
    else:
        for side in SIDES:
            types |= {f"{side}/{name}": INTEGERS for name in ("num_heads", "activation")}
            types[f"{side}/pre_norm"] = flag
        types |= {f"decoder/{name}": INTEGERS for name in ("alignment_layer", "alignment_heads")}
        types |= {f"encoder/{name}": flag for name in ("embeddings_merge", "multi_query_attention")}
        alibi = ("alibi", "alibi_use_positive_positions", "scale_alibi")
        types |= {f"decoder/{name}": flag for name in alibi}
    types["decoder/start_from_zero_embedding"] = flag
    for side in SIDES:
        types[f"{side}/scale_embeddings"] = (*flag, "float32")
        types[f"{_embeddings(entries, side)}/multiply_by_sqrt_depth"] = (*flag, "float32")
    if table.binary_version < 6:
        types |= dict.fromkeys(CONFIG_FLAGS, flag)
    return types


def _read_scalars(
    table: VariableTable, entries: dict[str, VariableEntry], types: dict[str, tuple[str, ...]]
) -> Values:
    values: Values = {}
    with table.path.open("rb") as file:
        for name in types.keys() & entries.keys():
            entry = entries[name]
            if entry.shape or entry.dtype not in types[name]:
                raise ValueError(
                    f"{name} is {entry.dtype} {list(entry.shape)}, a scalar of "
                    f"{' or '.join(types[name])} is needed"
                )
            values[name] = float(read_array(file, entry, table.path))
    return values


def _scalar(values: Values, side: str, name: str) -> float | None:
    return values.get(f"{side}/{name}", values.get(name))


def _heads(values: Values, side: str) -> int:
    heads = _scalar(values, side, "num_heads")
    if heads is None or heads < 1:
        raise ValueError(f"{side}/num_heads is {'missing' if heads is None else int(heads)}")
    return int(heads)


def _check_ranges(values: Values, entries: dict[str, VariableEntry]) -> None:
    """Scalars that choose a layer, a head or a function name one that there is."""
    layers = layer_count(entries, "decoder")
    heads = _heads(values, "decoder")
    bounds = {"alignment_layer": (-layers, layers - 1), "alignment_heads": (0, heads)}
    for name, value in values.items():
        last = name.rsplit("/", 1)[-1]
        if last == "num_heads":
            continue
        if last in ("scale_embeddings", "multiply_by_sqrt_depth"):
            low, high = 0.0, 1e4
        elif last in ("alibi", "multi_query_attention"):
            low, high = 0.0, 0.0
        else:
            low, high = bounds.get(last, (0, 6) if last == "activation" else (0, 1))
        if not low <= value <= high:
            raise ValueError(f"{name} is {value:g}, {low:g} to {high:g} is read")


# --- arrays ------------------------------------------------------------------------------------


def _embeddings(entries: dict[str, VariableEntry], side: str) -> str:
    """The scope of a side's embeddings: older encoders have a single one."""
    plain = f"{side}/embeddings"
    return plain if side == "decoder" or f"{plain}/weight" in entries else f"{plain}_0"


def _arrays(
    entries: dict[str, VariableEntry], source_size: int, target_size: int, heads: dict[str, int]
) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of all arrays: those that a model must have, and those that this one has."""
    width = shape_of(entries, "decoder/embeddings/weight", 2)[1]
    yield from _optional_bias(entries, "decoder/projection", (target_size, width))
    for side, size in zip(SIDES, (source_size, target_size), strict=True):
        if width % heads[side] or width % 2:
            raise ValueError(f"the {side} has {heads[side]} heads for a width of {width}")
        embeddings = f"{_embeddings(entries, side)}/weight"
        rows = shape_of(entries, embeddings, 2)[0]
        if rows != size:
            raise ValueError(f"{embeddings} has {rows} rows, its vocabulary {size} tokens")
        yield embeddings, (size, width)
        encodings = f"{side}/position_encodings/encodings"
        if encodings in entries:
            yield encodings, (shape_of(entries, encodings, 2)[0], width)
        for norm in ("layer_norm", "layernorm_embedding"):
            if f"{side}/{norm}/gamma" in entries:
                yield from _norm(entries, f"{side}/{norm}", width)
        for layer in range(layer_count(entries, side)):
            yield from _layer(entries, f"{side}/layer_{layer}", side, width)
        yield from _relative_positions(entries, side, width // heads[side])


def _layer(
    entries: dict[str, VariableEntry], scope: str, side: str, width: int
) -> Iterator[tuple[str, Shape]]:
    linears = linear_shapes(entries, scope, side, width)
    blocks = blocks_of(side)
    if f"{scope}/ffn/linear_0_noact/weight" in entries:
        linears["ffn/linear_0_noact"] = linears["ffn/linear_0"]
    for name, shape in linears.items():
        yield from _optional_bias(entries, f"{scope}/{name}", shape)
    for block in blocks:
        yield from _norm(entries, f"{scope}/{block}/layer_norm", width)


def _optional_bias(
    entries: dict[str, VariableEntry], scope: str, shape: Shape
) -> Iterator[tuple[str, Shape]]:
    yield f"{scope}/weight", shape
    if f"{scope}/bias" in entries:
        yield f"{scope}/bias", shape[:1]


def _norm(entries: dict[str, VariableEntry], scope: str, width: int) -> Iterator[tuple[str, Shape]]:
    """Without beta, it divides by the root mean square."""
    yield f"{scope}/gamma", (width,)
    if f"{scope}/beta" in entries:
        yield f"{scope}/beta", (width,)


def _relative_positions(
    entries: dict[str, VariableEntry], side: str, head_width: int
) -> Iterator[tuple[str, Shape]]:
    """Keys and values of relative positions (Shaw et al. 2018): in all layers of a side or none."""
    first = f"{side}/layer_0/self_attention/relative_position_keys"
    if first not in entries:
        return
    for layer in range(layer_count(entries, side)):
        scope = f"{side}/layer_{layer}/self_attention"
        rows = shape_of(entries, f"{scope}/relative_position_keys", 2)[0]
        if rows % 2 == 0:
            raise ValueError(f"{scope}/relative_position_keys has {rows} rows, an odd number")
        for name in ("relative_position_keys", "relative_position_values"):
            yield f"{scope}/{name}", (rows, head_width)


def _check_array(
    name: str,
    entry: VariableEntry,
    entries: dict[str, VariableEntry],
    arrays: dict[str, Shape],
) -> None:
    """One array is known, has the shape that it must have, and a type that CTranslate2 converts."""
    owner = name.removesuffix(SCALE)
    types: tuple[str, ...] = FLOATS
    if name in arrays:
        wanted = arrays[name]
        if name.endswith("weight"):
            types = (*FLOATS, "int8", "int16")
            if entry.dtype in FLOATS and name + SCALE in entries:
                raise ValueError(f"{name} is {entry.dtype} and has a scale")
            if entry.dtype == "int8" and name + SCALE not in entries:
                raise ValueError(f"{name}{SCALE} is missing")
    elif name != owner and owner.endswith("weight") and owner in arrays and owner in entries:
        wanted = arrays[owner][:1] if entries[owner].dtype == "int8" else ()
        types = ("float32",)
    else:
        raise ValueError(f"it holds {name}, which is not known")
    if entry.shape != wanted or entry.dtype not in types:
        raise ValueError(
            f"{name} is {entry.dtype} {list(entry.shape)}, {list(wanted)} of "
            f"{' or '.join(types)} is needed"
        )


def _weight_precision(entries: dict[str, VariableEntry]) -> Precision:
    types = {entry.dtype for name, entry in entries.items() if name.endswith("weight")}
    if len(types) != 1:
        raise ValueError(f"its weights are of different types: {', '.join(sorted(types))}")
    return PRECISIONS[types.pop()]


def _positions(entries: dict[str, VariableEntry], side: str) -> int | None:
    if f"{side}/layer_0/self_attention/relative_position_keys" in entries:
        return None
    encodings = entries.get(f"{side}/position_encodings/encodings")
    return encodings.shape[0] if encodings else None


def _parameters(table: VariableTable) -> int:
    return sum(
        math.prod(entry.shape)
        for name, entry in table.entries.items()
        if entry.shape and not name.endswith(SCALE) and name not in TOKEN_ARRAYS
    )


def _check_finite(table: VariableTable) -> None:
    """Every float is finite, and every scale above zero; an array at a time is in memory."""
    with table.path.open("rb") as file:
        for name, entry in table.entries.items():
            if entry.dtype not in FLOATS:
                continue
            array: NDArray[Any] = read_array(file, entry, table.path)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
            if name.endswith(SCALE) and not (array > 0).all():
                raise ValueError(f"{name} holds scales that are not positive")


def _tokens(table: VariableTable, names: tuple[str, ...]) -> dict[str, str]:
    tokens = {}
    with table.path.open("rb") as file:
        for name in names:
            entry = table.entries.get(name)
            if entry is None:
                continue
            if entry.dtype != "int8" or len(entry.shape) != 1 or entry.shape[0] > MAX_TOKEN_BYTES:
                raise ValueError(f"{name} is {entry.dtype} {list(entry.shape)}, a token is needed")
            tokens[name] = read_array(file, entry, table.path).tobytes().decode("utf-8")
    return tokens

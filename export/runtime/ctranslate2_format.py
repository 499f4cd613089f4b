"""Check that a CTranslate2 folder is a model that our export writes, without CTranslate2 or torch.

CTranslate2 4.8 checks that each variable is as long as its shape, but not that shapes fit each
other: an embedding of one row ends the process, a matrix of another shape is read beyond its end.
So a folder is loaded only if it holds the variables that `export.ctranslate2` writes, each of the
shape that vocabulary, width and layers ask for.

`read_table` holds every number in model.bin against the size of the file before anything is loaded,
so no file asks for more memory than it has bytes. The layout is that of `ModelSpec._serialize` in
ctranslate2/specs/model_spec.py, little-endian:

```
uint32 version, string spec, uint32 revision
uint32 count, each: string name, uint8 rank, uint32 dimensions…, uint8 dtype, uint32 bytes, data
uint32 count, each: string alias, string name
string: uint16 length with the final NUL, UTF-8, NUL
```
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from export.runtime.bundle import list_files, read_small
from export.runtime.manifest import MAX_TOKENIZER_BYTES, BundleError, SpecialTokens, strict_json

# --- model.bin ---------------------------------------------------------------------------------


BINARY_VERSION = 6
MAX_VARIABLES = 100_000
MAX_RANK = 4
MAX_NAME_BYTES = 255
BFLOAT16 = "bfloat16"
DTYPES = ("float32", "int8", "int16", "int32", "float16", BFLOAT16)
"""By their number in the file (`DataType` in ctranslate2/types.h)."""
ITEM_BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, BFLOAT16: 2}
SCALE = "_scale"


@dataclass(frozen=True)
class VariableEntry:
    """Where a variable's data lies in the file, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class VariableTable:
    """What a model.bin declares: its specification, variables by name, aliases of them."""

    path: Path
    spec: str
    revision: int
    entries: dict[str, VariableEntry]
    aliases: dict[str, str]
    binary_version: int

    def resolved(self) -> dict[str, VariableEntry]:
        """Variables by every name, aliases included; an alias of a weight brings its scale."""
        found = dict(self.entries)
        for alias, name in self.aliases.items():
            found[alias] = self.entries[name]
            if name + SCALE in self.entries:
                found.setdefault(alias + SCALE, self.entries[name + SCALE])
        return found


def read_table(path: Path) -> VariableTable:
    """Names, shapes and places of a model.bin's variables; the weights are not read.

    Raises BundleError if the file is not whole, or says anything that does not fit its size.
    """
    try:
        return parse_table(path, (BINARY_VERSION,))
    except ValueError as error:
        raise BundleError(
            f"{path} is not a CTranslate2 model ({error}): export the bundle again"
        ) from error


def parse_table(path: Path, binary_versions: Sequence[int]) -> VariableTable:
    """As `read_table`, of a model.bin of one of those versions; raises ValueError instead."""
    with Path(path).open("rb") as file:
        try:
            return _Parser(file, Path(path), binary_versions).table()
        except struct.error as error:
            raise ValueError(str(error)) from error


def read_variables(path: Path) -> dict[str, NDArray[Any]]:
    """Every variable of a model.bin by name, aliases resolved, as read-only arrays.

    Arrays share memory where names share a variable. bfloat16 comes as float32. Integers stay
    as they are: see `dequantized`. Raises BundleError as `read_table` does.
    """
    table = read_table(path)
    arrays: dict[VariableEntry, NDArray[Any]] = {}
    with Path(path).open("rb") as file:
        for entry in table.entries.values():
            arrays[entry] = read_array(file, entry, table.path)
    return {name: arrays[entry] for name, entry in table.resolved().items()}


def dequantized(variables: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Variables with every int8 weight [rows, columns] as float32: w = q / scale [rows].

    The scales are left out; everything else stays as it is. Raises BundleError where a scale
    does not fit its weight.
    """
    found = {}
    for name, array in variables.items():
        scale = variables.get(name + SCALE)
        if scale is not None:
            if array.ndim != 2 or scale.shape != array.shape[:1]:
                raise BundleError(
                    f"{name} is {list(array.shape)} and its scale {list(scale.shape)}, one a row "
                    "is needed: export the bundle again"
                )
            found[name] = array.astype(np.float32) / scale[:, None]
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in variables):
            found[name] = array
    return found


def read_array(file: BinaryIO, entry: VariableEntry, path: Path) -> NDArray[Any]:
    """One variable of an open model.bin, read-only; bfloat16 comes as float32."""
    stored = "<u2" if entry.dtype == BFLOAT16 else np.dtype(entry.dtype).newbyteorder("<")
    count = math.prod(entry.shape)
    file.seek(entry.offset)
    array = np.fromfile(file, stored, count)
    if len(array) != count:
        raise BundleError(f"{path} was cut off while it was read: copy or export the bundle again")
    if entry.dtype == BFLOAT16:
        array = (array.astype("<u4") << 16).view("<f4")
    array = array.reshape(entry.shape)
    array.flags.writeable = False
    return array


class _Parser:
    """One pass over the file; every number is held against the bytes that are left."""

    def __init__(self, file: BinaryIO, path: Path, binary_versions: Sequence[int]) -> None:
        self._file = file
        self._path = path
        self._binary_versions = binary_versions
        self._size = os.fstat(file.fileno()).st_size

    def table(self) -> VariableTable:
        version = self._number("I")
        if version not in self._binary_versions:
            read = ", ".join(map(str, self._binary_versions))
            raise ValueError(f"binary version {version}, {read} is read")
        spec, revision = self._string(), self._number("I")
        entries: dict[str, VariableEntry] = {}
        for _ in range(self._count()):
            name = self._string()
            if name in entries:
                raise ValueError(f"{name!r} comes twice")
            entries[name] = self._entry(name)
        aliases: dict[str, str] = {}
        for _ in range(self._count()):
            alias, name = self._string(), self._string()
            if alias in entries or alias in aliases:
                raise ValueError(f"{alias!r} comes twice")
            if name not in entries:
                raise ValueError(f"{alias!r} stands for {name!r}, which is missing")
            aliases[alias] = name
        if self._file.tell() != self._size:
            raise ValueError(f"{self._size - self._file.tell()} bytes too many at its end")
        return VariableTable(self._path, spec, revision, entries, aliases, version)

    def _entry(self, name: str) -> VariableEntry:
        rank = self._number("B")
        if rank > MAX_RANK:
            raise ValueError(f"{name!r} has {rank} dimensions, {MAX_RANK} at most")
        shape = tuple(self._number("I") for _ in range(rank))
        type_id, declared = self._number("B"), self._number("I")
        if type_id >= len(DTYPES):
            raise ValueError(f"{name!r} has type {type_id}, which is unknown")
        dtype = DTYPES[type_id]
        needed = math.prod(shape) * ITEM_BYTES[dtype]
        if not needed or needed != declared:
            raise ValueError(
                f"{name!r} is {dtype} {list(shape)}, so {needed} bytes, but declares {declared}"
            )
        offset = self._file.tell()
        if declared > self._size - offset:
            raise ValueError(f"{name!r} is cut off")
        self._file.seek(declared, os.SEEK_CUR)
        return VariableEntry(dtype, shape, offset)

    def _count(self) -> int:
        count = self._number("I")
        if count > MAX_VARIABLES:
            raise ValueError(f"{count} variables, {MAX_VARIABLES} at most")
        return count

    def _string(self) -> str:
        length = self._number("H")
        if not 1 < length <= MAX_NAME_BYTES + 1:
            raise ValueError(f"a name of {length} bytes, 1 to {MAX_NAME_BYTES} are read")
        text = self._file.read(length)
        if len(text) != length or text[-1] or 0 in text[:-1]:
            raise ValueError("a name does not end with its NUL")
        return text[:-1].decode("ascii")

    def _number(self, kind: str) -> int:
        size = struct.calcsize("<" + kind)
        value: int = struct.unpack("<" + kind, self._file.read(size))[0]
        return value


MODEL_FILE, CONFIG_FILE, VOCABULARY_FILE = "model.bin", "config.json", "shared_vocabulary.json"
# --- what our export writes --------------------------------------------------------------------


TENSOR_NAMES = {
    "attention_norm": "self_attention/layer_norm",
    "attention.qkv": "self_attention/linear_0",
    "attention.out": "self_attention/linear_1",
    "cross_norm": "attention/layer_norm",
    "cross.query": "attention/linear_0",
    "cross.kv": "attention/linear_1",
    "cross.out": "attention/linear_2",
    "ffn_norm": "ffn/layer_norm",
    "ffn.inner": "ffn/linear_0",
    "ffn.outer": "ffn/linear_1",
}
"""Parts of our layers in the variables of CTranslate2's."""
SHORTLIST_FILE = "vmap.txt"
SPEC, REVISION = "TransformerSpec", 7
MAX_LAYERS = 256
SIDES = ("encoder", "decoder")
ACTIVATIONS = {0: "relu", 2: "silu", 3: "gelu"}
"""By their number in the file (`ActivationType` of CTranslate2)."""
FIXED = {
    "decoder/alibi": 0,
    "decoder/alibi_use_positive_positions": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
    "decoder/pre_norm": 1,
    "decoder/scale_alibi": 0,
    "decoder/scale_embeddings": 1,
    "decoder/start_from_zero_embedding": 0,
    "encoder/embeddings_merge": 0,
    "encoder/multi_query_attention": 0,
    "encoder/pre_norm": 1,
    "encoder/scale_embeddings": 1,
}
"""Scalars that are the same in all our models."""
SCALARS = {*FIXED, *(f"{s}/{name}" for s in SIDES for name in ("activation", "num_heads"))}

Shape = tuple[int, ...]


def check_ctranslate2(
    folder: Path, pieces: Sequence[str], tokens: SpecialTokens, positions: int
) -> None:
    """Raise BundleError unless CTranslate2 can load `folder` without surprises.

    `pieces` are the tokenizer's, in the order of their ids; the model must have room for
    `positions` tokens, `</s>` counted.
    """
    try:
        files = set(list_files(folder))
        _check_files(files)
        _check_config(strict_json(read_small(folder / CONFIG_FILE, 1 << 16)), tokens)
        data = read_small(folder / VOCABULARY_FILE, MAX_TOKENIZER_BYTES)
        _check_vocabulary(strict_json(data), pieces)
        _check_variables(folder / MODEL_FILE, len(pieces), positions)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder} is not a model of this bundle ({error}): export the bundle again"
        ) from error


def _check_files(found: set[str]) -> None:
    needed = {MODEL_FILE, CONFIG_FILE, VOCABULARY_FILE}
    if missing := sorted(needed - found):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if extra := sorted(found - needed - {SHORTLIST_FILE}):
        raise ValueError(f"it holds {', '.join(extra[:5])}, which no export writes")


def _check_config(config: Any, tokens: SpecialTokens) -> None:
    wanted = {
        "add_source_bos": False,
        "add_source_eos": True,
        "bos_token": tokens.bos,
        "decoder_start_token": tokens.bos,
        "eos_token": tokens.eos,
        "multi_query_attention": False,
        "unk_token": tokens.unk,
    }
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG_FILE} is not a JSON object")
    epsilon = config.get("layer_norm_epsilon")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ValueError(f"{CONFIG_FILE}: layer_norm_epsilon must be between 0 and 1")
    if {key: value for key, value in config.items() if key != "layer_norm_epsilon"} != wanted:
        raise ValueError(f"{CONFIG_FILE} must say {wanted} and layer_norm_epsilon, no more")


def _check_vocabulary(found: Any, pieces: Sequence[str]) -> None:
    if not isinstance(found, list) or len(found) != len(pieces):
        size = len(found) if isinstance(found, list) else "no list of"
        raise ValueError(
            f"{VOCABULARY_FILE} has {size} pieces, the tokenizer and manifest {len(pieces)}"
        )
    for index, (one, piece) in enumerate(zip(found, pieces, strict=True)):
        if one != piece:
            raise ValueError(
                f"{VOCABULARY_FILE}: piece {index} is {str(one)[:100]!r}, "
                f"the tokenizer's {piece[:100]!r}"
            )


def _check_variables(path: Path, vocab_size: int, positions: int) -> None:
    table = read_table(path)
    if (table.spec, table.revision) != (SPEC, REVISION):
        raise ValueError(f"{MODEL_FILE} is a {table.spec} {table.revision}, not {SPEC} {REVISION}")
    entries = table.resolved()
    expected = dict(_expected(entries, vocab_size, positions))
    if missing := sorted((set(expected) | SCALARS) - set(entries)):
        raise ValueError(f"{MODEL_FILE} lacks {', '.join(missing[:3])}")
    for name, entry in entries.items():
        _check_entry(name, entry, entries, expected)
    variables = read_variables(path)
    _check_scalars(variables, expected["decoder/layer_norm/gamma"][0])
    _check_values(variables)


def _check_entry(
    name: str, entry: VariableEntry, entries: dict[str, VariableEntry], expected: dict[str, Shape]
) -> None:
    """One variable has the shape and type that it must have."""
    owner = name.removesuffix(SCALE)
    if name in SCALARS:
        fits = entry.shape == () and entry.dtype in ("int8", "int16")
    elif name in expected:
        quantised = name.endswith("weight") and name + SCALE in entries
        dtype = "int8" if quantised else "float32"
        fits = entry.shape == expected[name] and entry.dtype == dtype
    elif name != owner and owner.endswith("weight") and owner in expected:
        fits = entry.shape == expected[owner][:1] and entry.dtype == "float32"
    else:
        raise ValueError(f"{MODEL_FILE} holds {name}, which no export writes")
    if not fits:
        wanted = expected.get(name, ())
        raise ValueError(
            f"{MODEL_FILE}: {name} is {entry.dtype} {list(entry.shape)}"
            + (f", the shape must be {list(wanted)}" if wanted else "")
        )


def _check_scalars(variables: dict[str, NDArray[Any]], width: int) -> None:
    for name, value in FIXED.items():
        if variables[name] != value:
            raise ValueError(f"{MODEL_FILE}: {name} is {variables[name]}, it must be {value}")
    for side in SIDES:
        heads = int(variables[f"{side}/num_heads"])
        if heads < 1 or width % heads:
            raise ValueError(f"{MODEL_FILE}: the {side} has {heads} heads for a width of {width}")
        if int(variables[f"{side}/activation"]) not in ACTIVATIONS:
            raise ValueError(f"{MODEL_FILE}: {side}/activation is none of {ACTIVATIONS}")


def _check_values(variables: dict[str, NDArray[Any]]) -> None:
    for name, array in variables.items():
        if array.dtype == np.float32:
            if not np.isfinite(array).all():
                raise ValueError(f"{MODEL_FILE}: {name} holds values that are not finite")
            if name.endswith("weight" + SCALE) and not (array > 0).all():
                raise ValueError(f"{MODEL_FILE}: {name} holds scales that are not positive")


def _expected(
    entries: dict[str, VariableEntry], vocab_size: int, positions: int
) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of all arrays of a model with the width and layers that it has."""
    embedding = shape_of(entries, "decoder/embeddings/weight", 2)
    width = embedding[1]
    for name in ("decoder/embeddings", "decoder/projection", "encoder/embeddings_0"):
        yield f"{name}/weight", (vocab_size, width)
    yield "decoder/projection/bias", (vocab_size,)
    for side in SIDES:
        encodings = f"{side}/position_encodings/encodings"
        room = shape_of(entries, encodings, 2)[0]
        if room < positions:
            raise ValueError(f"{encodings} has room for {room} tokens, {positions} are needed")
        yield encodings, (room, width)
        yield from _norm(f"{side}/layer_norm", width)
        for layer in range(layer_count(entries, side)):
            yield from _layer(entries, f"{side}/layer_{layer}", side, width)


def linear_shapes(
    entries: dict[str, VariableEntry], scope: str, side: str, width: int
) -> dict[str, Shape]:
    """Names and shapes of the weights of a layer's linear layers, as every Transformer has them.

    Raises ValueError where the layer has no feed-forward weight.
    """
    hidden = shape_of(entries, f"{scope}/ffn/linear_0/weight", 2)[0]
    shapes: dict[str, Shape] = {
        "self_attention/linear_0": (3 * width, width),
        "self_attention/linear_1": (width, width),
        "ffn/linear_0": (hidden, width),
        "ffn/linear_1": (width, hidden),
    }
    if side == "decoder":
        shapes["attention/linear_0"] = (width, width)
        shapes["attention/linear_1"] = (2 * width, width)
        shapes["attention/linear_2"] = (width, width)
    return shapes


def blocks_of(side: str) -> list[str]:
    """The blocks of a layer that have a layer norm."""
    return ["self_attention", "ffn", *(["attention"] if side == "decoder" else [])]


def _layer(
    entries: dict[str, VariableEntry], scope: str, side: str, width: int
) -> Iterator[tuple[str, Shape]]:
    for name, shape in linear_shapes(entries, scope, side, width).items():
        yield f"{scope}/{name}/weight", shape
        yield f"{scope}/{name}/bias", shape[:1]
    for name in blocks_of(side):
        yield from _norm(f"{scope}/{name}/layer_norm", width)


def _norm(scope: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{scope}/gamma", (width,)
    yield f"{scope}/beta", (width,)


def layer_count(entries: dict[str, VariableEntry], side: str) -> int:
    """Layers of the encoder or decoder. Raises ValueError for none or over MAX_LAYERS."""
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in entries:
        count += 1
    if not 1 <= count <= MAX_LAYERS:
        raise ValueError(f"{MODEL_FILE}: the {side} has {count} layers, 1 to {MAX_LAYERS} are read")
    return count


def shape_of(entries: dict[str, VariableEntry], name: str, rank: int) -> Shape:
    """Shape of a variable. Raises ValueError where it is missing or of another rank."""
    entry = entries.get(name)
    if entry is None or len(entry.shape) != rank:
        raise ValueError(f"{MODEL_FILE} has no {name} of {rank} dimensions")
    return entry.shape

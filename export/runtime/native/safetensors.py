"""`native.safetensors`: the weights of a model for the compiled engine.

uint64 length of the header, the header in JSON, then the arrays. Each has a type, a shape and the
place of its bytes; the model's dimensions are in the header's metadata. A weight `name` [rows,
columns] is I8 and comes with `name.steps` F32 [rows]. Layout: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.bundle import read_small
from export.runtime.manifest import strict_json
from export.runtime.native.weights import LayerDims, NativeDims, NativeSource, Quantised

MAX_BYTES = 4 << 30
MAX_HEADER_BYTES = 16 << 20
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I8": np.dtype("<i1")}
STEPS = ".steps"
FORMAT = "quickstudy-native-1"
CUT_FORMAT = "quickstudy-native-2"
"""Of a model whose layers differ, with their sizes."""
LENGTH = struct.Struct("<Q")
SIZES = "sizes"
FROM_CALL = "shortlisted"
"""The manifest says this of an engine, not its file."""

Arrays = dict[str, NDArray[Any]]


def write_native(path: Path, dims: NativeDims, arrays: Arrays) -> None:
    """Write the file; arrays are float32 or int8."""
    header: dict[str, Any] = {
        "__metadata__": {
            "format": CUT_FORMAT if dims.sizes else FORMAT,
            **_metadata(dims),
        }
    }
    place = 0
    for name, array in arrays.items():
        dtype = next(one for one, known in DTYPES.items() if known == array.dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(LENGTH.pack(len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_native(path: Path, *, shortlisted: bool) -> NativeSource:
    """Read the file. Raises ValueError where it is not whole or says what does not fit it."""
    data = read_small(path, MAX_BYTES)
    header = _header(data)
    metadata = header.pop("__metadata__", None)
    arrays = {name: _array(name, entry, data) for name, entry in header.items()}
    dims = _dims(metadata, shortlisted)
    return NativeSource(
        dims,
        quantised=lambda name: Quantised(_get(arrays, name), _get(arrays, name + STEPS)),
        floats=lambda name: _get(arrays, name),
    )


def _metadata(dims: NativeDims) -> dict[str, str]:
    """`sizes` stand there where layers differ."""
    values = {**asdict(dims), SIZES: dims.sizes}
    return {
        name: json.dumps(value)
        for name, value in values.items()
        if name != FROM_CALL and (name != SIZES or value)
    }


def _header(data: bytes) -> dict[str, Any]:
    if len(data) < LENGTH.size:
        raise ValueError("it is empty")
    length = LENGTH.unpack_from(data)[0]
    if length > min(MAX_HEADER_BYTES, len(data) - LENGTH.size):
        raise ValueError(f"its header has {length} bytes")
    header = strict_json(data[LENGTH.size : LENGTH.size + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _array(name: str, entry: Any, data: bytes) -> NDArray[Any]:
    """One array; its bytes must lie in the file and be as many as its shape asks for."""
    start = LENGTH.size + LENGTH.unpack_from(data)[0]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:100]!r} is not described as an array")
    dtype = DTYPES.get(str(entry["dtype"]))
    shape, offsets = entry["shape"], entry["data_offsets"]
    if dtype is None or not _are_counts(shape, 4) or not _are_counts(offsets, 2):
        raise ValueError(f"{name[:100]!r} is not described as an array")
    count = math.prod(shape)
    if len(offsets) != 2 or count * dtype.itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{name[:100]!r} has other bytes than its shape {shape}")
    if start + offsets[1] > len(data):
        raise ValueError(f"{name[:100]!r} is cut off")
    array = np.frombuffer(memoryview(data)[start + offsets[0] : start + offsets[1]], dtype)
    return array.reshape(shape)


def _are_counts(numbers: Any, most: int) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) <= most
        and all(type(number) is int and 0 <= number <= MAX_BYTES for number in numbers)
    )


def _dims(metadata: Any, shortlisted: bool) -> NativeDims:
    known = {FORMAT: [], CUT_FORMAT: [SIZES]}
    if not isinstance(metadata, dict) or (needed := known.get(str(metadata.get("format")))) is None:
        raise ValueError(f"it is none of {', '.join(known)}")
    if [SIZES] * (SIZES in metadata) != needed:
        raise ValueError(f"it is {metadata['format']} and has {'' if needed == [] else 'no '}sizes")
    values: dict[str, Any] = {}
    types = {"str": str, "bool": bool, "int": int, "float": float}
    for field in fields(NativeDims):
        if field.name in (FROM_CALL, SIZES):
            continue
        value = strict_json(str(metadata.get(field.name)).encode("utf-8"))
        if type(value) is not types[str(field.type)]:
            raise ValueError(f"its {field.name} is {str(value)[:30]!r}")
        values[field.name] = value
    sizes = _sizes(strict_json(str(metadata.get(SIZES, "[]")).encode("utf-8")))
    return NativeDims(**values, shortlisted=shortlisted, sizes=sizes)


def _sizes(value: Any) -> tuple[LayerDims, ...]:
    """Heads, heads of cross-attention and units of each layer."""
    if not isinstance(value, list) or not all(
        _are_counts(one, 3) and len(one) == 3 for one in value
    ):
        raise ValueError(f"its sizes are {str(value)[:30]!r}")
    return tuple(LayerDims(*one) for one in value)


def _get(arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"it lacks {name}")
    return arrays[name]

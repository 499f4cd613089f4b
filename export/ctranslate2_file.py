"""CTranslate2's model.bin, read without CTranslate2; no torch.

`read_table` holds every number against the size of the file before anything is loaded, so that no
file asks for more memory than it has bytes. The layout is that of `ModelSpec._serialize` in
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError

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
    with Path(path).open("rb") as file:
        try:
            return _Parser(file, Path(path)).table()
        except (ValueError, struct.error) as error:
            raise BundleError(
                f"{path} is not a CTranslate2 model ({error}): export the bundle again"
            ) from error


def read_variables(path: Path) -> dict[str, NDArray[Any]]:
    """Every variable of a model.bin by name, aliases resolved, as read-only arrays.

    Arrays share memory where names share a variable. bfloat16 comes as float32. Integers stay
    as they are: see `dequantized`. Raises BundleError as `read_table` does.
    """
    table = read_table(path)
    arrays: dict[VariableEntry, NDArray[Any]] = {}
    with Path(path).open("rb") as file:
        for entry in table.entries.values():
            arrays[entry] = _read_array(file, entry, table.path)
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


def _read_array(file: BinaryIO, entry: VariableEntry, path: Path) -> NDArray[Any]:
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

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._size = os.fstat(file.fileno()).st_size

    def table(self) -> VariableTable:
        version = self._number("I")
        if version != BINARY_VERSION:
            raise ValueError(f"binary version {version}, {BINARY_VERSION} is read")
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
        return VariableTable(self._path, spec, revision, entries, aliases)

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

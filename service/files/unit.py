"""What a reader of files makes of one: texts to translate, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.text import Format

MAX_UNIT_CHARS = 50_000
"""Characters of a text with its markup. The service reads it while it answers others, and much of
that goes on without a break."""


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
    longest = max((len(unit.text) for unit in units), default=0)
    if longest > MAX_UNIT_CHARS:
        raise FileError(
            f"a paragraph of the file has {longest:,} characters with its markup, at most "
            f"{MAX_UNIT_CHARS:,} are possible; part it"
        )

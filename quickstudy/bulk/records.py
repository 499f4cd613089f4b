"""Lines of a file as texts to translate: the lines themselves, or a field of JSON objects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

from quickstudy.errors import QuickstudyError

LINES = re.compile("[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
"""Lines with their ends, which are those of Python's text files."""
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """A text to translate, None where there is none; the line or object that it stands in, and how
    its line ends."""

    text: str | None
    kept: Any
    end: str = "\n"


class RecordFormat(Protocol):
    """How texts stand in lines."""

    def parse(self, line: str, place: str) -> Record:
        """The text of a line. Raises QuickstudyError, which names the `place`."""

    def render(self, record: Record, translation: str) -> str:
        """The line that holds the translation; no translation counts where there is no text."""


def read_record(format: RecordFormat, line: str, place: str) -> Record:
    """The record of a line with its end; a last line without one gets one. Raises
    QuickstudyError, which names the `place`."""
    content = line.rstrip("\r\n")
    return replace(format.parse(content, place), end=line[len(content) :] or "\n")


class TextLines:
    """Plain text: each line is a text."""

    def parse(self, line: str, place: str) -> Record:
        return Record(line, None)

    def render(self, record: Record, translation: str) -> str:
        return translation


@dataclass(frozen=True)
class JsonLines:
    """JSONL: the string of a field is the text, its translation becomes another field.

    Blank lines and objects whose field is null stay as they are.
    """

    field: str
    output_field: str

    def parse(self, line: str, place: str) -> Record:
        if not line or line.isspace():
            return Record(None, line)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QuickstudyError(f"{place} is not JSON: {error}") from None
        if not isinstance(record, dict) or self.field not in record:
            fields = ", ".join(record) if isinstance(record, dict) else "it is no object"
            raise QuickstudyError(
                f"{place} has no field {self.field!r} ({fields}): name the text's by --field"
            )
        text = record[self.field]
        if text is not None and not isinstance(text, str):
            kind = type(text).__name__
            raise QuickstudyError(f"{place}: {self.field!r} is of type {kind}, not a string")
        if text is not None and SURROGATE.search(text):
            raise QuickstudyError(f"{place}: {self.field!r} has half of a surrogate pair")
        if self.output_field != self.field and self.output_field in record:
            raise QuickstudyError(
                f"{place} has a field {self.output_field!r} already: choose another --output-field"
            )
        return Record(text, record)

    def render(self, record: Record, translation: str) -> str:
        if isinstance(record.kept, str):
            return record.kept
        value = None if record.text is None else translation
        translated = record.kept | {self.output_field: value}
        line = json.dumps(translated, ensure_ascii=False)
        # Half of a surrogate pair in another field can only be written as an escape.
        return json.dumps(translated) if SURROGATE.search(line) else line

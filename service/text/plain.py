"""Plain text → lines to translate."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.text.block import Block
from service.text.rich import Rich
from service.text.sentences import LINE_BREAK

LIST_MARK = re.compile(
    r"\s*+(?:(?:[-*+•‣◦▪–—>]|\d{1,9}[.)]|[A-Za-z]\)|\((?:\d{1,3}|[A-Za-z])\)|\[[ xX]\])\s++)+"
)


def read_text(text: str) -> Iterator[str | Block]:
    """Each line is a paragraph; list marks and line breaks are kept."""
    for position, line in enumerate(LINE_BREAK.split(text)):
        if position % 2 or not line or line.isspace():
            yield line
            continue
        mark = LIST_MARK.match(line)
        start = mark.end() if mark else 0
        yield line[:start]
        yield Block(Rich(line[start:]), str)

"""Plain text → lines to translate."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.text.block import Block
from service.text.rich import InlineElement, InlineText, InlineTextBuilder
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
        yield Block(InlineText(line[start:]), str)


def read_wrapped(text: str) -> Iterator[str | Block]:
    """Plain text whose sentences go on over single line breaks; blank lines and list marks begin
    a paragraph."""
    lines = LINE_BREAK.split(text)
    builder = InlineTextBuilder()
    gap = ""
    for line, line_break in zip(lines[::2], [*lines[1::2], ""], strict=True):
        mark = LIST_MARK.match(line)
        if not line or line.isspace() or mark:
            if builder:
                yield Block(builder.build(), str)
            start = mark.end() if mark else len(line)
            yield gap + line[:start]
            builder.add(line[start:])
        else:
            if builder:
                builder.add_special(InlineElement(gap, "character", gap, " "), " ")
            else:
                yield gap
            builder.add(line)
        gap = line_break
    if builder:
        yield Block(builder.build(), str)
    yield gap

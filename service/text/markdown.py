"""Markdown (CommonMark with tables, task lists, footnotes, front matter) → paragraphs.

Block structure is read line by line and kept as it stands; see `markdown_inline` for what is
within a paragraph. Known libraries give lines of blocks but no places of what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.text import html
from service.text.block import Block
from service.text.markdown_inline import escape, escape_in_table, read_inline
from service.text.rich import InlineElement

LINE = re.compile(r"([^\r\n]+)(\r\n|\n|\r|$)|([\r\n]+)")
CONTAINER = re.compile(
    r"(?:[ \t]*+(?:>[ \t]?|(?:[-*+]|\d{1,9}[.)])[ \t]++(?:\[[ xX]\][ \t]++)?"
    r"|\[\^[^\]\s]{1,60}\]:[ \t]++))*+[ \t]*+"
)
LIST_MARK = re.compile(r"(?:[-*+]|\d{1,9}[.)])[ \t]|\]:")
FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,}|\$\$|:::+)")
INDENTED = re.compile(r"(?:^|>[ ]?)(?: {4}|\t)[ \t]*$")
BREAK = re.compile(r"([-*_])[ \t]*+(?:\1[ \t]*+){2,}$")
UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*$")
DELIMITER_ROW = re.compile(
    r"(?=.*\|)[ \t]*\|?[ \t]*:?-+:?[ \t]*+(?:\|[ \t]*+:?-+:?[ \t]*+)*+\|?[ \t]*$"
)
DEFINITION = re.compile(r"\[([^\]]{1,500})\]:[ \t]*\S")
HEADING = re.compile(r"#{1,6}[ \t]+")
CELL = re.compile(r"((?:[^|\\`]|\\.|`+[^`|]*`+|`|\\$)*)(\||$)", re.DOTALL)
HTML_BLOCK = re.compile(r"<(?:!--|[?!]|/?([A-Za-z][A-Za-z0-9-]*)(?=[\s/>]|$))")
VERBATIM = {"pre": "</pre>", "script": "</script>", "style": "</style>", "!--": "-->"}
FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(?:.*\r?\n)*?\1[ \t]*(?:\r?\n|\Z)")


@dataclass
class Lines:
    """The lines of a document as (content, line break), and how far they are read; blank lines
    together are one."""

    lines: list[tuple[str, str]]
    at: int = 0

    @classmethod
    def of(cls, text: str) -> Lines:
        found = LINE.finditer(text)
        return cls([("", match[3]) if match[3] else (match[1], match[2]) for match in found])

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.lines[index][0] if index < len(self.lines) else ""

    def take(self) -> tuple[str, str]:
        self.at += 1
        return self.lines[self.at - 1]

    def __bool__(self) -> bool:
        return self.at < len(self.lines)


@dataclass
class MarkdownParagraph:
    """Lines of a paragraph, what is kept between them, and how deep in quotations it is."""

    labels: frozenset[str]
    text: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    depth: int = 0

    def __bool__(self) -> bool:
        return bool(self.text)

    def add(self, content: str, line_break: str) -> None:
        body = content[:-1] if content.endswith("\\") else content.rstrip(" \t")
        self.text.append(body)
        self.gaps.append(content[len(body) :] + line_break)

    def finish(self) -> Iterator[str | Block]:
        """The paragraph, then the line break after it; it is empty then."""
        if self.text:
            breaks = [InlineElement(gap, "character", gap, " ") for gap in self.gaps[:-1]]
            yield Block(read_inline("\n".join(self.text), breaks, self.labels), escape)
            yield self.gaps[-1]
        self.text, self.gaps = [], []


def read_markdown(text: str) -> Iterator[str | Block]:
    """Cut Markdown into what is kept and paragraphs."""
    front = FRONT_MATTER.match(text)
    if front:
        yield front.group()
        text = text[front.end() :]
    lines = Lines.of(text)
    labels = frozenset(
        match[1].casefold() for line, _ in lines.lines if (match := DEFINITION.match(line.lstrip()))
    )
    paragraph = MarkdownParagraph(labels)
    blank, in_list = True, False
    while lines:
        line = lines.peek()
        container = CONTAINER.match(line)
        assert container is not None
        prefix, content = line[: container.end()], line[container.end() :]
        marked = LIST_MARK.search(prefix) is not None
        in_list = marked or (in_list and (not content or not blank or line[:1].isspace()))
        code = blank and not in_list and not marked and INDENTED.search(prefix) is not None
        kind = "code" if code else _block_kind(lines, prefix, content, bool(paragraph))
        if kind:
            yield from paragraph.finish()
            yield from _block(kind, lines, prefix, content, labels)
            blank = (kind in ("blank", "code") and not content) or kind == "code"
            continue
        _, line_break = lines.take()
        if paragraph and not marked and prefix.count(">") == paragraph.depth:
            paragraph.gaps[-1] += prefix
        else:
            yield from paragraph.finish()
            yield prefix
            paragraph.depth = prefix.count(">")
        paragraph.add(content, line_break)
        if content.endswith(("\\", "  ")):
            yield from paragraph.finish()
        blank = False
    yield from paragraph.finish()


def _block_kind(lines: Lines, prefix: str, content: str, in_paragraph: bool) -> str:
    """What a line begins, if it is not a paragraph's."""
    if not content:
        return "blank"
    if FENCE.match(content):
        return "fence"
    if HEADING.match(content):
        return "heading"
    if (
        BREAK.match(content)
        or (in_paragraph and UNDERLINE.match(content))
        or BREAK.match((prefix + content).strip())
    ):
        return "kept"
    if DEFINITION.match(content) and not content.startswith("[^"):
        return "kept"
    if (tag := HTML_BLOCK.match(content)) and (tag[1] or "").lower() not in html.INLINE:
        return "html"
    following = lines.peek(1)
    if "|" in content and DELIMITER_ROW.match(following[_prefix_end(following) :]):
        return "table"
    return ""


def _block(
    kind: str, lines: Lines, prefix: str, content: str, labels: frozenset[str]
) -> Iterator[str | Block]:
    match kind:
        case "fence":
            yield _fenced(lines, content)
        case "html":
            yield from html.read_html(_html_block(lines, content))
        case "table":
            yield from _table(lines, labels)
        case "heading":
            heading = HEADING.match(content)
            assert heading is not None
            _, line_break = lines.take()
            start, end = heading.end(), _heading_end(content, heading.end())
            yield prefix + heading.group()
            yield Block(read_inline(content[start:end], [], labels), escape)
            yield content[end:] + line_break
        case _:
            yield "".join(lines.take())


def _heading_end(content: str, start: int) -> int:
    """Where a heading's text ends: before spaces, and before a closing run of `#`."""
    text = content.rstrip(" \t")
    unclosed = text.rstrip("#")
    if len(unclosed) < len(text) and len(unclosed) > start and unclosed.endswith((" ", "\t")):
        text = unclosed.rstrip(" \t")
    return max(start, len(text))


def _prefix_end(line: str) -> int:
    container = CONTAINER.match(line)
    return container.end() if container else 0


def _fenced(lines: Lines, content: str) -> str:
    """Code, mathematics or a directive up to its end, or the document's."""
    fence = FENCE.match(content)
    assert fence is not None
    taken = ["".join(lines.take())]
    if fence[1].startswith(":::"):
        return taken[0]
    if fence[1] == "$$" and content.rstrip().endswith("$$") and len(content.rstrip()) > 2:
        return taken[0]
    while lines:
        line = lines.peek().strip().lstrip("> \t")
        taken.append("".join(lines.take()))
        if line.startswith(fence[1]) and not line.strip(fence[1][0]):
            break
    return "".join(taken)


def _html_block(lines: Lines, content: str) -> str:
    """HTML up to the end of its element if that is kept as it stands, else to a blank line."""
    name = "!--" if content.startswith("<!--") else content[1:].split(">")[0].split(" ")[0].lower()
    end = VERBATIM.get(name)
    taken: list[str] = []
    while lines and (end or lines.peek().strip()):
        line = lines.peek()
        taken.append("".join(lines.take()))
        if end and end in line.lower():
            break
    return "".join(taken)


def _table(lines: Lines, labels: frozenset[str]) -> Iterator[str | Block]:
    """Rows of a table, each cell a paragraph."""
    row = 0
    while lines and "|" in lines.peek():
        line, line_break = lines.take()
        if row == 1:
            yield line
        else:
            start = _prefix_end(line)
            yield line[:start]
            for cell in CELL.finditer(line, start):
                yield Block(read_inline(cell[1], [], labels), escape_in_table)
                yield cell[2]
        yield line_break
        row += 1

"""Markdown (CommonMark with tables, task lists, footnotes, front matter) → paragraphs.

Block structure is read line by line and kept as it stands. Within a paragraph, emphasis, links,
code, HTML and escapes become inline elements. The known libraries give the lines of blocks, but not
the places of what is in them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from service.text import html
from service.text.attributes import TakenOut, take_out, without_values
from service.text.inline import (
    LINE_END,
    MARK,
    Block,
    Escape,
    InlineElement,
    InlineText,
    InlineTextBuilder,
    kept,
)
from service.text.markdown_attributes import without_texts, without_title
from service.text.patterns import TEMPLATE_LINE
from service.text.wrapping import Wrapping

SENTENCE_PUNCTUATION = "!\"%&'(),-./:;?+="
READ_AS_TEXT = f"{SENTENCE_PUNCTUATION}<>{{}}#$@"
"""What stays itself for the model, or is part of something protected, behind a backslash."""
TITLE = "|".join(
    rf"{quote}[^{quote}\n]{{0,500}}+(?:\n[^{quote}\n]{{1,500}}+){{0,4}}{quote}" for quote in "\"'"
)
TARGET = (
    r"\((?:(?:[^()\n]|\([^()\n]{0,500}\)){0,2000}+"
    rf"|[ \t]{{0,9}}\n?[ \t]{{0,9}}[^\s()<>]{{1,2000}}+(?:\s{{1,99}}(?:{TITLE}))?\s{{0,99}})\)"
)
"""Of links and images; a line may end before it, and before or within its title."""
LINK_END = re.compile(rf"\](?:{TARGET}|\[[^\[\]\n]{{0,500}}\])")
TOKEN = re.compile(
    rf"""
    (?P<escape>\\[!-/:-@\[-`{{-~])
  | (?P<code>`+)
  | (?P<math>(?<![\w$\\])\$(?=\S)[^$\n`]{{1,300}}(?<=\S)\$(?![\w$]))
  | (?P<autolink><(?:[A-Za-z][A-Za-z0-9+.-]{{1,31}}:[^\s<>]{{0,2000}}
      | [^\s<>@]{{1,64}}@[^\s<>]{{1,255}})>)
  | (?P<protected><(?P<name>code|kbd|samp|var|tt)(?:\s[^<>]{{0,500}})?>[^<>]{{0,1000}}</(?P=name)>)
  | (?P<comment><!--(?:[^-]|-(?!->)){{0,2000}}+-->)
  | (?P<tag></?[A-Za-z][\w:.-]{{0,60}}
      (?:\s(?:[^<>"']|"[^"<>]{{0,500}}"|'[^'<>]{{0,500}}'){{0,500}}+)?/?>)
  | (?P<entity>{html.ENTITY.pattern})
  | (?P<image>!\[[^\[\]]{{0,1000}}\](?:{TARGET}|\[[^\[\]\n]{{0,500}}\]))
  | (?P<note>\[\^[^\]\s]{{1,60}}\])
  | (?P<open>\[)
  | (?P<close>\])
  | (?P<emphasis>\*+|_+|~~)
  | (?P<line>\n)
    """,
    re.VERBOSE,
)
SPECIAL_CHARACTERS = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)|[`~\[\]]|<(?=[A-Za-z/!?])|(?<!\s)\*|\*(?!\s)|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)|&(?=#?\w{1,32};)"
)
TAG_NAME = re.compile(r"<([A-Za-z][\w:.-]*)")
LINE_START = re.compile(r"(#{1,6}(?=\s|$)|[-+](?=\s|$)|>|=+\s*$|-+\s*$|\d{1,9}(?=[.)](?:\s|$)))")


@dataclass(frozen=True)
class Reading:
    """What the reading of a document's parts shares: its link definitions' labels, in lower case,
    and where alternative texts and titles go that are translated."""

    labels: frozenset[str] = frozenset()
    taken: TakenOut | None = None


@dataclass(slots=True)
class MarkdownToken:
    """A stretch of source; `element` is set where it is more than text."""

    raw: str
    kind: str
    element: InlineElement | None = None
    before: str = ""
    after: str = ""


def read_inline(
    text: str, breaks: Sequence[InlineElement], reading: Reading, escape: Escape
) -> InlineText:
    """A paragraph's source → InlineText. `breaks` are its line breaks."""
    tokens = list(_tokens(text, iter(breaks)))
    _pair_links(tokens, reading.labels)
    _pair_emphasis(tokens)
    _pair_html(tokens)
    if reading.taken is not None:
        _take_out_texts(tokens, reading, reading.taken, escape)
    builder = InlineTextBuilder()
    for token in tokens:
        element = token.element
        if element is None:
            builder.add(token.raw)
        elif element.kind in ("character", "space"):
            builder.add_element(element, element.shown)
        else:
            builder.add_element(element, MARK)
    return builder.build()


def _tokens(text: str, breaks: Iterator[InlineElement]) -> Iterator[MarkdownToken]:
    code_runs = _code_runs(text)
    start = place = 0
    while match := TOKEN.search(text, place):
        begin, end, kind = match.start(), match.end(), match.lastgroup or ""
        kind = "protected" if match["protected"] else kind
        element: InlineElement | None = None
        raw = match.group()
        if kind == "code":
            closing = _closing_run(code_runs.get(len(raw), []), end)
            end = end if closing is None else closing + len(raw)
            kind = kind if closing is None else "whole code"
        if kind != "line":
            raw = _with_breaks(text[begin:end], breaks)
        match kind:
            case "escape":
                kind_of = "character" if raw[1] in READ_AS_TEXT else "point"
                element = kept(raw, kind_of, raw[1])  # type: ignore[arg-type]
            case "code":
                element = kept(raw, "point", raw)
            case "whole code":
                element = kept(raw, "word", raw.strip("` "))
            case "math" | "autolink" | "protected":
                element = kept(raw, "word", raw)
            case "comment" | "note" | "image":
                element = kept(raw, "point")
            case "entity":
                element = html.entity(raw)
            case "line":
                element = next(breaks)
        if start < begin:
            yield MarkdownToken(text[start:begin], "text")
        yield MarkdownToken(raw, kind, element, text[begin - 1 : begin], text[end : end + 1])
        start = place = end
    if start < len(text):
        yield MarkdownToken(text[start:], "text")


def _take_out_texts(
    tokens: Sequence[MarkdownToken], reading: Reading, taken: TakenOut, escape: Escape
) -> None:
    """Numbers for the texts of images and the titles of links, in what is written of them."""

    def read(alt: str) -> InlineText:
        return read_inline(alt, (), replace(reading, taken=None), escape)

    for token in tokens:
        if token.element is None:
            continue
        if token.kind == "image":
            output = without_texts(token.raw, taken, read, escape)
        elif token.kind == "close":
            output = without_title(token.element.output, taken)
        elif token.kind == "tag" and (name := TAG_NAME.match(token.raw)):
            output = without_values(token.raw, name[1].lower(), taken)
        else:
            continue
        token.element = replace(token.element, output=output)


def _with_breaks(raw: str, breaks: Iterator[InlineElement]) -> str:
    """Source with what stands between its lines."""
    first, *others = raw.split("\n")
    return first + "".join(next(breaks).raw + line for line in others)


def _code_runs(text: str) -> dict[int, list[int]]:
    """Places of runs of backticks, by length."""
    runs: dict[int, list[int]] = {}
    for match in re.finditer(r"`+", text):
        runs.setdefault(len(match.group()), []).append(match.start())
    return runs


def _closing_run(places: list[int], start: int) -> int | None:
    index = bisect_left(places, start)
    return places[index] if index < len(places) else None


def _pair_links(tokens: list[MarkdownToken], labels: frozenset[str]) -> None:
    """Brackets of links → the ends of a stretch; their targets go with the closing one."""
    waiting: list[int] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "open":
            waiting.append(at)
        elif token.kind == "close" and waiting:
            start = waiting.pop()
            end = _take_target(tokens, at)
            label = "".join(one.raw for one in tokens[start + 1 : at]) if at - start < 50 else ""
            if end is not None:
                tokens[start].element = kept("[", "open", name="[")
                token.element = kept(token.raw, "close", name="[")
            elif label.casefold() in labels:
                tokens[start].element = kept("[", "open", name="[")
                token.element = InlineElement("]", "close", f"][{label}]", "", "[")
        at += 1


def _take_target(tokens: list[MarkdownToken], at: int) -> int | None:
    """Joins a link's target to its closing bracket; None if there is none."""
    joined, end = "]", at + 1
    while end < len(tokens) and end - at < 40 and len(joined) < 2600:
        joined += tokens[end].raw
        end += 1
        match = LINK_END.match(joined)
        if match is None:
            if joined[1] not in "([":
                return None
            continue
        rest = joined[match.end() :]
        if rest and tokens[end - 1].kind != "text":
            return None
        source = "".join(one.element.raw if one.element else one.raw for one in tokens[at:end])
        tokens[at].raw = source[: len(source) - len(rest)]
        for index in range(at + 1, end):
            tokens[index].raw, tokens[index].element, tokens[index].kind = "", None, "text"
        tokens[end - 1].raw = rest
        return end
    return None


def _pair_emphasis(tokens: list[MarkdownToken]) -> None:
    """Runs of `*`, `_`, `~~` that begin and end a stretch; other runs beside a word are kept."""
    waiting: list[int] = []
    counts: dict[str, int] = {}
    for at, token in enumerate(tokens):
        if token.kind != "emphasis":
            continue
        before, after = token.before, token.after
        opens = bool(after) and not after.isspace()
        closes = bool(before) and not before.isspace()
        if opens and closes and token.raw[0] == "_" and before.isalnum() and after.isalnum():
            continue
        if closes and counts.get(token.raw):
            while tokens[start := waiting.pop()].raw != token.raw:
                counts[tokens[start].raw] -= 1
            counts[token.raw] -= 1
            tokens[start].element = kept(token.raw, "open", name=token.raw)
            token.element = kept(token.raw, "close", name=token.raw)
        elif opens or closes:
            token.element = kept(token.raw, "point")
            if opens:
                waiting.append(at)
                counts[token.raw] = counts.get(token.raw, 0) + 1


def _pair_html(tokens: list[MarkdownToken]) -> None:
    """HTML tags within a paragraph."""
    places = [at for at, token in enumerate(tokens) if token.kind == "tag"]
    tags = [tag for at in places for tag in html.tokenize(tokens[at].raw)]
    if len(tags) != len(places):
        tags = [html.HtmlToken(tokens[at].raw, "void") for at in places]
    partners = html.match_tags(tags)
    for index, (at, tag) in enumerate(zip(places, tags, strict=True)):
        token = tokens[at]
        if index in partners and tag.kind in ("open", "close"):
            token.element = kept(token.raw, tag.kind, name=tag.name)
        else:
            if tag.name == "br":
                token.element = kept(token.raw, "point", name=LINE_END)
                continue
            lone = token.before.isspace() and not token.after.isalnum() and tag.name in html.WORDS
            token.element = kept(token.raw, "word" if lone else "point")


def escape(text: str) -> str:
    """Plain text as Markdown text: nothing in it is taken for markup."""
    text = SPECIAL_CHARACTERS.sub(r"\\\g<0>", text)
    return LINE_START.sub(_escaped_start, text, count=1) if LINE_START.match(text) else text


def _escaped_start(match: re.Match[str]) -> str:
    start = match.group()
    return f"{start}\\" if start.isdigit() else f"\\{start}"


ESCAPED_UNLESS_USED = re.compile(r"\\([~\[\]])")
"""Signs of syntaxes that are not read (`H~2~O`, `^[note]`, `[@cite]`); see `escape_as`."""


def escape_as(source: InlineText, escape: Callable[[str], str]) -> Callable[[str], str]:
    """`escape` for a paragraph, whose own `~`, `[` and `]` mean nothing, or something that is not
    known here: the translation's stay as plain as they are."""
    plain = {sign for sign in "~[]" if sign in source.text}
    if not plain:
        return escape
    return lambda text: ESCAPED_UNLESS_USED.sub(
        lambda match: match[1] if match[1] in plain else match[0], escape(text)
    )


def escape_in_table(text: str) -> str:
    """The same within a cell of a table."""
    return escape(text).replace("|", "\\|")


def _block_of(
    text: str,
    reading: Reading,
    breaks: Sequence[InlineElement] = (),
    escape: Callable[[str], str] = escape,
) -> Block:
    inline = read_inline(text, breaks, reading, escape)
    return Block(inline, escape_as(inline, escape))


LINE_BREAK = InlineElement("\n", "character", "\n", " ")
LINE = re.compile(r"([^\r\n]+)(\r\n|\n|\r|$)|([\r\n]+)")
CONTAINER = re.compile(
    r"(?:[ \t]*+(?:>[ \t]?|(?:[-*+:~]|\d{1,9}[.)])[ \t]++(?:\[[ xX]\][ \t]++)?"
    r"|\[\^[^\]\s]{1,60}\]:[ \t]++))*+[ \t]*+"
)
LIST_MARK = re.compile(r"(?:[-*+:~]|\d{1,9}[.)])[ \t]|\]:")
"""Of items, definitions (`: text` or `~ text`, of PHP Markdown Extra and Pandoc) and footnotes."""
DEFINED = re.compile(r"[ \t]*[:~][ \t]")
LINE_MARK = re.compile(
    r"(?P<alert>\[![A-Za-z]{1,20}\][+-]?(?:[ \t]+|$))|\*\[[^\[\]]{1,100}\]:[ \t]+"
    r"|\[TOC\](?=[ \t]*$)|(?:!!!|\?\?\?\+?)[ \t]+[\w -]{1,60}?(?:[ \t]+\"|[ \t]*$)"
)
"""What begins a line and is kept: of alerts (GitHub, in quotations), abbreviations, tables of
contents, admonitions (Python-Markdown); the rest of the line is a paragraph."""
GRID = re.compile(r"\+(?:[-=:]+\+)+[ \t]*$")
"""A border of a grid table (Pandoc)."""
FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,}|\$\$|:::+)")
INDENTED = re.compile(r"(?:^|>[ ]?)(?: {4}|\t)[ \t]*$")
BREAK = re.compile(r"([-*_])[ \t]*+(?:\1[ \t]*+){2,}$")
UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*$")
DELIMITER_ROW = re.compile(
    r"(?=.*\|)[ \t]*\|?[ \t]*:?-+:?[ \t]*+(?:\|[ \t]*+:?-+:?[ \t]*+)*+\|?[ \t]*$"
)
DEFINITION = re.compile(r"\[([^\]]{1,500})\]:[ \t]*\S")
MODULE = re.compile(
    r"import\s(?:[^\"'\n]{0,300}\sfrom\s+)?[\"'][^\"'\n]{1,300}[\"'];?[ \t]*$"
    r"|export\s+(?:default|const|let|function|class|async)\s.{0,300}[=({]"
)
"""Lines of code in MDX."""
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

    reading: Reading
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
            block = _block_of("\n".join(self.text), self.reading, breaks)
            yield replace(block, wrapping=self._wrapping()) if breaks else block
            yield self.gaps[-1]
        self.text, self.gaps = [], []

    def _wrapping(self) -> Wrapping:
        reading = replace(self.reading, taken=None)
        return Wrapping(
            max(map(len, self.text)),
            lambda text: read_inline(text, [LINE_BREAK] * text.count("\n"), reading, escape),
            _may_begin_line,
        )

    def finish_lines(self) -> Iterator[str | Block]:
        """The same with each line as a paragraph: terms that a definition follows."""
        for text, gap in zip(self.text, self.gaps, strict=True):
            yield _block_of(text, self.reading)
            yield gap
        self.text, self.gaps = [], []


def read_markdown(text: str, taken: TakenOut | None = None) -> Iterator[str | Block]:
    """Cut Markdown into what is kept and paragraphs. With `taken`, alternative texts and titles
    are taken out, and numbers are written in their place."""
    front = FRONT_MATTER.match(text)
    if front:
        yield front.group()
        text = text[front.end() :]
    lines = Lines.of(text)
    labels = frozenset(
        match[1].casefold() for line, _ in lines.lines if (match := DEFINITION.match(line.lstrip()))
    )
    reading = Reading(labels, taken)
    paragraph = MarkdownParagraph(reading)
    blank, in_list = True, False
    while lines:
        line = lines.peek()
        container = CONTAINER.match(line)
        assert container is not None
        prefix, content = line[: container.end()], line[container.end() :]
        marked = LIST_MARK.search(prefix) is not None
        if DEFINED.match(line) and len(paragraph.text) > 1:
            yield from paragraph.finish_lines()
        in_list = (
            marked
            or content.startswith(("!!!", "???"))
            or (in_list and (not content or not blank or line[:1].isspace()))
        )
        code = blank and not in_list and not marked and INDENTED.search(prefix) is not None
        kind = "code" if code else _block_kind(lines, prefix, content, bool(paragraph))
        if kind:
            yield from paragraph.finish()
            yield from _block(kind, lines, prefix, content, reading)
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
    if TEMPLATE_LINE.match(content) or (not in_paragraph and MODULE.match(content)):
        return "kept"
    if GRID.match(content):
        return "grid"
    if (mark := LINE_MARK.match(content)) and (not mark["alert"] or ">" in prefix):
        return "marked"
    if DEFINITION.match(content) and not content.startswith("[^"):
        return "definition"
    if (tag := HTML_BLOCK.match(content)) and (tag[1] or "").lower() not in html.INLINE:
        return "html"
    following = lines.peek(1)
    if "|" in content and DELIMITER_ROW.match(following[_prefix_end(following) :]):
        return "table"
    return ""


BEGINS_LINE = re.compile(
    r"(?!\d{1,9}[.)](?:\s|$))(?:\*{1,3}(?!\s)|_{1,3}|~~|!?\[|`{1,2}(?!`))?[\"'“‘„«(¿¡]{0,2}[^\W_]"
)
"""A word, after marks of inline markup alone."""


def _may_begin_line(text: str) -> bool:
    """Whether a line that goes on with a paragraph can begin with a text."""
    return bool(BEGINS_LINE.match(text)) and not _block_kind(Lines([(text, "")]), "", text, True)


def _block(
    kind: str, lines: Lines, prefix: str, content: str, reading: Reading
) -> Iterator[str | Block]:
    match kind:
        case "fence":
            yield _fenced(lines, content)
        case "html":
            block = _html_block(lines, content)
            yield from html.read_html(take_out(block, reading.taken) if reading.taken else block)
        case "table":
            yield from _table(lines, reading)
        case "grid":
            while lines and lines.peek().strip().startswith(("+", "|")):
                yield "".join(lines.take())
        case "marked":
            mark = LINE_MARK.match(content)
            assert mark is not None
            _, line_break = lines.take()
            rest = content[mark.end() :]
            text = rest.rstrip(' \t"' if mark.group().endswith('"') else " \t")
            yield prefix + mark.group()
            yield _block_of(text, reading)
            yield rest[len(text) :] + line_break
        case "definition" if reading.taken is not None:
            line, line_break = lines.take()
            yield without_title(line, reading.taken) + line_break
        case "heading":
            heading = HEADING.match(content)
            assert heading is not None
            _, line_break = lines.take()
            start, end = heading.end(), _heading_end(content, heading.end())
            yield prefix + heading.group()
            yield _block_of(content[start:end], reading)
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


def _table(lines: Lines, reading: Reading) -> Iterator[str | Block]:
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
                yield _block_of(cell[1], reading, escape=escape_in_table)
                yield cell[2]
        yield line_break
        row += 1

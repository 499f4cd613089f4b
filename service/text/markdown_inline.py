"""What is within a paragraph of Markdown: emphasis, links, code, HTML, escapes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.text import html
from service.text.rich import MARK, InlineElement, InlineText, InlineTextBuilder, kept

SENTENCE_PUNCTUATION = "!\"%&'(),-./:;?+="
TARGET = r"\((?:[^()\n]|\([^()\n]{0,500}\)){0,2000}+\)"
LINK_END = re.compile(rf"\](?:{TARGET}|\[[^\[\]\n]{{0,500}}\])")
TOKEN = re.compile(
    rf"""
    (?P<escape>\\[!-/:-@\[-`{{-~])
  | (?P<code>`+)
  | (?P<math>(?<![\w$\\])\$(?=\S)[^$\n`]{{1,300}}(?<=\S)\$(?![\w$]))
  | (?P<autolink><(?:[A-Za-z][A-Za-z0-9+.-]{{1,31}}:[^\s<>]{{0,2000}}
      | [^\s<>@]{{1,64}}@[^\s<>]{{1,255}})>)
  | (?P<opaque><(?P<name>code|kbd|samp|var|tt)(?:\s[^<>]{{0,500}})?>[^<>]{{0,1000}}</(?P=name)>)
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
LINE_START = re.compile(r"(#{1,6}(?=\s|$)|[-+](?=\s|$)|>|=+\s*$|-+\s*$|\d{1,9}(?=[.)](?:\s|$)))")


@dataclass(slots=True)
class MarkdownToken:
    """A stretch of source; `special` is set where it is more than text."""

    raw: str
    kind: str
    special: InlineElement | None = None
    before: str = ""
    after: str = ""


def read_inline(text: str, breaks: Sequence[InlineElement], labels: frozenset[str]) -> InlineText:
    """A paragraph's source → Rich; `breaks` stand where it has line breaks, `labels` are the link
    definitions that the document has, in small letters."""
    tokens = list(_tokens(text, iter(breaks)))
    _pair_links(tokens, labels)
    _pair_emphasis(tokens)
    _pair_html(tokens)
    builder = InlineTextBuilder()
    for token in tokens:
        special = token.special
        if special is None:
            builder.add(token.raw)
        elif special.kind in ("character", "space"):
            builder.add_special(special, special.shown)
        else:
            builder.add_special(special, MARK)
    return builder.build()


def _tokens(text: str, breaks: Iterator[InlineElement]) -> Iterator[MarkdownToken]:
    code_runs = _code_runs(text)
    start = place = 0
    while match := TOKEN.search(text, place):
        begin, end, kind = match.start(), match.end(), match.lastgroup or ""
        kind = "opaque" if match["opaque"] else kind
        special: InlineElement | None = None
        raw = match.group()
        if kind == "code":
            closing = _closing_run(code_runs.get(len(raw), []), end)
            end = end if closing is None else closing + len(raw)
            kind = kind if closing is None else "whole code"
        if kind != "line":
            raw = _with_breaks(text[begin:end], breaks)
        match kind:
            case "escape":
                kind_of = "character" if raw[1] in SENTENCE_PUNCTUATION else "point"
                special = kept(raw, kind_of, raw[1])  # type: ignore[arg-type]
            case "code":
                special = kept(raw, "point", raw)
            case "whole code":
                special = kept(raw, "word", raw.strip("` "))
            case "math" | "autolink" | "opaque":
                special = kept(raw, "word", raw)
            case "comment" | "note" | "image":
                special = kept(raw, "point")
            case "entity":
                special = html.entity(raw)
            case "line":
                special = next(breaks)
        if start < begin:
            yield MarkdownToken(text[start:begin], "text")
        yield MarkdownToken(raw, kind, special, text[begin - 1 : begin], text[end : end + 1])
        start = place = end
    if start < len(text):
        yield MarkdownToken(text[start:], "text")


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
                tokens[start].special = kept("[", "open", name="[")
                token.special = kept(token.raw, "close", name="[")
            elif label.casefold() in labels:
                tokens[start].special = kept("[", "open", name="[")
                token.special = InlineElement("]", "close", f"][{label}]", "", "[")
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
        tokens[at].raw = match.group()
        for index in range(at + 1, end):
            tokens[index].raw, tokens[index].special, tokens[index].kind = "", None, "text"
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
            tokens[start].special = kept(token.raw, "open", name=token.raw)
            token.special = kept(token.raw, "close", name=token.raw)
        elif opens or closes:
            token.special = kept(token.raw, "point")
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
            token.special = kept(token.raw, tag.kind, name=tag.name)
        else:
            lone = token.before.isspace() and not token.after.isalnum() and tag.name in html.WORDS
            token.special = kept(token.raw, "word" if lone else "point")


def escape(text: str) -> str:
    """Plain text as Markdown text: nothing in it is taken for markup."""
    text = SPECIAL_CHARACTERS.sub(r"\\\g<0>", text)
    return LINE_START.sub(_escaped_start, text, count=1) if LINE_START.match(text) else text


def _escaped_start(match: re.Match[str]) -> str:
    start = match.group()
    return f"{start}\\" if start.isdigit() else f"\\{start}"


def escape_in_table(text: str) -> str:
    """The same within a cell of a table."""
    return escape(text).replace("|", "\\|")

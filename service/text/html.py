"""HTML (and XML like it) → paragraphs to translate; everything else is kept as it stands.

A lexer, not a parser: it knows where tags, comments and text begin and end, and which tags belong
together, so the source is never written anew. Attributes are not translated.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.text.inline import MARK, Block, InlineElement, InlineTextBuilder, kept


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


INLINE = _names(
    "a abbr acronym b bdi bdo big cite code data del dfn em font g i img input ins "
    "kbd mark mrk nobr output ph pc q rb rp rt rtc ruby s samp small span strike "
    "strong sub sup time tt u var wbr x bx ex bpt ept it picture"
)
"""Elements within a sentence; all others part what is before from what is after, those of forms
(`label`, `button`, `option`) too."""
WORDS = _names("ph x")
"""Elements that stand for a word, where spaces are around them."""
PROTECTED = _names(
    "code kbd samp var tt pre script style textarea svg math template iframe ph it bpt ept"
)
"""Elements whose content is never translated."""
RAW = _names("script style")
"""Elements in which nothing is markup but their own end."""
VOID = _names("area base br col embed hr img input link meta param source track wbr bx ex")
NAME = re.compile(r"</?([A-Za-z][^\s/>]*)")
REST = re.compile(r"""(?:[^"'>]|"[^"]*"|'[^']*')*+>""")
ENTITY = re.compile(r"&(?:[#][0-9]{1,7}|[#][xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
NOT_TRANSLATED = re.compile(
    r"""\stranslate\s*=\s*["']?no\b|\sclass\s*=\s*(?:"[^"]*\bnotranslate\b|'[^']*\bnotranslate\b"""
    r"""|notranslate\b)""",
    re.IGNORECASE,
)
SENTENCE_CHARACTERS = "&<>\"'.,;:!?-–—‘’“”„«»…()/%€$£+="
TEMPLATE_WORDS = ("<?=", "<%=", "<%-")
"""How code begins that a template replaces by text."""
MAX_FAILURES = 100
"""Unclosed tags after which only tags without `>` in an attribute are looked for."""

TokenKind = Literal["text", "open", "close", "void", "comment", "template", "other"]


@dataclass(frozen=True, slots=True)
class HtmlToken:
    """A stretch of the source: text, a tag (`name` in small letters), a comment, a template's code,
    or the like."""

    raw: str
    kind: TokenKind
    name: str = ""


def read_html(text: str) -> Iterator[str | Block]:
    """Cut HTML into what is kept and paragraphs."""
    tokens = list(tokenize(text))
    yield from blocks(tokens)


def blocks(tokens: list[HtmlToken]) -> Iterator[str | Block]:
    """Tokens → what is kept, and paragraphs: text and inline tags between block tags."""
    partners = match_tags(tokens)
    builder = InlineTextBuilder()
    at = 0
    while at < len(tokens):
        token, partner = tokens[at], partners.get(at)
        inline = token.name in INLINE or (":" in token.name and token.kind != "other")
        protected = token.kind == "open" and partner is not None and _is_protected(token)
        end = partner + 1 if protected and partner is not None else at + 1
        raw = "".join(one.raw for one in tokens[at:end])
        if token.kind == "text":
            add_text(builder, token.raw)
        elif token.kind == "comment":
            builder.add_element(kept(raw, "point"))
        elif token.kind == "template":
            is_word = raw.startswith(TEMPLATE_WORDS)
            builder.add_element(kept(raw, "word" if is_word else "point", raw))
        elif not inline:
            if builder:
                yield Block(builder.build(), escape)
            yield raw
        elif protected:
            shown = "".join(one.raw for one in tokens[at:end] if one.kind == "text")
            builder.add_element(kept(raw, "word", html.unescape(shown)))
        elif token.kind == "void" or partner is None:
            builder.add_element(kept(raw, _lone_kind(token, tokens, at)))
        elif token.kind == "open" and partner == at + 1:
            end = partner + 1
            builder.add_element(kept(raw + tokens[partner].raw, "point"))
        else:
            builder.add_element(kept(raw, token.kind, name=token.name))  # type: ignore[arg-type]
        at = end
    if builder:
        yield Block(builder.build(), escape)


def _is_protected(token: HtmlToken) -> bool:
    return token.name in PROTECTED or NOT_TRANSLATED.search(token.raw) is not None


def _lone_kind(token: HtmlToken, tokens: list[HtmlToken], at: int) -> Literal["word", "point"]:
    """A tag without a partner stands for a word if spaces or punctuation are around it."""
    if token.name not in WORDS:
        return "point"
    before = tokens[at - 1].raw[-1:] if at and tokens[at - 1].kind == "text" else ""
    after = tokens[at + 1].raw[:1] if at + 1 < len(tokens) and tokens[at + 1].kind == "text" else ""
    return "word" if before.isspace() and not after.isalnum() else "point"


def match_tags(tokens: list[HtmlToken]) -> dict[int, int]:
    """Openings and endings that belong together, each → the other; those that cross others or
    have no partner are left out."""
    waiting: list[int] = []
    counts: dict[str, int] = {}
    partners: dict[int, int] = {}
    for at, token in enumerate(tokens):
        if token.kind == "open":
            waiting.append(at)
            counts[token.name] = counts.get(token.name, 0) + 1
        elif token.kind == "close" and counts.get(token.name):
            while True:
                partner = waiting.pop()
                counts[tokens[partner].name] -= 1
                if tokens[partner].name == token.name:
                    break
            partners[partner], partners[at] = at, partner
    return partners


def tokenize(text: str) -> Iterator[HtmlToken]:
    """Tokens that add up to the text, in linear time."""
    start = place = failures = 0
    absent: set[str] = set()
    while (place := text.find("<", place)) >= 0:
        token: HtmlToken | None = None
        if text.startswith(("<!", "<?", "<%"), place):
            token = _declaration(text, place, absent)
        elif match := NAME.match(text, place, place + 200):
            token = _tag(text, place, match, failures < MAX_FAILURES)
            failures += token is None
        if token is None:
            place += 1
            continue
        if start < place:
            yield HtmlToken(text[start:place], "text")
        yield token
        start = place = place + len(token.raw)
        if token.kind == "open" and token.name in RAW:
            match = re.compile(rf"</{token.name}\b", re.IGNORECASE).search(text, place)
            end = match.start() if match else len(text)
            if end > start:
                yield HtmlToken(text[start:end], "other")
            start = place = end
    if start < len(text):
        yield HtmlToken(text[start:], "text")


def _declaration(text: str, place: int, absent: set[str]) -> HtmlToken | None:
    """A comment, CDATA, a template's code, an instruction or a doctype; None if it has no end.
    Ends that are known to be `absent` from the rest are not looked for again."""
    for beginning, ending, kind in (
        ("<!--", "-->", "comment"),
        ("<![CDATA[", "]]>", "other"),
        ("<?=", "?>", "template"),
        ("<?php", "?>", "template"),
        ("<%", "%>", "template"),
        ("<?", "?>", "other"),
        ("<!", ">", "other"),
    ):
        if text.startswith(beginning, place) and ending not in absent:
            end = text.find(ending, place + len(beginning))
            if end >= 0:
                return HtmlToken(text[place : end + len(ending)], kind)  # type: ignore[arg-type]
            absent.add(ending)
    return None


def _tag(text: str, place: int, match: re.Match[str], quotes: bool) -> HtmlToken | None:
    end = -1
    if quotes and (rest := REST.match(text, match.end())):
        end = rest.end()
    else:
        closing = text.find(">", match.end(), match.end() + 1000)
        opening = text.find("<", match.end(), match.end() + 1000)
        if closing >= 0 and not 0 <= opening < closing:
            end = closing + 1
    if end < 0:
        return None
    raw, name = text[place:end], match[1].lower()
    if raw.startswith("</"):
        return HtmlToken(raw, "close", name)
    return HtmlToken(raw, "void" if name in VOID or raw.endswith("/>") else "open", name)


def add_text(builder: InlineTextBuilder, text: str) -> None:
    """Add source text with its entities: letters and punctuation as such, others protected."""
    place = 0
    for match in ENTITY.finditer(text):
        builder.add(text[place : match.start()])
        element = entity(match.group())
        builder.add_element(element, MARK if element.kind == "point" else element.shown)
        place = match.end()
    builder.add(text[place:])


def entity(raw: str) -> InlineElement:
    """What an entity is to a reader and to the model."""
    shown = html.unescape(raw)
    if shown in ("\u00a0", "\u202f", "\u2009"):
        return kept(raw, "space", shown)
    if len(shown) == 1 and (shown.isalnum() or shown.isspace() or shown in SENTENCE_CHARACTERS):
        return kept(raw, "character", shown)
    return kept(raw, "point", shown)


def escape(text: str) -> str:
    """Plain text as HTML text."""
    return html.escape(text, quote=False)

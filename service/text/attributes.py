"""Attributes of HTML that a reader sees or hears (`alt`, `title`, `placeholder`, `aria-label`, a
page's description): taken out of their tags, translated as paragraphs, and put back.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from service.text.html import NOT_TRANSLATED, PROTECTED, RAW, add_text, match_tags, tokenize
from service.text.inline import Block, InlineTextBuilder

SHOWN = "alt|title|placeholder|aria-(?:label|description|placeholder|roledescription|valuetext)"
ATTRIBUTE = re.compile(
    r"""(?P<before>\s(?P<name>[a-z-]{1,40})\s{0,20}=\s{0,20})(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)')""",
    re.IGNORECASE,
)
SHOWN_BY_ALL = re.compile(SHOWN, re.IGNORECASE)
OF_ELEMENTS = {"optgroup": "label", "option": "label", "track": "label", "table": "summary"}
"""Attributes that are shown of some elements alone."""
DESCRIPTION = re.compile(
    r"""\s(?:name|property|itemprop)\s*=\s*["']?(?:(?:og:|twitter:)?(?:title|description|image:alt)"""
    r"""|keywords|application-name|og:site_name)["'\s/>]""",
    re.IGNORECASE,
)
"""What `meta` says to readers, in `content`."""
BUTTON = re.compile(r"""\stype\s*=\s*["']?(?:submit|button|reset)["'\s/>]""", re.IGNORECASE)
"""An `input` that shows its `value`."""
START, END = "\ufdd0", "\ufdd1"
"""Noncharacters of Unicode, around the number of what was taken out."""
MAX_DEPTH = 4
"""How deep values may be in others: a text of an image in a note that is struck out."""
TAKEN = re.compile(rf"{START}(\d{{1,9}}){END}")


class TakenOut:
    """Values that were taken out of a text, in the order of their numbers there."""

    def __init__(self) -> None:
        self.paragraphs: list[Block] = []

    def add(self, paragraph: Block) -> str:
        """What stands in the place of a value."""
        self.paragraphs.append(paragraph)
        return f"{START}{len(self.paragraphs) - 1}{END}"


def has_numbers(text: str) -> bool:
    """Whether a text has such numbers itself, so that nothing can be taken out of it."""
    return START in text


def take_out(text: str, taken: TakenOut) -> str:
    """HTML with numbers in the place of its attributes' values.

    What is in code, scripts and what must not be translated stays.
    """
    if "=" not in text:
        return text
    tokens = list(tokenize(text))
    partners = match_tags(tokens)
    parts: list[str] = []
    kept_until = 0
    for at, token in enumerate(tokens):
        raw = token.raw
        if token.kind in ("open", "void") and at >= kept_until:
            is_kept = NOT_TRANSLATED.search(raw) is not None
            if (is_kept or token.name in PROTECTED | RAW) and token.kind == "open":
                kept_until = partners.get(at, at) + 1
            if not is_kept and "=" in raw:
                raw = without_values(raw, token.name, taken)
        parts.append(raw)
    return "".join(parts)


def without_values(raw: str, name: str, taken: TakenOut) -> str:
    """A tag with numbers for the values of its attributes."""

    def without(match: re.Match[str]) -> str:
        value = match["a"] if match["a"] is not None else match["b"]
        if not _is_shown(name, match["name"].lower(), raw) or not any(map(str.isalpha, value)):
            return match[0]
        quote = match[0][-1]
        return f"{match['before']}{quote}{taken.add(_paragraph(value))}{quote}"

    return ATTRIBUTE.sub(without, raw)


def _is_shown(element: str, attribute: str, raw: str) -> bool:
    if SHOWN_BY_ALL.fullmatch(attribute) or OF_ELEMENTS.get(element) == attribute:
        return True
    if element == "meta":
        return attribute == "content" and DESCRIPTION.search(raw) is not None
    return element == "input" and attribute == "value" and BUTTON.search(raw) is not None


def _paragraph(value: str) -> Block:
    """An attribute's value as a paragraph."""
    builder = InlineTextBuilder()
    add_text(builder, value)
    return Block(builder.build(), html.escape)


def put_back(text: str, values: Sequence[str]) -> str:
    """A text with values in the place of their numbers; values may have numbers themselves."""
    for _ in range(MAX_DEPTH):
        if START not in text:
            break
        text = TAKEN.sub(lambda match: values[int(match[1])], text)
    return text

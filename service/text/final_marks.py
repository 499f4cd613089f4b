"""The mark that ends a sentence: kept where a translation lost it, not left where it was added
for the model."""

from __future__ import annotations

import re

from service.text.dashes import FINAL_DASHES
from service.text.inline import InlineText
from service.text.protected import CLOSING
from service.text.sentences import SPACED

TERMINAL = frozenset(f".!?:;…。！？：；{FINAL_DASHES}")
FINAL = frozenset(f".!?:…{FINAL_DASHES}")
"""Marks that a sentence gets back if its translation lost them."""
AFTER_MARK = ",;"
"""What no sentence ends with."""


def final_mark(core: InlineText) -> str:
    """The mark that ends a sentence before closing quotes, brackets and tags; else empty."""
    if core.text[-1:] in TERMINAL:
        return core.text[-1:]
    for place in range(len(core.text) - 1, -1, -1):
        character = core.text[place]
        element = core.element_at(place)
        if character.isspace() or character in CLOSING or (element and element.has_no_width):
            continue
        return character if character in TERMINAL else ""
    return ""


ELLIPSIS = re.compile(r"…|\.{3}")
NEARLY = re.compile(r"(?<!\.)\.\.(?!\.)|\.{4,}|…\.+|\.+…")
"""What models write for one."""
SPACED_ELLIPSIS = re.compile(r"\A(…|\.{3})\s+")


def with_ellipses(translation: str, source: str) -> str:
    """A translation whose dots are three where its source's are; at the beginning they have a space
    behind them if the source's have."""
    if "…" not in source and "..." not in source:
        return translation
    translation = NEARLY.sub("...", translation)
    if ELLIPSIS.match(source) and not SPACED_ELLIPSIS.match(source):
        translation = SPACED_ELLIPSIS.sub(r"\1", translation)
    return translation


def strip_added_stop(translation: str, core: InlineText) -> str:
    """A translation without the full stop that its source does not have."""
    text = translation.strip()
    if not text.endswith(".") or text.endswith("...") or final_mark(core):
        return text
    return text[:-1].rstrip()


INVENTED_NOTE = re.compile(r"\s*\([^()\d]*\)(?=[.!?…]?\Z)")
"""What ends `John Smith (em inglês)`."""


def without_added_end(translation: str, core: InlineText) -> str:
    """A translation without the comma, or the note in brackets, that models of whole sentences add
    to names and greetings which have none."""
    text = translation.rstrip()
    if not core.text.rstrip().endswith(tuple(AFTER_MARK)):
        text = text.rstrip(f"{AFTER_MARK} ") or text
    if core.elements or "(" in core.text:
        return text
    shorter = INVENTED_NOTE.sub("", text)
    return shorter if any(map(str.isalnum, shorter)) else text


def with_lost_mark(translation: str, core: InlineText) -> str:
    """A translation that ends with the final mark of its source, if it has none of its own."""
    text = translation.rstrip(f"{AFTER_MARK} ")
    body = text.rstrip(f"{CLOSING}{AFTER_MARK} ")
    if not body or not body[-1].isalnum() or body[-1] >= SPACED:
        return translation
    mark = final_mark(core)
    if mark not in FINAL or (mark == "." and core.text.rstrip().endswith(mark * 2)):
        return translation
    at_end = core.text.rstrip()[-1:] == mark
    return f"{text}{mark}" if at_end else f"{body}{mark}{text[len(body) :]}"

"""Keys of menus and buttons in labels (`_Save`, `E&xit`, `Sa~ve`): taken out before a label is
translated, and put before a letter of its translation. A key in brackets (`(&S)`) is a symbol that
stays (`service/text/patterns.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.text.patterns import PROTECTED

LETTER = r"[^\W\d_]"
MARKS = ("_", "&", "~")
MAX_CHARS = 80
"""Longer texts are sentences, in which such marks mean something else."""
WORD_START = re.compile(rf"(?<![\w&]){LETTER}")
UPPER, LOWER = "[A-ZÀ-Þ]", "[a-zß-ÿ]"
KEY_MARK = re.compile(
    "|".join(
        (
            rf"(?<![\w&~_])[_&~](?={LETTER})",
            *(rf"(?<=\b{UPPER}{LOWER * count})_(?={LOWER})" for count in range(3)),
            *(rf"(?<=\b{UPPER}{LOWER * count})[&~](?={LOWER})" for count in range(9)),
        )
    )
)
"""Before a word, or a small letter within one with a capital: not `snake_case`, `R&D` or `~5`. An
underscore is looked for near the beginning of a word only."""
SENTENCE_END = re.compile(r"[^.]\.\s*\Z")
BRACKETED = re.compile(r"\(.\w\)")
ENTITY_REST = re.compile(r"\w{1,31};")
PLACEHOLDERS = ("address", "tag", "number", "placeholder", "shortcut")


@dataclass(frozen=True)
class Accelerator:
    """A mark, the letter after it, and how much of the message's words is before it, 0 to 1."""

    mark: str
    letter: str
    share: float
    place: int
    """Where it was in the message without it."""


def take_out(message: str) -> tuple[str, Sequence[Accelerator]]:
    """A message without the marks of its keys, and these; a message that has other such marks keeps
    them all, and so does a sentence."""
    if not any(mark in message for mark in MARKS):
        return message, ()
    if len(message) > MAX_CHARS or "\n" in message or SENTENCE_END.search(message):
        return message, ()
    accelerators = []
    for mark in MARKS:
        matches = [match.start() for match in KEY_MARK.finditer(message) if match[0] == mark]
        if message.count(mark) != 1 or not matches or _in_placeholder(message, matches[0]):
            continue
        place = matches[0]
        if ENTITY_REST.match(message, place + 1) or BRACKETED.match(message, place - 1):
            continue
        before, after = message[:place], message[place + 1 :]
        message = before + after
        words = len(WORD_START.findall(before)) - before[-1:].isalpha()
        share = words / max(len(WORD_START.findall(message)), 1)
        accelerators.append(Accelerator(mark, after[0], share, place))
    return message, tuple(accelerators)


def _in_placeholder(text: str, place: int) -> bool:
    return any(
        match.start() <= place < match.end() and match.lastgroup in PLACEHOLDERS
        for match in PROTECTED.finditer(text)
    )


def put_back(message: str, accelerators: Sequence[Accelerator]) -> str:
    """The message from which keys were taken out."""
    for accelerator in reversed(accelerators):
        place = accelerator.place
        message = message[:place] + accelerator.mark + message[place:]
    return message


def put_in(translation: str, accelerators: Sequence[Accelerator]) -> str:
    """A translation with the marks: before a word that begins with the same letter, else before the
    word at the same place in proportion. There is no key without a word, or where the translation
    has the mark already."""
    for accelerator in accelerators:
        if accelerator.mark in translation:
            continue
        places = [
            match.start()
            for match in WORD_START.finditer(translation)
            if not _in_placeholder(translation, match.start())
        ]
        if not places:
            continue
        same = [p for p in places if translation[p].lower() == accelerator.letter.lower()]
        index = min(int(accelerator.share * len(places) + 0.5), len(places) - 1)
        place = same[0] if same else places[index]
        translation = translation[:place] + accelerator.mark + translation[place:]
    return translation

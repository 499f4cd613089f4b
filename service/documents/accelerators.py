"""Keys of menus and buttons in messages (`_Save`, `E&xit`): taken out before a message is
translated, and put before a letter of its translation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.text.patterns import PROTECTED

LETTER = r"[^\W\d_]"
MARKS = ("_", "&")
MAX_CHARS = 80
"""Longer messages are sentences, in which such marks mean something else."""
WORD_START = re.compile(rf"(?<![\w&]){LETTER}")
UPPER, LOWER = "[A-ZÀ-Þ]", "[a-zß-ÿ]"
KEY = "|".join(
    [
        rf"(?<![\w&])[_&](?={LETTER})",
        *(rf"(?<={UPPER}{LOWER * count})[_&](?={LOWER})" for count in range(3)),
    ]
)
"""Before a word, or a small letter near the beginning of one with a capital: not `snake_case` or
`R&D`."""
KEY_MARK = re.compile(KEY)
ENTITY_REST = re.compile(r"\w{1,31};")
PLACEHOLDERS = ("address", "tag", "number", "placeholder")


@dataclass(frozen=True)
class Accelerator:
    """A mark, the letter after it, and how much of the message's words is before it, 0 to 1."""

    mark: str
    letter: str
    share: float


def take_out(message: str) -> tuple[str, Sequence[Accelerator]]:
    """A message without the marks of its keys, and these; a message that has other such marks keeps
    them all."""
    if len(message) > MAX_CHARS or "\n" in message:
        return message, ()
    accelerators = []
    for mark in MARKS:
        matches = [match.start() for match in KEY_MARK.finditer(message) if match[0] == mark]
        if message.count(mark) != 1 or not matches or _in_placeholder(message, matches[0]):
            continue
        place = matches[0]
        if ENTITY_REST.match(message, place + 1):
            continue
        before, after = message[:place], message[place + 1 :]
        message = before + after
        words = len(WORD_START.findall(before)) - before[-1:].isalpha()
        share = words / max(len(WORD_START.findall(message)), 1)
        accelerators.append(Accelerator(mark, after[0], share))
    return message, tuple(accelerators)


def _in_placeholder(text: str, place: int) -> bool:
    return any(
        match.start() <= place < match.end() and match.lastgroup in PLACEHOLDERS
        for match in PROTECTED.finditer(text)
    )


def put_in(translation: str, accelerators: Sequence[Accelerator]) -> str:
    """A translation with the marks: before a word that begins with the same letter, else before the
    word at the same place in proportion. Without a word, there is no key."""
    for accelerator in accelerators:
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

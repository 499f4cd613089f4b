"""Typographic characters that a model's vocabulary lacks or has hardly met: plain ones are sent in
their place, and the translation gets the typography of its source where it is clear what belongs
where.

Only characters whose plain form means the same are replaced. A letter keeps its accents: a word
that the model cannot read is protected instead (`service/text/coverage.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.text.inline import MARK

DOUBLE_QUOTES, SINGLE_QUOTES = "“”„‟«»", "‘’‚‛‹›ʼ"
HYPHENS, LONG_DASHES, MINUS = "‐‑‒–", "—―⸺⸻", "−"
BETTER_TYPED = "“”„‘’‚–—"
"""What models may read, but translate better as it is typed, since most training text has it so
(docs/serving.md)."""
INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
LIGATURES = [chr(code) for code in range(0xFB00, 0xFB07)]
FULL_WIDTH = [chr(code) for code in range(0xFF01, 0xFF5F)]

PLAIN_FORMS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DOUBLE_QUOTES, ('"', "'")),
    **dict.fromkeys(SINGLE_QUOTES, ("'", '"')),
    **dict.fromkeys(HYPHENS + MINUS, ("-",)),
    **dict.fromkeys(LONG_DASHES, (" - ", ", ")),
    **dict.fromkeys(INVISIBLE, ("",)),
    **{letter: (unicodedata.normalize("NFKC", letter),) for letter in (*LIGATURES, *FULL_WIDTH)},
    "…": ("...", "."),
}
"""What may be sent for a character that a vocabulary lacks, best first."""

WORD = rf"[\w{MARK}]"
"""A letter, a digit, or something protected."""
LETTER = r"[^\W\d_]"
HYPHEN = f"[{HYPHENS}{MINUS}-]"
DOUBLE_QUOTE = re.compile(rf"«\s?|\s?»|[{DOUBLE_QUOTES}\"]")
OPENING_QUOTE = re.compile(rf"(?<!{WORD})[{SINGLE_QUOTES}'](?={WORD})")
CLOSING_QUOTE = re.compile(rf"(?:(?<={WORD})|(?<=[.,;:!?…]))[{SINGLE_QUOTES}'](?!\w)")
APOSTROPHE = re.compile(rf"(?<={WORD})[{SINGLE_QUOTES}'](?={LETTER})")
DASH = re.compile(rf"\s?[{LONG_DASHES}]\s?|(?:^|\s){HYPHEN}(?:\s|$)")
OWN_DASH = re.compile(r" [–—] ")
RANGE = re.compile(rf"(?<=\d){HYPHEN}(?=\d)")
SIGN = re.compile(rf"(?<![\w{MARK})]){HYPHEN}(?=\d)")
WORD_HYPHEN = re.compile(rf"(?<={WORD}){HYPHEN}(?={LETTER})|(?<={LETTER}){HYPHEN}(?=\d)")
ELLIPSIS = re.compile(r"…|\.{3}")
KINDS = (DOUBLE_QUOTE, DASH, RANGE, SIGN, WORD_HYPHEN, ELLIPSIS)
"""Marks of one kind each, however they are written."""
TIGHT_DASH = re.compile(rf"(?<=\S)[{HYPHENS}{MINUS}](?=\S)")
BESIDE_CHARS = 20
"""Characters on each side of a dash, at most, by which it is found again."""
NORMALISED = "…"
"""What models may write in plain form though they can read it: normalisation gives them `...`."""
GUILLEMET_SPACE = re.compile(r"(?<=«)\s|\s(?=»)")


FINAL_MARKS = re.compile(r"([!?]+)([\"'”’»)\]]{0,3})\Z")


def with_final_marks(source: str, translation: str) -> str:
    """The translation with as many exclamation and question marks at its end as the source has
    (`!!!`), if it ends with some of them."""
    if not source.endswith(("!!", "??", "!?", "?!"), 0, len(source.rstrip("\"'”’»)]"))):
        return translation
    marks, written = FINAL_MARKS.search(source), FINAL_MARKS.search(translation)
    if marks is None or written is None or not set(written[1]) <= set(marks[1]):
        return translation
    return translation[: written.start()] + marks[1] + written[2]


@dataclass(frozen=True)
class Typography:
    """The characters that a vocabulary lacks or reads worse, each with what is sent for it."""

    plain: Mapping[str, str]
    _replaced: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _restorable: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        characters = "".join(map(re.escape, self.plain))
        replaced = re.compile(f"[{characters}]" if characters else r"(?!)")
        object.__setattr__(self, "_replaced", replaced)
        object.__setattr__(self, "_restorable", re.compile(f"[{characters}{NORMALISED}]"))

    @classmethod
    def readable_by(cls, reads: Callable[[str], bool]) -> Typography:
        """That of a vocabulary; `reads` says whether it has all of a text. What it cannot read in
        any form is not replaced."""
        plain = {}
        for character, forms in PLAIN_FORMS.items():
            # Twice, since a vocabulary may have it at the beginning of a word only.
            if reads(character * 2):
                forms = forms[:1] if character in BETTER_TYPED else ()
            readable = (form for form in forms if reads(form * 2))
            if (form := next(readable, None)) is not None:
                plain[character] = form
        return cls(plain)

    def simplify(self, text: str) -> str:
        """The text with plain characters for those that the model lacks."""
        if not self._replaced.search(text):
            return text
        if "«" in self.plain:
            text = GUILLEMET_SPACE.sub("", text)
        return self._replaced.sub(lambda match: self.plain[match[0]], text)

    def restore(self, source: str, translation: str) -> str:
        """The translation with the typography of its source, where that was replaced.

        Marks of a kind (double quotes, dashes, …) are restored where the translation has as many as
        the source, single quotes where it has as many openings and closings; apostrophes follow the
        source's style. A dash without spaces also comes back between the words that it has in the
        source.
        """
        if not self._restorable.search(source):
            return translation
        for kind in KINDS:
            if self._is_lost(kind, source, translation):
                translation = _with_marks(kind, source, translation)
        if " - " in translation and " - " not in source and (own := OWN_DASH.search(translation)):
            translation = translation.replace(" - ", own[0])
        quotes = (OPENING_QUOTE, CLOSING_QUOTE)
        if all(len(kind.findall(source)) == len(kind.findall(translation)) for kind in quotes):
            for kind in quotes:
                if self._is_lost(kind, source, translation):
                    translation = _with_marks(kind, source, translation)
        translation = self._with_tight_dashes(source, translation)
        apostrophes = set(APOSTROPHE.findall(source))
        if len(apostrophes) == 1 and apostrophes <= self.plain.keys():
            translation = APOSTROPHE.sub(apostrophes.pop(), translation)
        return translation

    def _is_lost(self, kind: re.Pattern[str], source: str, translation: str) -> bool:
        """Whether a mark of this kind was replaced, and the translation wrote none so itself."""
        return any(map(self._restorable.search, kind.findall(source))) and not any(
            map(self._restorable.search, kind.findall(translation))
        )

    def _with_tight_dashes(self, source: str, translation: str) -> str:
        """The translation with dashes where it has the words beside them once, joined by the plain
        form."""
        for match in TIGHT_DASH.finditer(source):
            plain = self.plain.get(match[0])
            if plain is None:
                continue
            place = match.start()
            before = re.split(rf"\s|{HYPHEN}", source[max(0, place - BESIDE_CHARS) : place])[-1]
            after = re.split(rf"\s|{HYPHEN}", source[place + 1 : place + 1 + BESIDE_CHARS])[0]
            joined = f"{before}{plain}{after}"
            if before and after and translation.count(joined) == 1:
                translation = translation.replace(joined, f"{before}{match[0]}{after}")
        return translation


NOTHING_REPLACED = Typography({})
"""That of a model that gets every character as it is."""


def _with_marks(kind: re.Pattern[str], source: str, translation: str) -> str:
    """The translation with the source's marks of a kind, if it has as many."""
    marks = kind.findall(source)
    if len(kind.findall(translation)) != len(marks):
        return translation
    remaining = iter(marks)
    return kind.sub(lambda _: next(remaining), translation)

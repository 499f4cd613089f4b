"""What the readers of all file kinds share: units, errors, encodings, and text with inline codes.

A reader makes an `OpenFile`: units to translate, and a way to rebuild the file from their
translations. `decode` and `Encoding` convert text files. `Inline` converts text with codes
(formatting, images, fields) to the HTML that the translator gets, and back.

A code is a tag with a number; what it stands for is kept here. The translator keeps such tags and
puts them around the corresponding words. The names tell it what each tag is (see
`service/text/html.py`): `span` is a span within a sentence, `s` one that is struck out, `ruby` and
`rt` are words and their annotation, `bx` has no width, `x` is a word if spaces are around it, `ph`
is a word that stays, `br` is the end of a line.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from service.text.document import READERS, Format
from service.text.html import tokenize
from service.text.inline import Block

MAX_UNIT_CHARS = 20_000
"""Characters of a paragraph. The service searches a paragraph for protected spans without a break,
while other requests wait."""
MAX_MARKUP_CHARS = 1_000_000
"""Characters of a paragraph with its tags, which may hold pictures."""


class FileError(ValueError):
    """The file cannot be translated; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class Unit:
    """A text that is translated as one."""

    text: str
    format: Format


NOT_TRANSLATED = "not_translated"
TOO_LONG = "too_long_for_place"


@dataclass(frozen=True)
class UnitWarning:
    """Something that a reader of the result should know of one text of a file.

    `place` is how the file itself names the text (an id, a line); `code` is `not_translated`,
    `too_long_for_place`, or that of a translation's warning.
    """

    place: str
    code: str
    message: str


class OpenFile(Protocol):
    """A file that has been read and checked. The same bytes always give the same units."""

    units: Sequence[Unit]
    """The texts to translate, in document order."""
    places: Sequence[str]
    """How the file names each of them: by an id, a line, its beginning."""
    incomplete: Collection[int] = ()
    """Which of them are known not to be translated whole, by number. Set before `rebuild`, so that
    no state of a file says that they are."""

    def warnings(self, translations: Sequence[str]) -> Sequence[UnitWarning]:
        """What is left as it was, or may not be usable, in a file with these translations."""
        return ()

    def rebuild(self, translations: Sequence[str]) -> bytes:
        """The whole file with these translations, one for each unit, in its format.

        May be called again. Raises ValueError if there are more or fewer translations than
        units, FileError if the file cannot be written.
        """


def check_count(units: Sequence[Unit], translations: Sequence[str]) -> None:
    """Raise ValueError unless there is one translation for each unit."""
    if len(units) != len(translations):
        raise ValueError(f"{len(translations)} translations for {len(units)} units")


def check_units(units: Sequence[Unit]) -> None:
    """Raise FileError if a text is too long for the translator."""
    for unit in units:
        if len(unit.text) > MAX_UNIT_CHARS:
            _check_long(unit)


def _check_long(unit: Unit) -> None:
    chars, limit, what = len(unit.text), MAX_MARKUP_CHARS, " with its markup"
    if chars <= limit:
        items = READERS[unit.format](unit.text)
        chars = max((len(item.inline.text) for item in items if isinstance(item, Block)), default=0)
        limit, what = MAX_UNIT_CHARS, ""
    if chars > limit:
        raise FileError(
            f"a paragraph of the file has {chars:,} characters{what}, at most {limit:,} are "
            "possible; part it"
        )


BEGINNING = 40
"""Characters by which a text is named."""


def beginning(inline: Inline) -> str:
    """The first words of a paragraph, as the name of its place."""
    text = " ".join(inline.shown.split())
    return f"“{text if len(text) <= BEGINNING else text[:BEGINNING].rstrip() + '…'}”"


BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LEGACY = {
    "cp1250": "cs hr hu pl ro sk sl sq",
    "cp1251": "be bg kk ky mk mn ru sr tg uk",
    "cp1253": "el",
    "cp1254": "az tr",
    "cp1255": "he yi",
    "cp1256": "ar fa ur",
    "cp1257": "et lt lv",
    "cp1258": "vi",
    "cp874": "th",
    "cp932": "ja",
    "cp936": "zh",
    "cp949": "ko",
}
LEGACY_OF = {
    language: codec for codec, languages in LEGACY.items() for language in languages.split()
}
"""The likeliest encoding of text that is not Unicode, by language; cp1252 for all others."""
DECLARED = re.compile(
    r"utf-?8|utf-?16(?:-?[lb]e)?|us-ascii|ascii|latin-?1|iso-?8859-?\d{1,2}|iso-2022-jp"
    r"|(?:windows-?|cp)(?:125\d|874|932|936|949|950)|koi8-[rtu]|shift[-_]?jis|euc-?(?:jp|kr)"
    r"|gb2312|gbk|gb18030|big5|macintosh|mac-?roman",
    re.IGNORECASE,
)
"""Names that a file may give as its encoding; all are decoded in linear time."""
NEVER = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Encoding:
    """How a text was written."""

    codec: str
    bom: bytes = b""

    def encode(self, text: str, *, references: bool = False) -> bytes:
        """The text in this encoding, else in UTF-8 where a character is not in it; `references`:
        such a character is written as `&#…;`. What no text file can have is left out."""
        text = NEVER.sub("", text)
        try:
            return self.bom + text.encode(
                self.codec, "xmlcharrefreplace" if references else "strict"
            )
        except UnicodeError:
            return codecs.BOM_UTF8 + text.encode("utf-8", "replace")


def decode(data: bytes, language: str = "", declared: str | None = None) -> tuple[str, Encoding]:
    """A text file's text, all line breaks as they are, and its encoding.

    A byte order mark decides, then what the file says of itself (`declared`), then whether it is
    UTF-8 or UTF-16; else it is taken for the old encoding of its `language`. Raises FileError for
    bytes that are no text.
    """
    encoding = _encoding(data, language, declared)
    try:
        text = data[len(encoding.bom) :].decode(encoding.codec)
    except (UnicodeError, LookupError) as error:
        raise FileError(f"the file is not text in {encoding.codec}; save it as UTF-8") from error
    if "\0" in text:
        raise FileError("the file has null characters, so it is no text; give a text file")
    return text, encoding


def _encoding(data: bytes, language: str, declared: str | None) -> Encoding:
    for bom, codec in BOMS:
        if data.startswith(bom):
            return Encoding(codec, bom)
    if declared and DECLARED.fullmatch(declared.strip()):
        name = declared.strip().lower()
        if not name.replace("-", "").startswith("utf16"):
            return Encoding(re.sub(r"^windows-?(?=\d)", "cp", name))
    even, odd = data[:4000:2].count(0), data[1:4000:2].count(0)
    most = min(len(data), 4000) / 2 * 0.6
    if odd > most > even:
        return Encoding("utf-16-le")
    if even > most > odd:
        return Encoding("utf-16-be")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        codec = LEGACY_OF.get(language.split("-")[0].lower(), "cp1252")
        try:
            data.decode(codec)
        except UnicodeDecodeError:
            codec = "latin-1"
        return Encoding(codec)
    return Encoding("utf-8")


ID = re.compile(r'\sid="(\d{1,9})"')
HARD_SPACES = {ord(space): f"&#{ord(space)};" for space in "\u00a0\u202f\u2009"}
"""Spaces that the translator keeps in HTML only."""
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
BREAKS = ("\n", "\t")
"""Codes that plain text has as they are."""
EventKind = Literal["text", "open", "close", "point"]


@dataclass(frozen=True, slots=True)
class Event:
    """Text, an end of a stretch, or something without text; `code` is what the reader of the file
    gave for it. `tag` is what the translator gets for a point, `shown` what is in a word."""

    kind: EventKind
    text: str = ""
    code: Any = None
    tag: str = ""
    shown: str = ""


class Inline:
    """Collects the text and the codes of a paragraph, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._parts: list[str] = []
        self._numbers: list[tuple[EventKind, int]] = []
        self._codes: list[Any] = []
        self._ends: dict[int, Any] = {}
        self._open: list[tuple[int, str]] = []
        self._in_order: dict[int, None] = {}

    def text(self, text: str) -> None:
        """Add text as a reader sees it."""
        if text:
            self.events.append(Event("text", text))
            self._parts.append(html.escape(text, quote=False).translate(HARD_SPACES))

    def lines(self, text: str) -> None:
        """Add text whose line breaks and tabs count; each is a code, the break itself."""
        for part in re.split("([\n\t])", text):
            (self.line if part in BREAKS else self.text)(part)

    def open(self, code: Any, name: str = "span") -> None:
        """Begin a stretch; its `name` is one of HTML."""
        number = self._add("open", code, name)
        self._open.append((number, name))
        self._parts.append(f'<{name} id="{number}">')

    def close(self, code: Any = None) -> None:
        """End the stretch that was begun last; its code is that of the beginning, if not given."""
        number, name = self._open.pop()
        self._numbers.append(("close", number))
        self._ends[number] = self._codes[number] if code is None else code
        self.events.append(Event("close", code=self._ends[number]))
        self._parts.append(f"</{name}>")

    def point(self, code: Any, name: str = "bx") -> None:
        """Add something that is no part of the sentence: an anchor, an image."""
        self._parts.append(f'<{name} id="{self._add("point", code, name)}"/>')

    def placeholder(self, code: Any) -> None:
        """Add something that stands for a word if spaces are around it."""
        self._parts.append(f'<x id="{self._add("point", code, "x")}"/>')

    def word(self, code: Any, shown: str, *, in_order: bool = False) -> None:
        """Add something that stands for a word, and is kept: a field. Words `in_order` keep the
        order of the source among each other."""
        number = self._add("point", code, "ph", shown)
        if in_order:
            self._in_order[number] = None
        self._parts.append(f'<ph id="{number}">{html.escape(shown, quote=False)}</ph>')

    def line(self, code: Any) -> None:
        """Add a break of the line or a tab: sentences end here."""
        self._parts.append(f'<br id="{self._add("point", code, "br")}"/>')

    def add(self, event: Event) -> None:
        """Add what stands in another paragraph."""
        match event.kind, event.tag:
            case "text", _:
                self.text(event.text)
            case "open", name:
                self.open(event.code, name)
            case "close", _:
                self.close(event.code)
            case _, "x":
                self.placeholder(event.code)
            case _, "ph":
                self.word(event.code, event.shown)
            case _, "br":
                self.line(event.code)
            case _, name:
                self.point(event.code, name)

    def _add(self, kind: EventKind, code: Any, tag: str = "", shown: str = "") -> int:
        number = len(self._codes)
        self._codes.append(code)
        self._numbers.append((kind, number))
        self.events.append(Event(kind, "", code, tag, shown))
        return number

    @property
    def shown(self) -> str:
        """The text without codes."""
        return "".join(event.text for event in self.events)

    @property
    def translatable(self) -> bool:
        """Whether there is a letter in the text."""
        return any(map(str.isalpha, self.shown))

    @property
    def unit(self) -> Unit:
        """What the translator gets: HTML where there is anything but text and line breaks."""
        text = "".join(event.code if event.code in BREAKS else event.text for event in self.events)
        if any(code not in BREAKS for code in self._codes) or not HARD_SPACES.keys().isdisjoint(
            map(ord, text)
        ):
            return Unit("".join(self._parts), "html")
        return Unit(text, "text")

    def translated(self, translation: str) -> Sequence[Event]:
        """The events of a translation of `unit`.

        If it lacks a code, has one twice or crosses two, its text stands where the first text was,
        and all codes stay in their places.
        """
        unit = self.unit
        if translation == unit.text:
            return self.events
        if unit.format == "text":
            return [Event("text", without_controls(translation))]
        parsed = _parse(translation)
        if not _complete(parsed, self._numbers):
            return self._all_at_first("".join(item for item in parsed if isinstance(item, str)))
        ordered = iter(self._in_order)
        parsed = [
            ("point", next(ordered))
            if not isinstance(item, str) and item[0] == "point" and item[1] in self._in_order
            else item
            for item in parsed
        ]
        return [
            Event("text", item)
            if isinstance(item, str)
            else Event(item[0], code=(self._ends if item[0] == "close" else self._codes)[item[1]])
            for item in parsed
        ]

    def _all_at_first(self, text: str) -> list[Event]:
        events: list[Event] = []
        for event in self.events:
            if event.kind != "text":
                events.append(event)
            elif text:
                events.append(Event("text", text))
                text = ""
        return events


Parsed = str | tuple[EventKind, int]


def _parse(translation: str) -> list[Parsed]:
    """Text and numbered codes of what the translator gave; other tags are left out."""
    parsed: list[Parsed] = []
    waiting: list[int] = []
    word = False
    for token in tokenize(translation):
        found = ID.search(token.raw)
        if token.kind == "text" and not word:
            parsed.append(without_controls(html.unescape(token.raw)))
        elif token.name == "ph":
            word = token.kind == "open"
            if word and found:
                parsed.append(("point", int(found[1])))
        elif token.kind == "open" and found:
            waiting.append(int(found[1]))
            parsed.append(("open", waiting[-1]))
        elif token.kind == "close":
            parsed.append(("close", waiting.pop() if waiting else -1))
        elif token.kind == "void" and found:
            parsed.append(("point", int(found[1])))
    return parsed


def _complete(parsed: Sequence[Parsed], numbers: Sequence[tuple[EventKind, int]]) -> bool:
    """Whether each code is there once, as it was."""
    return sorted(item for item in parsed if not isinstance(item, str)) == sorted(numbers)


def without_controls(text: str) -> str:
    """Text without what XML cannot hold."""
    return NOT_XML.sub("", text)

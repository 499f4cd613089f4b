"""gettext catalogues: fills in empty `msgstr`, or all where it is asked for; all other lines stay
byte for byte.

Lines are read here, because libraries that parse catalogues rewrite all of them. Format:
https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from service.documents.base import (
    NOT_TRANSLATED,
    Encoding,
    FileError,
    Inline,
    OpenFile,
    Unit,
    UnitWarning,
    check_count,
    decode,
)
from service.documents.formats import Syntax, fitted, protected, syntaxes_of
from service.documents.messages import CHOICE_LEFT, Message, message_of
from service.documents.po_header import ONE_ALONE, PLURAL_COUNT, completed
from service.text.accelerators import Accelerator, put_in, take_out
from service.text.patterns import PROTECTED

CHARSET = re.compile(rb"charset=([\w-]{1,40})", re.IGNORECASE)
HEADER_WITHIN = 8192
"""Bytes from the start within which the header names the encoding."""
LINE = re.compile(r"[^\n]*\n|[^\n]+")
KEYWORD = r"(?P<name>msgctxt|msgid_plural|msgid|msgstr(?:\s*\[\s*(?P<form>\d{1,2})\s*\])?)"
QUOTED = r'"(?:[^"\\]|\\.)*+"'
STATEMENT = re.compile(rf"(?:{KEYWORD}\s*)?(?P<strings>(?:{QUOTED}\s*)*+)")
STRING = re.compile(QUOTED)
ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))")
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
ESCAPED = {ord(value): f"\\{letter}" for letter, value in LETTERS.items()} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
WIDTH = 76
"""Characters of a string on one line, where the file wraps its strings."""
PAIR = 2
"""Plural forms of most languages, one of which is for one thing."""


@dataclass
class PoString:
    """A string of an entry: which lines it takes, and what it says."""

    start: int
    end: int
    parts: list[str]

    @property
    def value(self) -> str:
        return "".join(self.parts)


@dataclass
class PoEntry:
    """A message; `flags`, `previous` and `before` are lines: those of its flags, those of the
    message that its translation was made of, and where flags would go. `is_replaced`: it is
    translated although it has a translation."""

    before: int = -1
    flags: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    texts: dict[str, PoString] = field(default_factory=dict)
    is_replaced: bool = False

    @property
    def open(self) -> list[str]:
        """Names of its strings to fill."""
        return [
            name
            for name, text in self.texts.items()
            if name.startswith("msgstr") and (self.is_replaced or not text.value)
        ]

    @property
    def forms(self) -> list[str]:
        """Names of its strings of a plural."""
        return [name for name in self.texts if name.startswith("msgstr[")]


@dataclass(frozen=True)
class PoSource:
    """A string to translate: that of which entry, and what the translator gets of it."""

    entry: int
    name: str
    message: Message
    accelerators: Sequence[Accelerator]


class PoFile(OpenFile):
    """A catalogue; its units are the messages without a translation, or all of them
    (`replace_all`); a plural after its singular."""

    def __init__(self, text: str, encoding: Encoding, target: str, replace_all: bool) -> None:
        self.encoding, self.target = encoding, target
        self.lines = LINE.findall(text)
        entries = [_replaced(entry) if replace_all else entry for entry in _read(self.lines)]
        self.header = next((one for one in entries if _is_header(one)), None)
        self.has_plurals = any(entry.forms for entry in entries)
        has_value = self.header is not None and "msgstr" in self.header.texts
        said = self.header.texts["msgstr"].value if self.header and has_value else ""
        self.new_header = completed(said, target, encoding, self.has_plurals)
        found = PLURAL_COUNT.search(self.new_header)
        self.plurals = int(found[1]) if found and int(found[1]) else None
        self.first_is_one = ONE_ALONE.search(self.new_header) is not None
        self.entries = [one for one in entries if one.open and not _is_header(one)]
        self.left: list[UnitWarning] = []
        self.sources: list[PoSource] = []
        for at, entry in enumerate(self.entries):
            self._add_sources(at, entry)
        self.units: Sequence[Unit] = [
            inline.unit for source in self.sources for inline in source.message.inlines
        ]
        self.places = [
            self._place(self.entries[source.entry])
            for source in self.sources
            for _ in source.message.inlines
        ]

    def _add_sources(self, at: int, entry: PoEntry) -> None:
        syntaxes = syntaxes_of(self._flags(entry))
        for name in self._wanted(entry):
            text, accelerators = take_out(entry.texts[name].value)
            message = message_of(_inline(text, syntaxes))
            if message is None:
                self.left.append(self._warning(entry, CHOICE_LEFT))
            else:
                self.sources.append(PoSource(at, name, message, accelerators))

    def _flags(self, entry: PoEntry) -> list[str]:
        return [
            flag
            for at in entry.flags
            for flag in re.split(r"[,\s]+", self.lines[at].strip()[2:])
            if flag
        ]

    def _warning(self, entry: PoEntry, reason: str) -> UnitWarning:
        return UnitWarning(self._place(entry), NOT_TRANSLATED, reason)

    @staticmethod
    def _place(entry: PoEntry) -> str:
        return f"line {entry.texts['msgid'].start + 1}"

    def _wanted(self, entry: PoEntry) -> list[str]:
        """Which of an entry's strings are needed in translation."""
        names = dict.fromkeys(self._source_of(entry, name) for name in self._to_fill(entry))
        order = ("msgid", "msgid_plural")
        return [
            name
            for name in order
            if name in names and any(map(str.isalpha, entry.texts[name].value))
        ]

    def _to_fill(self, entry: PoEntry) -> list[str]:
        """The strings of an entry to fill: of a plural as many as the language has."""
        if not entry.forms or self.plurals is None:
            return entry.open
        wanted = [f"msgstr[{number}]" for number in range(self.plurals)]
        filled = set(entry.forms) - set(entry.open)
        return [name for name in wanted if name not in filled]

    def _source_of(self, entry: PoEntry, name: str) -> str:
        """Which string of an entry a translation is made of: the singular for the form of one."""
        if "msgid_plural" not in entry.texts:
            return "msgid"
        forms = self.plurals or len(entry.forms)
        if name != "msgstr[0]" or forms == 1:
            return "msgid_plural"
        if forms > PAIR and not self.first_is_one:
            syntaxes = syntaxes_of(self._flags(entry))
            one, many = (entry.texts[text].value for text in ("msgid", "msgid_plural"))
            if any(fitted(many, one, syntax) is None for syntax in syntaxes):
                return "msgid_plural"
        return "msgid"

    def _translated(
        self, translations: Sequence[str]
    ) -> tuple[dict[int, dict[str, str]], list[UnitWarning]]:
        """Translations by entry and string, and the entries whose translations do not fit."""
        translated: dict[int, dict[str, str]] = {}
        warnings = list(self.left)
        remaining = iter(translations)
        for source in self.sources:
            events = source.message.events([next(remaining) for _ in source.message.inlines])
            text: str | None = "".join(event.code or event.text for event in events)
            entry = self.entries[source.entry]
            original = take_out(entry.texts[source.name].value)[0]
            for syntax in syntaxes_of(self._flags(entry)):
                text = fitted(original, text, syntax) if text is not None else None
            if text is None:
                warnings.append(self._warning(entry, "its placeholders came out otherwise"))
                continue
            text = put_in(text, source.accelerators)
            translated.setdefault(source.entry, {})[source.name] = text
        return translated, warnings

    def warnings(self, translations: Sequence[str]) -> Sequence[UnitWarning]:
        return self._translated(translations)[1]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        lines = list(self.lines)
        translated, _ = self._translated(translations)
        for at, by_name in translated.items():
            self._write(lines, self.entries[at], by_name)
        if translated:
            self._write_header(lines)
        return self._encoded("".join(lines))

    def _write(self, lines: list[str], entry: PoEntry, known: dict[str, str]) -> None:
        """Fill an entry's strings in their lines, and flag it as not yet reviewed. A plural that
        lacks a translation is left."""
        end = self._line_end(entry)
        wrapped = any(text.end - text.start > 1 for text in entry.texts.values())
        to_fill = self._to_fill(entry)
        written: dict[str, list[str]] = {}
        for name in to_fill:
            original = self._source_of(entry, name)
            source = entry.texts[original].value
            translation = known.get(original)
            if translation is None and not any(map(str.isalpha, source)):
                translation = source
            if not translation:
                continue
            written[name] = _written(name, _with_ends_of(source, translation), wrapped)
        if not written or len(written) < len(to_fill):
            return
        place = max(text.end for text in entry.texts.values())
        if not lines[place - 1].endswith("\n"):
            lines[place - 1] += end
        for at in entry.previous if entry.is_replaced else ():
            lines[at] = ""
        if entry.forms and len(entry.open) == len(entry.forms):
            for name in set(entry.forms) - set(to_fill):
                _replace(lines, entry.texts[name], "")
        for name in to_fill:
            text = end.join(written[name]) + end
            if name in entry.texts:
                _replace(lines, entry.texts[name], text)
            else:
                lines[place - 1] += text
        self._flag(lines, entry, end)

    def _line_end(self, entry: PoEntry) -> str:
        return "\r\n" if self.lines[entry.before].endswith("\r\n") else "\n"

    def _flag(self, lines: list[str], entry: PoEntry, end: str) -> None:
        if not entry.flags:
            lines[entry.before] = f"#, fuzzy{end}" + lines[entry.before]
        elif "fuzzy" not in self._flags(entry):
            first = entry.flags[0]
            lines[first] = re.sub(r"#,\s*", "#, fuzzy, ", lines[first], count=1)

    def _write_header(self, lines: list[str]) -> None:
        """Complete the header, or put one before all else."""
        if self.header is None:
            end = self._line_end(self.entries[0])
            header = ['msgid ""', *_written("msgstr", self.new_header, False), "", ""]
            lines[0] = end.join(header) + lines[0]
            return
        text = self.header.texts["msgstr"]
        if self.new_header == text.value:
            return
        end = self._line_end(self.header)
        _replace(lines, text, end.join(_written("msgstr", self.new_header, False)) + end)

    def _encoded(self, text: str) -> bytes:
        """In the file's encoding; in UTF-8, and said so, where that has not all characters."""
        try:
            text.encode(self.encoding.codec)
            encoding = self.encoding
        except UnicodeError:
            encoding = Encoding("utf-8")
        if encoding is not self.encoding or re.search(r"charset=CHARSET\b", text[:HEADER_WITHIN]):
            text = re.sub(r"(?<=charset=)[\w-]{1,40}", "UTF-8", text, count=1)
        return encoding.encode(text)


def open_po(
    data: bytes, source: str, target: str, max_unit_chars: int, replace: bool = False
) -> PoFile:
    """A catalogue or its template. Raises FileError for a line that is none of a catalogue's."""
    found = CHARSET.search(data[:HEADER_WITHIN])
    declared = found[1].decode("ascii") if found else None
    return PoFile(*decode(data, source, declared), target, replace)


def _inline(text: str, syntaxes: Sequence[Syntax]) -> Inline:
    """A message; directives that are not protected in any text become words."""
    spans = sorted(span for syntax in syntaxes for span in protected(text, syntax))
    everywhere = {match.span() for match in PROTECTED.finditer(text)} if spans else set()
    inline = Inline()
    place = 0
    for start, end in spans:
        if start < place or (start, end) in everywhere:
            continue
        inline.lines(text[place:start])
        inline.word(text[start:end], text[start:end])
        place = end
    inline.lines(text[place:])
    return inline


def _replace(lines: list[str], text: PoString, new: str) -> None:
    """Put other lines in place of a string's."""
    lines[text.start : text.end] = [""] * (text.end - text.start)
    lines[text.start] = new


def _is_header(entry: PoEntry) -> bool:
    return not entry.texts["msgid"].value and "msgctxt" not in entry.texts


def _replaced(entry: PoEntry) -> PoEntry:
    """An entry that is translated although it has a translation, if it has one."""
    has_any = any(text.value for name, text in entry.texts.items() if name.startswith("msgstr"))
    return replace(entry, is_replaced=has_any)


def _read(lines: Sequence[str]) -> Iterator[PoEntry]:
    """The entries that are in use. Raises FileError."""
    entry, current = PoEntry(), None
    for at, raw in enumerate(lines):
        line = raw.strip()
        if line.startswith("#~"):
            if entry.texts:
                yield _checked(entry, at)
            entry, current = PoEntry(), None  # comments before an obsolete entry are its own
            continue
        if not line or line.startswith("domain "):
            continue
        if line.startswith("#"):
            if entry.texts:
                yield _checked(entry, at)
                entry = PoEntry()
            current = None
            if line.startswith(("#,", "#=")):
                entry.flags.append(at)
            elif line.startswith("#|"):
                entry.previous.append(at)
                entry.before = at if entry.before < 0 else entry.before
            continue
        match = STATEMENT.fullmatch(line)
        if match is None:
            raise FileError(f"line {at + 1} is none of a gettext catalogue: {line[:40]!r}")
        name, form = match["name"], match["form"]
        parts = [_unescaped(quoted[1:-1]) for quoted in STRING.findall(match["strings"])]
        if name is None:
            if current is None:
                raise FileError(f"line {at + 1} goes on with a string that has not begun")
            current.parts += parts
            current.end = at + 1
            continue
        name = f"msgstr[{int(form)}]" if form else name
        if name in ("msgctxt", "msgid") and "msgid" in entry.texts:
            yield _checked(entry, at)
            entry = PoEntry()
        if name in entry.texts:
            raise FileError(f"line {at + 1} has {name} again; an entry may have one")
        entry.before = at if entry.before < 0 else entry.before
        current = entry.texts[name] = PoString(at, at + 1, parts)
    if entry.texts:
        yield _checked(entry, len(lines))


def _checked(entry: PoEntry, at: int) -> PoEntry:
    plural = "msgid_plural" in entry.texts
    if "msgid" not in entry.texts or ("msgstr[0]" if plural else "msgstr") not in entry.texts:
        raise FileError(f"the entry before line {at + 1} has no msgid or no msgstr")
    if any(name.startswith("msgstr") and (name == "msgstr") is plural for name in entry.texts):
        raise FileError(f"the entry before line {at + 1} has both msgstr and msgstr[0]")
    return entry


def _unescaped(value: str) -> str:
    def meant(match: re.Match[str]) -> str:
        octal, hexadecimal, letter = match.groups()
        if letter is None:
            return chr(int(octal, 8) if octal else int(hexadecimal, 16))
        return LETTERS.get(letter, letter)

    return ESCAPE.sub(meant, value)


def _with_ends_of(source: str, translation: str) -> str:
    """A translation with the line breaks around its source, as gettext asks."""
    if not source.strip("\n"):
        return translation
    before = source[: len(source) - len(source.lstrip("\n"))]
    after = source[len(source.rstrip("\n")) :]
    return before + translation.strip("\n") + after


def _written(name: str, text: str, wrapped: bool) -> list[str]:
    """A string as lines of a catalogue."""
    lines = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        row = ""
        for word in re.findall(r"\S+\s*|\s+", line) if wrapped else [line]:
            word = word.translate(ESCAPED)
            if row and len(row) + len(word) > WIDTH:
                lines.append(row)
                row = ""
            row += word
        lines.append(row)
    if len(lines) < 2:
        return [f'{name} "{"".join(lines)}"']
    return [f'{name} ""', *(f'"{line}"' for line in lines)]

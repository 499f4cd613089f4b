"""gettext catalogues: fills in empty `msgstr`; all other lines stay byte for byte.

Lines are read here, because libraries that parse catalogues rewrite all of them. Format:
https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.documents.accelerators import put_in, take_out
from service.documents.base import Encoding, FileError, OpenFile, Unit, check_count, decode

CHARSET = re.compile(rb"charset=([\w-]{1,40})", re.IGNORECASE)
HEADER_WITHIN = 8192
"""Bytes from the start within which the header names the encoding."""
LINE = re.compile(r"[^\n]*\n|[^\n]+")
STRING = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?)\s*)?"((?:[^"\\]|\\.)*+)"')
ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))")
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
ESCAPED = {ord(value): f"\\{letter}" for letter, value in LETTERS.items()} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
WIDTH = 76
"""Characters of a string on one line, where the file wraps its strings."""


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
    """A message; `flags` and `before` are lines: its flags, and where flags would go."""

    before: int = -1
    flags: int = -1
    texts: dict[str, PoString] = field(default_factory=dict)

    @property
    def empty(self) -> list[str]:
        """Names of its strings to fill."""
        return [
            name
            for name, text in self.texts.items()
            if name.startswith("msgstr") and not text.value
        ]


class PoFile(OpenFile):
    """A catalogue; its units are the messages without a translation, a plural after its
    singular."""

    def __init__(self, text: str, encoding: Encoding) -> None:
        self.encoding = encoding
        self.lines = LINE.findall(text)
        entries = list(_read(self.lines))
        header = next((one for one in entries if _is_header(one)), None)
        said = header.texts["msgstr"].value if header and "msgstr" in header.texts else ""
        found = re.search(r"nplurals\s{0,9}=\s{0,9}(\d)", said)
        self.plurals = int(found[1]) if found else None
        self.entries = [one for one in entries if one.empty and not _is_header(one)]
        self.sources: list[tuple[int, str]] = []
        for at, entry in enumerate(self.entries):
            self.sources += [(at, name) for name in self._wanted(entry)]
        messages = [take_out(self.entries[at].texts[name].value) for at, name in self.sources]
        self.accelerators = [accelerators for _, accelerators in messages]
        self.units: Sequence[Unit] = [Unit(message, "text") for message, _ in messages]

    def _wanted(self, entry: PoEntry) -> list[str]:
        """Which of an entry's strings are needed in translation."""
        singular = self._forms(entry) > 1 or "msgid_plural" not in entry.texts
        names = ["msgid"] if singular and entry.empty[0] in ("msgstr", "msgstr[0]") else []
        if "msgid_plural" in entry.texts and (entry.empty != ["msgstr[0]"] or not singular):
            names.append("msgid_plural")
        return [name for name in names if any(map(str.isalpha, entry.texts[name].value))]

    def _forms(self, entry: PoEntry) -> int:
        return self.plurals or sum(name.startswith("msgstr") for name in entry.texts)

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        lines = list(self.lines)
        known: dict[int, dict[str, str]] = {}
        for (at, name), accelerators, translation in zip(
            self.sources, self.accelerators, translations, strict=True
        ):
            known.setdefault(at, {})[name] = put_in(translation, accelerators)
        for at, by_name in known.items():
            self._write(lines, self.entries[at], by_name)
        return self._encoded("".join(lines))

    def _write(self, lines: list[str], entry: PoEntry, known: dict[str, str]) -> None:
        """Fill an entry's strings in their lines, and flag it as not yet reviewed."""
        source = entry.texts["msgid"]
        end = "\r\n" if lines[entry.before].endswith("\r\n") else "\n"
        wrapped = any(text.end - text.start > 1 for text in entry.texts.values())
        filled = False
        for name in entry.empty:
            only = name == "msgstr" or (name == "msgstr[0]" and self._forms(entry) > 1)
            original = "msgid" if only else "msgid_plural"
            translation = known.get(original, entry.texts[original].value)
            if not translation:
                continue
            text, filled = entry.texts[name], True
            written = _written(name, _with_ends_of(source.value, translation), wrapped)
            last = lines[text.end - 1].endswith("\n")
            lines[text.start : text.end] = [""] * (text.end - text.start)
            lines[text.start] = end.join(written) + (end if last else "")
        if not filled:
            return
        if entry.flags < 0:
            lines[entry.before] = f"#, fuzzy{end}" + lines[entry.before]
        elif "fuzzy" not in re.split(r"[,\s]+", lines[entry.flags]):
            lines[entry.flags] = re.sub(r"#,\s*", "#, fuzzy, ", lines[entry.flags], count=1)

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


def open_po(data: bytes, source: str, target: str, max_unit_chars: int) -> PoFile:
    """A catalogue or its template. Raises FileError for a line that is none of a catalogue's."""
    found = CHARSET.search(data[:HEADER_WITHIN])
    return PoFile(*decode(data, source, found[1].decode("ascii") if found else None))


def _is_header(entry: PoEntry) -> bool:
    return not entry.texts["msgid"].value and "msgctxt" not in entry.texts


def _read(lines: Sequence[str]) -> Iterator[PoEntry]:
    """The entries that are in use. Raises FileError."""
    entry, current = PoEntry(), None
    for at, raw in enumerate(lines):
        line = raw.strip()
        if not line or line.startswith("#~") or line.startswith("domain "):
            current = None
            continue
        if line.startswith("#"):
            if entry.texts:
                yield _checked(entry, at)
                entry = PoEntry()
            current = None
            if line.startswith("#,"):
                entry.flags = at
            elif line.startswith("#|") and entry.before < 0:
                entry.before = at
            continue
        match = STRING.fullmatch(line)
        if match is None:
            raise FileError(f"line {at + 1} is none of a gettext catalogue: {line[:40]!r}")
        name, value = match.groups()
        if name is None:
            if current is None:
                raise FileError(f"line {at + 1} goes on with a string that has not begun")
            current.parts.append(_unescaped(value))
            current.end = at + 1
            continue
        if name in ("msgctxt", "msgid") and "msgid" in entry.texts:
            yield _checked(entry, at)
            entry = PoEntry()
        if name in entry.texts:
            raise FileError(f"line {at + 1} has {name} again; an entry may have one")
        entry.before = at if entry.before < 0 else entry.before
        current = entry.texts[name] = PoString(at, at + 1, [_unescaped(value)])
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
    """A translation that begins and ends with a line break if its source does, as gettext asks."""
    translation = translation.strip("\n")
    before = "\n" if source.startswith("\n") else ""
    after = "\n" if source.endswith("\n") and source != "\n" else ""
    return before + translation + after


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

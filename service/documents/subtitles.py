"""SubRip and WebVTT subtitles: the text of each cue, rewrapped; all else stays byte for byte.

Names of speakers and sounds are translated apart from what is said. Text after a blank line, which
many players show, belongs to the cue before it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from service.documents.base import Event, FileError, Inline, OpenFile, Unit, check_count, decode
from service.documents.xml import base_language
from service.text.abbreviations import ends_sentence
from service.text.wrapping import filled


def wrap(text: str, count: int, width: int) -> set[int]:
    """Which spaces of a text to make line breaks, so that it has `count` lines of about the same
    length, or more where they would be longer than `width` characters."""
    count = max(count, ceil(len(text) / width))
    places = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", text)]
    low, high = ceil(len(text) / count), len(text)
    while low < high:
        middle = (low + high) // 2
        if len(filled(places, len(text), middle)) < count:
            high = middle
        else:
            low = middle + 1
    return set(filled(places, len(text), low))


LINE = re.compile(r"[^\n]*\n|[^\n]+")
STAMP = r"(?:\d{1,4}:)?\d{1,2}:\d{1,2}[.,]\d{1,4}"
TIMES = re.compile(rf"\s*+{STAMP}[ \t]*+-->[ \t]*+{STAMP}.*", re.DOTALL)
KEPT_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
MARK = re.compile(
    r"\{\\[^{}\n]{0,500}\}|</?(?P<name>[A-Za-z]\w{0,20})[^<>\n]{0,500}>|<\d[\d:.]{0,20}>"
)
"""Override codes, tags, times within a cue."""
MEANING = ("s", "ruby", "rt")
"""Tags that say how the text in them belongs to the text around it."""
JOINER = "\u2060"
"""Has no width; within a mark, it keeps players from taking it for one."""
BREAK = re.compile(r"(\n|[ ]?(?<!:)\\N[ ]?)")
"""The end of a line; `\\N` is that of Advanced SubStation, which players of SubRip know."""
HARD_SPACE = "\\h"
"""Its space that does not break."""
DASH = re.compile(r"\s*+(?:[-‐–—]|(?:>|&gt;){2,3})\s*+(?=\S|$)")
CAPITALS = r"[^\W\d_a-zß-ÿ]"
NAME = rf"{CAPITALS}[\w.'’-]{{0,30}}"
SPEAKER = re.compile(
    rf"\s*+(?:{CAPITALS}(?:{CAPITALS}|[\d .'’&#-]){{0,40}}:(?=\s|$)"
    rf"|{NAME}(?:[ ]{NAME}){{0,3}}:(?=[ ][\"'“¿¡…♪]?{CAPITALS}))"
)
"""Who speaks: `ANN:`, `MAN 2:`, `Tom Hill: We …`."""
SOUND = r"(?:\[[^\[\]\n]{1,200}\]|\([^()\n]{1,200}\))"
SOUND_BEFORE = re.compile(rf"\s*+{SOUND}(?=\s|$|:)")
SOUND_AFTER = re.compile(rf"(?<=\s){SOUND}\s*+$")
"""What is heard: `[door slams]`, `(sighs)`."""
VERSE = re.compile(r"\s*+[♪♫]")
"""What a line of a song begins with."""
SENTENCE_END = re.compile(r"(?:[.!?…]|[。！？])[\"'”’»)\]♪」』]*+\s*+\Z")
WITHOUT_SPACES = ("ja", "km", "lo", "my", "th", "zh")
"""Languages whose lines go on without a space."""
COMFORTABLE = 42
"""Characters a line may have even where the cue's own lines are shorter."""


MAX_LABELS = 4
"""Dashes, names and sounds that a line begins with; more are text."""


@dataclass(frozen=True)
class Mark:
    """A tag or the like as it stands in the file."""

    raw: str


@dataclass(frozen=True)
class NewLine:
    """A line break that stays one: a sentence ends there, or another speaker begins."""

    raw: str = "\n"


@dataclass(frozen=True)
class Cue:
    """Lines `start` up to `end` of the file, what they say, and the breaks between those that
    stay."""

    start: int
    end: int
    words: Inline
    breaks: Sequence[Sequence[str]]


class SubtitleFile(OpenFile):
    """Subtitles; a unit is the text of a cue, its lines joined."""

    def __init__(self, data: bytes, source: str, *, web: bool) -> None:
        text, self.encoding = decode(data, source, "utf-8" if web else None)
        if web and not text.startswith("WEBVTT"):
            raise FileError("the file is not WebVTT: it does not begin with WEBVTT")
        self.web = web
        self.lines = LINE.findall(text)
        space = "" if base_language(source) in WITHOUT_SPACES else " "
        cues = [
            Cue(start, end, *self._read("".join(self.lines[start:end]).rstrip(), space, source))
            for start, end in _cues(self.lines)
        ]
        if not cues and text.strip() and not web:
            raise FileError("the file has no subtitles: no line gives times as 00:00:01,000 --> …")
        self.cues = [cue for cue in cues if cue.words.translatable]
        self.units: Sequence[Unit] = [cue.words.unit for cue in self.cues]
        self.places = [f"line {cue.start + 1}" for cue in self.cues]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        lines = list(self.lines)
        for cue, unit, translation in zip(self.cues, self.units, translations, strict=True):
            if translation == unit.text:
                continue
            original = "".join(lines[cue.start : cue.end])
            written = self._written(cue.words.translated(translation), original, cue.breaks)
            if written:
                lines[cue.start : cue.end] = [""] * (cue.end - cue.start)
                lines[cue.start] = written
        return self.encoding.encode("".join(lines))

    def _read(self, text: str, space: str, language: str) -> tuple[Inline, list[list[str]]]:
        """The words of a cue, and the breaks between those that stay: a line that a dash, a name, a
        sound, a note of music or a sentence begins, stays a line."""
        words = Inline()
        breaks: list[list[str]] = [[]]
        paired = _pairs(text)
        parts = BREAK.split(text)
        was_label, before = False, ""
        for line, ended in zip(parts[::2], ["", *parts[1::2]], strict=True):
            plain = MARK.sub("", line)
            label = SOUND_BEFORE.match(plain) or SPEAKER.match(plain)
            begins = DASH.match(plain) or label or VERSE.match(plain)
            if ended and (was_label or begins or _parts_sentences(before, plain, language)):
                words.line(NewLine(ended))
                breaks.append([])
            elif ended:
                words.text(space)
                breaks[-1].append(ended)
            was_label = label is not None and not plain[label.end() :].strip()
            before = plain
            self._read_line(words, line.rstrip(), paired)
        return words, breaks

    def _read_line(self, words: Inline, line: str, paired: Iterator[bool]) -> None:
        place = 0
        begins = True
        for match in [*MARK.finditer(line), None]:
            part = line[place : match.start() if match else len(line)]
            for _ in range(MAX_LABELS):
                start = DASH.match(part) if begins else None
                if start is None:
                    break
                words.line(Mark(start.group()))
                part = part[start.end() :]
            for _ in range(MAX_LABELS):
                start = (SOUND_BEFORE.match(part) or SPEAKER.match(part)) if begins else None
                if start is None:
                    break
                self._add_text(words, start.group())
                part = part[start.end() :]
                gap = part[: len(part) - len(part.lstrip())]
                if part.strip(" :"):
                    words.line(Mark(gap))
                    part = part[len(gap) :]
            begins = begins and not part
            after = None if match else SOUND_AFTER.search(part)
            if after and part[: after.start()].strip():
                said = part[: after.start()]
                self._add_text(words, said.rstrip())
                words.line(Mark(said[len(said.rstrip()) :]))
                part = part[after.start() :]
            self._add_text(words, part)
            if match:
                self._add_mark(words, match, next(paired))
                place = match.end()

    def _add_text(self, words: Inline, text: str) -> None:
        text = text.replace(HARD_SPACE, "\u00a0")
        words.text(html.unescape(text) if self.web else text)

    @staticmethod
    def _add_mark(words: Inline, match: re.Match[str], paired: bool) -> None:
        raw = match.group()
        name = (match["name"] or "").lower()
        if not paired:
            words.point(Mark(raw), "rt" if name == "rt" and not raw.startswith("</") else "bx")
        elif raw.startswith("</"):
            words.close(Mark(raw))
        else:
            words.open(Mark(raw), name if name in MEANING else "span")

    def _written(
        self, events: Sequence[Event], original: str, breaks: Sequence[Sequence[str]]
    ) -> str:
        """A cue's text in about as many lines, ended as it was."""
        lines = [MARK.sub("", line).strip() for line in BREAK.split(original)[::2]]
        width = max(COMFORTABLE, *map(len, lines))
        lines_said: list[list[Event]] = [[]]
        starts: list[str] = [""]
        for event in events:
            if isinstance(event.code, NewLine):
                lines_said.append([])
                starts.append(event.code.raw)
            else:
                lines_said[-1].append(event)
        written = "".join(
            start + self._wrapped(said, inner, width)
            for start, said, inner in zip(starts, lines_said, breaks, strict=True)
        )
        for spelt in (HARD_SPACE, "&nbsp;"):
            if spelt in original and "\u00a0" not in original:
                written = written.replace("\u00a0", spelt)
                break
        written = "\n".join(line for line in written.split("\n") if line.strip())
        newline = "\r\n" if "\r\n" in original else "\n"
        end = original[len(original.rstrip()) :]
        return written.replace("\n", newline) + end if written else ""

    def _wrapped(self, events: Sequence[Event], breaks: Sequence[str], width: int) -> str:
        text = re.sub(r"[\r\n\t]", " ", "".join(event.text for event in events))
        places = sorted(wrap(text, len(breaks) + 1, width))
        ends = dict(zip(places, breaks, strict=False))
        last = breaks[-1] if breaks else "\n"
        break_at = {at: ends.get(at, last) for at in places}
        parts: list[str] = []
        place = 0
        for event in events:
            if event.kind != "text":
                parts.append(event.code.raw)
                continue
            end = place + len(event.text)
            line = "".join(
                break_at.get(at, character) for at, character in enumerate(text[place:end], place)
            )
            parts.append(html.escape(line, quote=False) if self.web else _without_marks(line))
            place = end
        return "".join(parts)


def _parts_sentences(before: str, after: str, language: str) -> bool:
    """Whether a sentence ends with a line and another one begins with the next."""
    first = after.lstrip("\"'“„‘«([¿¡ \t")[:1]
    if not SENTENCE_END.search(before) or not first.isalnum() or first.islower():
        return False
    return ends_sentence(f"{before.rstrip()} {after}", len(before.rstrip()) + 1, language)


def _without_marks(text: str) -> str:
    """Text in which SubRip, which knows no escapes, finds no mark and no times."""
    text = text.replace("-->", f"--{JOINER}>")
    return MARK.sub(lambda mark: mark.group()[0] + JOINER + mark.group()[1:], text)


def open_srt(data: bytes, source: str, target: str, max_unit_chars: int) -> SubtitleFile:
    """SubRip subtitles. Raises FileError if there are none."""
    return SubtitleFile(data, source, web=False)


def open_vtt(data: bytes, source: str, target: str, max_unit_chars: int) -> SubtitleFile:
    """WebVTT subtitles. Raises FileError if it is not WebVTT."""
    return SubtitleFile(data, source, web=True)


def _cues(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the text of each cue starts and ends."""
    at = 0
    kept = False
    while at < len(lines):
        blank = not lines[at].strip()
        kept = not blank and (kept or KEPT_BLOCK.match(lines[at]) is not None)
        timed = not kept and TIMES.match(lines[at]) is not None
        at += 1
        if not timed:
            continue
        while True:
            start = at
            while at < len(lines) and lines[at].strip() and not _begins_cue(lines, at):
                at += 1
            if at > start:
                yield start, at
            while at < len(lines) and not lines[at].strip():
                at += 1
            if at == len(lines) or _is_block(lines, at):
                break


def _is_block(lines: Sequence[str], at: int) -> bool:
    """Whether a line after a blank one begins a cue or a note, and not more text of the cue."""
    following = lines[at + 1] if at + 1 < len(lines) else ""
    begins = TIMES.match(lines[at]) or TIMES.match(following)
    return bool(begins or KEPT_BLOCK.match(lines[at]))


def _begins_cue(lines: Sequence[str], at: int) -> bool:
    """Whether a cue begins though there was no blank line before it."""
    if TIMES.match(lines[at]):
        return True
    return lines[at].strip().isdigit() and at + 1 < len(lines) and bool(TIMES.match(lines[at + 1]))


def _pairs(text: str) -> Iterator[bool]:
    """For each mark in order, whether it is one of a pair of tags that crosses no other."""
    marks = list(MARK.finditer(text))
    paired = [False] * len(marks)
    waiting: list[int] = []
    counts: dict[str, int] = {}
    for at, mark in enumerate(marks):
        name = (mark["name"] or "").lower()
        if not name:
            continue
        if not mark.group().startswith("</"):
            waiting.append(at)
            counts[name] = counts.get(name, 0) + 1
        elif counts.get(name):
            while True:
                start = waiting.pop()
                other = marks[start]["name"].lower()
                counts[other] -= 1
                if other == name:
                    break
            paired[start] = paired[at] = True
    yield from paired

"""Zip archives of pairs as OPUS packs them: two members of lines whose names end in the languages
(Moses format: `News.de-en.de`, `News.de-en.en`), or one TMX.

Members are read as streams and never written, so their names lead nowhere. Sizes come from the
archive's directory, and are judged before anything is unpacked; a member that holds more than it
says is damaged for `zipfile`. Format: https://opus.nlpl.eu/
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from training.config.recipe import CorpusConfig
from training.data.files import BUFFER_BYTES, CorpusError, byte_lines, decode
from training.data.languages import code_of, text_in

MAX_MEMBERS = 10_000
MAX_RATIO = 200
"""Unpacked bytes for each packed one: 3 to 10 in text, 1,000 in a file made to fill memory."""
FREE_BYTES = 10 << 20
"""What a member may hold at any ratio."""
ENCRYPTED = 0x1
UNPACK = "unpack it (unzip {name}) and name its files, two plain ones as src and trg"


class ZippedPairs:
    """The members of an archive that hold a corpus's text. Raises CorpusError if they are not
    clear, or the archive is damaged, encrypted or a zip bomb."""

    def __init__(self, path: Path, corpus: CorpusConfig, monolingual: bool) -> None:
        self.path = path
        with _clear_errors(path), zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
        if len(members) > MAX_MEMBERS:
            raise CorpusError(f"{path}: more than {MAX_MEMBERS:,} files are in it; part it")
        self._members = {one.filename: one for one in members}
        self.tmx: str | None = None
        self.sides: list[str] = []
        sides = [self._side(corpus.src_lang, corpus.trg_lang)]
        if not monolingual:
            sides.append(self._side(corpus.trg_lang, corpus.src_lang))
        memories = [name for name in self._members if name.lower().endswith(".tmx")]
        if None not in sides:
            self.sides = [side for side in sides if side is not None]
        elif len(memories) == 1:
            (self.tmx,) = memories
        else:
            raise self._unclear(f"it has no file of each language and not one TMX{self._content()}")
        for name in self.sides or memories:
            self._check(self._members[name])

    def lines(self, name: str) -> Iterator[str | None]:
        """The lines of a member; None for one that is not UTF-8. Raises as `read_lines`."""
        with self.open(name) as file:
            for line in byte_lines(file, self.called(name)):
                yield decode(line.removesuffix(b"\n"))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a stream."""
        with (
            _clear_errors(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(name) as member,
        ):
            yield io.BufferedReader(member, BUFFER_BYTES)  # type: ignore[type-var]

    def called(self, name: str) -> Path:
        """How messages call a member."""
        return Path(f"{self.path}/{name}")

    def _side(self, language: str, other: str) -> str | None:
        """The member whose name ends in a language; None if there is none."""
        by_code: dict[str, str] = {}
        for name in self._members:
            code = code_of(PurePosixPath(name).suffix.removeprefix("."))
            if code in by_code and text_in({code: name}, language, other):
                raise self._unclear(f"{by_code[code]} and {name} both end in .{code}")
            by_code.setdefault(code, name)
        return text_in(by_code, language, other)

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & ENCRYPTED:
            raise self._unclear(f"{member.filename} is encrypted")
        most = max(FREE_BYTES, MAX_RATIO * member.compress_size)
        if member.file_size > most:
            raise self._unclear(
                f"{member.filename} has {member.file_size:,} bytes in {member.compress_size:,}, "
                "packed tighter than text is"
            )

    def _unclear(self, what: str) -> CorpusError:
        return CorpusError(f"{self.path}: {what}; {UNPACK.format(name=self.path.name)}")

    def _content(self) -> str:
        names = ", ".join(list(self._members)[:6])
        return f" (it has: {names})" if names else ""


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{path}: the zip archive is damaged ({error}); get it again") from None

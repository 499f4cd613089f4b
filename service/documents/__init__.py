"""Documents: files → units to translate, and the translated file.

A new file kind needs a reader in this folder, an entry in `READERS`, and one in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from service.documents.base import FileError, OpenFile, Unit, UnitWarning, check_units
from service.documents.docx import open_docx
from service.documents.odt import open_odt
from service.documents.po import open_po
from service.documents.subtitles import open_srt, open_vtt
from service.documents.text import open_html, open_markdown, open_txt
from service.documents.tmx import open_tmx
from service.documents.xliff import open_xliff

__all__ = [
    "FILE_KINDS",
    "FileError",
    "FileKind",
    "OpenFile",
    "Unit",
    "UnitWarning",
    "kind_of",
    "open_file",
]


@dataclass(frozen=True)
class FileKind:
    """A file kind. `extension` is the usual one, without a dot; `zipped` means a zip of XML."""

    extension: str
    name: str
    media_type: str
    others: tuple[str, ...] = ()
    """Other extensions of the same kind."""
    zipped: bool = False


KINDS = (
    FileKind("txt", "plain text", "text/plain", ("text",)),
    FileKind("md", "Markdown", "text/markdown", ("markdown",)),
    FileKind("html", "HTML", "text/html", ("htm",)),
    FileKind("srt", "SubRip subtitles", "application/x-subrip"),
    FileKind("vtt", "WebVTT subtitles", "text/vtt"),
    FileKind("tmx", "TMX translation memory", "application/x-tmx+xml"),
    FileKind("xliff", "XLIFF", "application/xliff+xml", ("xlf",)),
    FileKind("po", "gettext catalogue", "text/x-gettext-translation", ("pot",)),
    FileKind(
        "docx",
        "Word document",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        zipped=True,
    ),
    FileKind("odt", "OpenDocument text", "application/vnd.oasis.opendocument.text", zipped=True),
)
FILE_KINDS: Mapping[str, FileKind] = MappingProxyType(
    {extension: kind for kind in KINDS for extension in (kind.extension, *kind.others)}
)
"""By lower-case extension, without the dot."""

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
FOREIGN = {
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"GIF8": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"{\\rtf": "an RTF document",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
    b"SQLite format 3": "a database",
}


def kind_of(file_name: str, data: bytes) -> FileKind:
    """The kind of a file. Raises FileError for an unknown kind, or if the content contradicts the
    name."""
    base = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    extension = base.rsplit(".", 1)[-1].lower() if "." in base else ""
    if extension in ("docm", "dotm"):
        raise FileError("files with macros are not accepted; save it as .docx")
    if extension in ("doc", "rtf", "pages"):
        raise FileError(f".{extension} is not read; save it as .docx or .odt")
    kind = FILE_KINDS.get(extension)
    if kind is None:
        known = ", ".join(f".{name}" for name in FILE_KINDS)
        what = (
            f".{extension[:20]} is no known kind of file"
            if extension
            else ("the file's name has no extension")
        )
        raise FileError(f"{what}; these are read: {known}")
    _check_start(kind, data)
    return kind


def _check_start(kind: FileKind, data: bytes) -> None:
    if data.startswith(OLE):
        raise FileError(
            "the file is encrypted or of an old Office format; save it without a password as .docx"
        )
    for start, what in FOREIGN.items():
        if data.startswith(start):
            raise FileError(f"the file is not {kind.name} but {what}; give it in its own format")
    if kind.zipped and not data.startswith(ZIP):
        raise FileError(f"the file is not a .{kind.extension}; save it again as {kind.name}")
    if not kind.zipped and data.startswith(ZIP):
        raise FileError(f"the file is a zip archive, not {kind.name}; give it the name it had")


Reader = Callable[..., OpenFile]
"""Arguments: the file, the source and target languages' codes, the most characters of a unit; of
those in `BILINGUAL` also `replace`."""
BILINGUAL = ("tmx", "xliff", "po")
"""Kinds that hold translations beside their sources, which a person may have made."""
READERS: Mapping[str, Reader] = {
    "txt": open_txt,
    "md": open_markdown,
    "html": open_html,
    "srt": open_srt,
    "vtt": open_vtt,
    "tmx": open_tmx,
    "xliff": open_xliff,
    "po": open_po,
    "docx": open_docx,
    "odt": open_odt,
}


def open_file(
    data: bytes,
    kind: FileKind,
    source: str,
    target: str,
    max_unit_chars: int = 10_000,
    replace: bool = False,
) -> OpenFile:
    """Read a file. `source` and `target` are language codes; a source of `auto` is what the file
    itself declares. `replace`: also translate what has a translation, for bilingual kinds.

    Raises FileError for a file that cannot be read. This may take much time and memory: call it in
    a process that can be killed.
    """
    options = {"replace": True} if replace and kind.extension in BILINGUAL else {}
    opened = READERS[kind.extension](data, source, target, max_unit_chars, **options)
    check_units(opened.units)
    return opened

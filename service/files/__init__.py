"""Files → texts to translate, and the translated file. A new format: a file here, an entry in
`READERS`, and a kind in `kinds.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.files.docx import open_docx
from service.files.kinds import FILE_KINDS, FileKind, kind_of
from service.files.odt import open_odt
from service.files.po import open_po
from service.files.subtitles import open_srt, open_vtt
from service.files.tmx import open_tmx
from service.files.txt import open_html, open_markdown, open_txt
from service.files.unit import FileError, OpenFile, Unit, check_units
from service.files.xliff import open_xliff

__all__ = ["FILE_KINDS", "FileError", "FileKind", "OpenFile", "Unit", "kind_of", "open_file"]

Reader = Callable[[bytes, str, str, int], OpenFile]
"""The file, the source language's code, the target's, the characters a unit should not exceed."""
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
    data: bytes, kind: FileKind, source: str, target: str, max_unit_chars: int = 10_000
) -> OpenFile:
    """Read a file. `source` and `target` are codes of languages; a source of `auto` takes what the
    file says of itself.

    Raises FileError for whatever cannot be read. It may take long, and much memory: call it in
    a process that can be killed.
    """
    opened = READERS[kind.extension](data, source, target, max_unit_chars)
    check_units(opened.units)
    return opened

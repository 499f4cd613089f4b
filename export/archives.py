"""Zip archives that are not trusted: what is wanted of one is unpacked, within bounds.

Every name in the archive is checked before anything is written, only what is read is written, and
no more of it than the archive declares.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from export.runtime.bundle import CHUNK_BYTES, open_plain
from export.runtime.manifest import (
    MAX_DOWNLOAD_BYTES,
    MAX_FILES,
    BundleError,
    path_fault,
    printable,
)
from quickstudy.atomic import scratch_folder
from training.pretrained.files import PretrainedError

MAX_RATIO = 100
"""Of a file's size to its compressed size, from RATIO_FREE_BYTES on."""
RATIO_FREE_BYTES = 1 << 20
END_RECORD = b"PK\x05\x06"
END_BYTES = 22
LOCATOR_64, LOCATOR_BYTES = b"PK\x06\x07", 20
MAX_COMMENT_BYTES = 1 << 16
ENCRYPTED = 0x1
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(UnicodeError, IndexError, OverflowError),
)
"""What `zipfile` raises for archives that are not whole."""

Choose = Callable[[list[str]], dict[str, str]]
"""The names in an archive → those to unpack, with their paths in the folder."""


@contextlib.contextmanager
def unpacked(path: Path, choose: Choose) -> Iterator[Path]:
    """Yield a temporary folder with what is chosen of a zip archive.

    Raises BundleError for an archive that is not one, breaks a limit or leads outside. What is
    raised inside the block names the archive in place of the folder.
    """
    with scratch_folder("quickstudy-import") as folder:
        _unpack(path, folder, choose)
        try:
            yield folder
        except (BundleError, PretrainedError) as error:
            text = str(error)
            if str(folder) not in text:
                raise
            raise BundleError(text.replace(str(folder), str(path))) from error


def _unpack(path: Path, out: Path, choose: Choose) -> None:
    with open_plain(path) as file:
        _check_end(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path)
                for name, inside in choose(list(members)).items():
                    if fault := path_fault(inside):
                        raise BundleError(f"{path} holds {_shown(members[name])}: {fault}")
                    _write(archive, members[name], out / inside, path)
        except DAMAGE as error:
            raise BundleError(
                f"{path} is not a whole zip file ({printable(str(error))}): fetch it again"
            ) from error


def _check_end(file: BinaryIO, path: Path) -> None:
    """The archive's own end says how large its directory is, which is read into memory whole."""
    size = file.seek(0, 2)
    start = max(0, size - MAX_COMMENT_BYTES - END_BYTES - LOCATOR_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(END_RECORD)
    if at < 0 or len(tail) - at < END_BYTES:
        raise BundleError(f"{path} is no zip file, or the end of it is missing: fetch it again")
    entries, directory = struct.unpack_from("<HL", tail, at + 10)
    zip64 = tail[max(0, at - LOCATOR_BYTES) :].startswith(LOCATOR_64)
    if zip64 or entries > MAX_FILES or directory > MAX_FILES << 10:
        raise BundleError(f"{path} has over {MAX_FILES} files, or 4 GiB: give a model's archive")
    file.seek(0)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names."""
    names: dict[str, zipfile.ZipInfo] = {}
    lowered: set[str] = set()
    for member in archive.infolist():
        if not member.is_dir():
            _check_member(member, path)
            if member.filename.lower() in lowered:
                raise BundleError(f"{path} holds {_shown(member)} twice")
            lowered.add(member.filename.lower())
            names[member.filename] = member
    total = sum(member.file_size for member in names.values())
    if len(names) > MAX_FILES or total > MAX_DOWNLOAD_BYTES:
        raise BundleError(
            f"{path} unpacks to {len(names)} files of {total:,} bytes, "
            f"{MAX_FILES} of {MAX_DOWNLOAD_BYTES:,} are read"
        )
    return names


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Raise BundleError for a name that leads elsewhere, a link, a secret or a bomb."""
    name, mode = member.filename, member.external_attr >> 16
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or name != member.orig_filename:
        raise BundleError(f"{path} holds {_shown(member)}, which is no plain path")
    if name.startswith("/") or ":" in parts[0] or not all(p not in ("", ".", "..") for p in parts):
        raise BundleError(f"{path} holds {_shown(member)}, which leads outside of it")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BundleError(f"{path} holds {_shown(member)}, a link or special file")
    if member.flag_bits & ENCRYPTED:
        raise BundleError(f"{path} is encrypted: unpack it and give the folder")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path} packs {_shown(member)} in a way that is not read: pack it again")
    limit = MAX_RATIO * max(member.compress_size, 1)
    if member.file_size > max(RATIO_FREE_BYTES, limit):
        raise BundleError(
            f"{path} packs {member.file_size:,} bytes of {_shown(member)} into "
            f"{member.compress_size:,}: it is made to do harm"
        )


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, out: Path, path: Path) -> None:
    """Unpack a member, no more of it than it declares."""
    out.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, out.open("xb") as target:
        while chunk := source.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise BundleError(f"{path}: {_shown(member)} is longer than it declares")
            target.write(chunk)


def _shown(member: zipfile.ZipInfo) -> str:
    return repr(printable(member.orig_filename)[:100])

"""Read an Argos Translate package: a zip file, or the folder that it was unpacked to.

```
metadata.json           from_code, to_code, package_version, argos_version, target_prefix …
model/                  a CTranslate2 folder
sentencepiece.model     for both sides; older OPUS-MT packages have bpe.model instead
README.md, stanza/      credits; a sentence splitter, which is not read
```

A package comes from a stranger. Every name in the archive is checked before anything is written,
only what is read is written, and no more of it than the archive declares.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from export.runtime.bundle import CHUNK_BYTES, list_files, open_plain, read_small
from export.runtime.manifest import (
    MAX_DOWNLOAD_BYTES,
    MAX_FILES,
    BundleError,
    path_fault,
    printable,
    strict_json,
)

METADATA_FILE = "metadata.json"
MODEL_FOLDER = "model"
SENTENCEPIECE_FILE, BPE_FILE = "sentencepiece.model", "bpe.model"
TEXT_FILES = ("README.md", "README.txt", "README", "LICENSE", "LICENSE.txt", "LICENSE.md")
MAX_METADATA_BYTES = 1 << 20
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


@dataclass(frozen=True)
class ArgosPackage:
    """An unpacked package: its folder, what metadata.json says, and its files."""

    folder: Path
    metadata: dict[str, Any]
    files: frozenset[str]

    def text(self, key: str) -> str:
        """A text of metadata.json, empty where there is none."""
        value = self.metadata.get(key)
        return printable(value)[:200] if isinstance(value, str) else ""


@contextlib.contextmanager
def open_argos(path: Path) -> Iterator[ArgosPackage]:
    """Yield a package, unpacked into a temporary folder if it is a zip file.

    Raises BundleError for an archive that is not one, breaks a limit or leads outside, and for a
    package that lacks its metadata, model or SentencePiece model.
    """
    path = Path(path)
    if path.is_dir():
        yield _package(path, path)
        return
    if not path.is_file():
        raise BundleError(f"there is no Argos package at {path}: give an .argosmodel file")
    with tempfile.TemporaryDirectory(prefix="quickstudy-argos-") as scratch:
        _extract(path, Path(scratch))
        yield _package(Path(scratch), path)


def _package(folder: Path, given: Path) -> ArgosPackage:
    files = frozenset(list_files(folder))
    if METADATA_FILE not in files:
        raise BundleError(f"{given} has no {METADATA_FILE}: it is no Argos package")
    try:
        metadata = strict_json(read_small(folder / METADATA_FILE, MAX_METADATA_BYTES))
    except ValueError as error:
        raise BundleError(f"{given}: {METADATA_FILE} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise BundleError(f"{given}: {METADATA_FILE} is not a JSON object")
    if metadata.get("type", "translate") != "translate":
        kind = printable(str(metadata["type"]))[:50]
        raise BundleError(f"{given} is a package of type {kind!r}, not of a translation model")
    if not any(name.startswith(f"{MODEL_FOLDER}/") for name in files):
        raise BundleError(f"{given} has {METADATA_FILE}, but no {MODEL_FOLDER}/ folder")
    if SENTENCEPIECE_FILE not in files:
        _refuse_tokenizer(given, files)
    return ArgosPackage(folder, metadata, files)


def _refuse_tokenizer(given: Path, files: frozenset[str]) -> None:
    if BPE_FILE in files:
        raise BundleError(
            f"{given} splits words with {BPE_FILE} (Moses and subword-nmt), not SentencePiece, "
            "and such packages are not served: import the OPUS-MT model that it was made from"
        )
    raise BundleError(f"{given} has no {SENTENCEPIECE_FILE}: the package is not whole")


# --- the archive -------------------------------------------------------------------------------


def _extract(path: Path, out: Path) -> None:
    """Unpack what is read of a package, without its top folder."""
    with open_plain(path) as file:
        _check_end(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path)
                for name, member in members.items():
                    _write(archive, member, out / name, path)
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
        raise BundleError(f"{path} is no Argos package: it has over {MAX_FILES} files, or 4 GiB")
    file.seek(0)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The members to unpack by their names below the package's top folder."""
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
    tops = [name for name in names if PurePosixPath(name).name == METADATA_FILE]
    tops = [name for name in tops if name.count("/") <= 1 and not name.startswith("__MACOSX/")]
    if len(tops) != 1:
        held = ", ".join(sorted({printable(name.split("/")[0]) for name in names})[:5]) or "nothing"
        count = "no" if not tops else f"{len(tops)} files"
        raise BundleError(f"{path} has {count} {METADATA_FILE} at its top, only {held}")
    top = tops[0].removesuffix(METADATA_FILE)
    below = {name.removeprefix(top): m for name, m in names.items() if name.startswith(top)}
    read = {name: member for name, member in below.items() if _is_read(name)}
    for name, member in read.items():
        if fault := path_fault(name):
            raise BundleError(f"{path} holds {_shown(member)}: {fault}")
    return read


def _is_read(name: str) -> bool:
    parts = name.split("/")
    if len(parts) == 1:
        return name in (METADATA_FILE, SENTENCEPIECE_FILE, BPE_FILE, *TEXT_FILES)
    return len(parts) == 2 and parts[0] == MODEL_FOLDER


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

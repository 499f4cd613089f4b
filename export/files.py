"""The files of a folder that is not trusted: what lies there, opened without surprises."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from export.errors import BundleError
from export.limits import MAX_FILES, MAX_FOLDER_DEPTH, printable
from export.manifest import FileEntry

OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # not through a link that took the file's place
    | getattr(os, "O_NONBLOCK", 0)  # not waiting for the other end of a pipe
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
CHUNK_BYTES = 1 << 20


def list_files(folder: Path) -> dict[str, Path]:
    """Every regular file under `folder` by relative path.

    Raises BundleError for links, pipes, devices and sockets, and as soon as there are too many
    entries or folders in folders.
    """
    files: dict[str, Path] = {}
    entries = 0
    waiting = [(folder, 0)]
    while waiting:
        parent, depth = waiting.pop()
        if depth > MAX_FOLDER_DEPTH:
            raise BundleError(f"{_shown(parent)} lies too deep for a bundle: {_NOT_OURS}")
        with os.scandir(parent) as found:
            for entry in found:
                entries += 1
                if entries > 2 * MAX_FILES:
                    raise BundleError(f"{folder} holds over {2 * MAX_FILES} entries: {_NOT_OURS}")
                path = Path(entry.path)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((path, depth + 1))
                elif stat.S_ISREG(mode):
                    files[path.relative_to(folder).as_posix()] = path
                else:
                    raise BundleError(
                        f"{_shown(path)} is a link or special file: a bundle holds plain files "
                        "only, copy the file itself into its place"
                    )
    return files


_NOT_OURS = "give the folder of a bundle, or export it again"


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; raises BundleError for anything else, and never waits."""
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device can have effects of its own
        raise BundleError(f"{_shown(path)} is a link or special file: copy the file itself")
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BundleError(f"{_shown(path)} is a link or special file: copy the file itself")
        yield file


def read_small(path: Path, limit: int) -> bytes:
    """The bytes of a plain file. Raises BundleError if there are more than `limit`."""
    with open_plain(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{_shown(path)} is larger than {limit} bytes: export the bundle again")
    return data


def check_file(path: Path, entry: FileEntry) -> None:
    """Raise BundleError unless the file has the size and SHA-256 of its entry."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(
                f"{path} has {size} bytes, its manifest says {entry.bytes}: "
                "the file is damaged or was changed, copy or export the bundle again"
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{path} has SHA-256 {digest}, its manifest says {entry.sha256}: "
            "the file is damaged or was changed, copy or export the bundle again"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target`, and the folders above it, with the content of `source`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _shown(path: Path) -> str:
    return printable(str(path))

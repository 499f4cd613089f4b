"""Atomic writes: a file or folder exists whole or not at all.

Each is made as a draft in the same folder and then renamed into place. A draft is locked while its
process lives; the next write of the same name removes drafts without a lock, which killed processes
left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quickstudy.errors import QuickstudyError, writing

DRAFT = ".draft"
FORMER = ".former"


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{kind}")


def _siblings(path: Path, kind: str) -> list[Path]:
    start, length = f".{path.name}.", len(f".{path.name}.") + 8 + len(kind)
    return [
        entry
        for entry in path.parent.iterdir()
        if entry.name.startswith(start) and entry.name.endswith(kind) and len(entry.name) == length
    ]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            if not (Path(parent) / name).is_symlink():
                _sync(Path(parent) / name)
        _sync(Path(parent))


@contextlib.contextmanager
def _locked(draft: Path) -> Iterator[None]:
    """Hold a draft's lock, which marks it as in use."""
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # without locks, leftovers merely stay
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(draft: Path) -> bool:
    try:
        descriptor = os.open(draft, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _errors_name(path: Path, draft: Path) -> Iterator[None]:
    """Let OSErrors about a draft name its final path."""
    try:
        with writing(path):
            yield
    except OSError as error:
        for which in ("filename", "filename2"):
            name = getattr(error, which)
            if isinstance(name, str) and Path(name).is_relative_to(draft):
                setattr(error, which, str(path / Path(name).relative_to(draft)))
        raise


def check_replaceable(path: Path) -> None:
    """Raises QuickstudyError for a device, a pipe or a socket, which a rename would take away, and
    IsADirectoryError for an empty name."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "No name of a file", str(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise QuickstudyError(f"{path} is a device, a pipe or a socket: name a file instead")


def _clean_up(path: Path) -> None:
    """Remove what killed writers of `path` left; restore a folder that one had moved aside. Raises
    as `check_replaceable`."""
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for former in _siblings(path, FORMER):
        if _is_abandoned(former):
            if path.exists():
                _remove(former)
            else:
                former.rename(path)
    for draft in _siblings(path, DRAFT):
        if _is_abandoned(draft):
            _remove(draft)


def atomic_write(path: str | Path, content: str | bytes | memoryview) -> None:
    """Write a file durably (text as UTF-8), or leave the former one as it was.

    Creates parent folders. Raises OSError.
    """
    path = Path(path)
    _clean_up(path)
    draft = _sibling(path, DRAFT)
    try:
        with _errors_name(path, draft), draft.open("xb") as file, _locked(draft):
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a read-only disk refuses this, too
            draft.unlink()
        raise
    _sync(path.parent)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a new empty file that becomes `path` when the block ends, or is removed if it raises.

    Creates parent folders. Raises OSError.
    """
    path = Path(path)
    _clean_up(path)
    draft = _sibling(path, DRAFT)
    try:
        with _errors_name(path, draft):
            draft.touch(exist_ok=False)
            with _locked(draft):
                yield draft
                _sync(draft)
                draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a read-only disk refuses this, too
            draft.unlink()
        raise
    _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder that becomes `path` when the block ends, or is removed if it raises.

    An existing folder at `path` is moved aside for the rename and deleted after it. Creates parent
    folders. Raises OSError.
    """
    path = Path(path)
    _clean_up(path)
    draft = _sibling(path, DRAFT)
    with _errors_name(path, draft):
        draft.mkdir()
    try:
        with _errors_name(path, draft), _locked(draft):
            yield draft
            _sync_tree(draft)
            _move_into_place(draft, path)
    except BaseException:
        _remove(draft)
        raise


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield a new empty folder in the folder of temporary files, removed when the block ends.

    Folders of the same name that killed processes left behind are removed first. Raises OSError.
    """
    path = Path(tempfile.gettempdir()) / name
    with writing(path.parent):
        _clean_up(path)
        draft = _sibling(path, DRAFT)
        draft.mkdir(mode=0o700)
    try:
        with writing(path.parent), _locked(draft):
            yield draft
    finally:
        _remove(draft)


def _move_into_place(draft: Path, path: Path) -> None:
    if not path.exists():
        draft.rename(path)
    else:
        former = _sibling(path, FORMER)
        with _locked(path):
            path.rename(former)
            try:
                draft.rename(path)
            except BaseException:
                former.rename(path)
                raise
        _remove(former)
    _sync(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

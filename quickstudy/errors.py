"""Errors that whoever runs Quickstudy can put right, told apart from bugs.

Every part may import this module: it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

AGAIN = "then run the same command again"
_WRITABLE = "choose a folder that can be written"
ADVICE = {
    errno.ENOSPC: f"the disk is full; free space there, or choose another folder, {AGAIN}",
    errno.EDQUOT: f"your disk quota is used up; free space there, {AGAIN}",
    errno.EFBIG: f"the file grew past a limit on sizes; raise `ulimit -f`, {AGAIN}",
    errno.EROFS: f"the file system is read-only; {_WRITABLE}",
    errno.EACCES: "permission denied; correct the rights of file and folder, or choose another",
    errno.EPERM: "not permitted; correct the rights of file and folder, or choose another",
    errno.ENOENT: "no such file or folder; correct the path",
    errno.ENOTDIR: f"a part of this path is a file and no folder; {_WRITABLE}",
    errno.EISDIR: "this is a folder; name a file",
    errno.EEXIST: "something else lies here already; move it away or choose another path",
    errno.ENOTEMPTY: "something else lies here already; move it away or choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; correct the path",
    errno.EIO: f"the disk reports an error; check it or choose another, {AGAIN}",
    errno.EMFILE: f"too many files are open; raise `ulimit -n`, {AGAIN}",
    errno.ENFILE: f"too many files are open on this machine; close some programs, {AGAIN}",
    errno.ENOMEM: f"out of memory; close other programs, {AGAIN}",
}
"""What an error of the system means and what to do about it, by its number."""


class QuickstudyError(Exception):
    """Something that whoever runs Quickstudy can put right; the message says what to do.

    The command line shows the message without a traceback and ends with exit code 1. Any other
    error is a bug.
    """


def explain(error: OSError) -> str | None:
    """One line that names the file and says what to do; None where the error is no matter of
    files, disks or memory."""
    advice = ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    if name is None or isinstance(name, int):
        return f"{error.strerror}: {advice}"
    return f"{os.fsdecode(name)}: {advice}"


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have an OSError that names no file, as when a write fails, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise

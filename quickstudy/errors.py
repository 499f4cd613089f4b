"""Errors that the user can correct, as opposed to bugs.

Every package may import this module: it needs only the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

AGAIN = "then run the same command again"
_WRITABLE = "choose a writable folder"
ADVICE = {
    errno.ENOSPC: f"the disk is full; free space there, or choose another folder, {AGAIN}",
    errno.EDQUOT: f"your disk quota is used up; free space there, {AGAIN}",
    errno.EFBIG: f"the file grew past a limit on sizes; raise `ulimit -f`, {AGAIN}",
    errno.EROFS: f"the file system is read-only; {_WRITABLE}",
    errno.EACCES: "permission denied; correct the permissions, or choose another path",
    errno.EPERM: "not permitted; correct the permissions, or choose another path",
    errno.ENOENT: "no such file or folder; correct the path",
    errno.ENOTDIR: f"part of this path is a file, not a folder; {_WRITABLE}",
    errno.EISDIR: "this is a folder; name a file",
    errno.EEXIST: "something else is already here; move it away or choose another path",
    errno.ENOTEMPTY: "something else is already here; move it away or choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links form a loop; correct the path",
    errno.EIO: f"the disk reports an error; check it or choose another, {AGAIN}",
    errno.EMFILE: f"too many files are open; raise `ulimit -n`, {AGAIN}",
    errno.ENFILE: f"too many files are open on this machine; close some programs, {AGAIN}",
    errno.ENOMEM: f"out of memory; close other programs, {AGAIN}",
}
"""What a system error means and what to do about it, by errno."""


class QuickstudyError(Exception):
    """An error that the user can correct; the message says how.

    The command line prints the message without a traceback and exits with code 1. Any other error
    is a bug.
    """


def explain(error: OSError) -> str | None:
    """One line that names the file and says what to do; None if the error does not concern files,
    disks or memory."""
    advice = ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    if name is None or isinstance(name, int):
        return f"{error.strerror}: {advice}"
    return f"{os.fsdecode(name)}: {advice}"


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError without a file name, as a failed write raises, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise

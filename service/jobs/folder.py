"""The folder of the jobs: the files that came, their translations, the database.

Nobody but the service's user can read it. One service at a time works in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from quickstudy_errors import QuickstudyError

PREFIX = "quickstudy-jobs-"
LOCK_FILE = "lock"
DATABASE_FILE = "jobs.db"
LOCK_WAIT_S = 10.0
"""How long a service waits for its predecessor to let go of the folder."""


class JobsFolderError(QuickstudyError):
    """A folder that cannot be used for jobs; the message says what to do."""


class JobsFolder:
    """Files of jobs, by job id. Without `path` it is a new private folder, deleted by `close`.

    Raises JobsFolderError if it cannot be written, or another service works in it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.lasts = path is not None
        try:
            if path is None:
                _remove_left_over()
                path = Path(tempfile.mkdtemp(prefix=PREFIX))
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = path
            self._lock = _private(path / LOCK_FILE)
            _take(self._lock, LOCK_WAIT_S)
            self.database = path / DATABASE_FILE
            _private(self.database).close()
            (path / "files").mkdir(mode=0o700, exist_ok=True)
        except BlockingIOError as error:
            raise JobsFolderError(
                f"{path} is in use by another service: give each its own QUICKSTUDY_JOBS_DIR"
            ) from error
        except OSError as error:
            raise JobsFolderError(
                f"{path} cannot be used for jobs ({error.strerror}): set QUICKSTUDY_JOBS_DIR to a "
                "folder that the service can write"
            ) from error

    def source(self, id: str) -> Path:
        """Where the file of a job is that came."""
        return self.path / "files" / id / "source"

    def result(self, id: str) -> Path:
        """Where its translation is, once it is whole."""
        return self.path / "files" / id / "result"

    def write_source(self, id: str, data: bytes) -> None:
        """Keep the file of a new job."""
        self.source(id).parent.mkdir(mode=0o700)
        _write(self.source(id), data)

    def write_result(self, id: str, data: bytes) -> None:
        """Keep a translation; the file that came is deleted."""
        _write(self.result(id), data)
        self.source(id).unlink(missing_ok=True)

    def remove(self, id: str) -> None:
        """Delete a job's files."""
        shutil.rmtree(self.source(id).parent, ignore_errors=True)

    def remove_others(self, ids: Collection[str]) -> None:
        """Delete the files of all jobs but these."""
        for folder in (self.path / "files").iterdir():
            if folder.name not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder, and delete it if it is a private one."""
        if not self.lasts:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _private(path: Path) -> BinaryIO:
    """A file of our own, made if it is not there, readable by its owner only."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    os.fchmod(file.fileno(), 0o600)
    return file


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".draft")
    with _private(draft) as file:
        file.truncate()
        file.write(data)
    draft.replace(path)


def _take(lock: BinaryIO, wait_s: float) -> None:
    """Lock a file for this process. Raises BlockingIOError if another has it for longer."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _remove_left_over() -> None:
    """Delete private folders whose services were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK_FILE).open("r+b") as lock:
                _take(lock, 0)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue

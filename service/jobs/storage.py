"""Jobs in SQLite: what is to be translated, how far it is, and every unit's translation.

A translation is kept under the hash of its unit, so that equal units of a file are translated once,
and a service that was killed goes on with those that are not there yet.

The folder of the jobs: the files that came, their translations, the database.

Nobody but the service's user can read it. One service at a time works in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, Literal

from quickstudy.errors import QuickstudyError

Status = Literal["queued", "running", "done", "failed"]
BUSY_S = 5.0
SECURE = "secure_delete = ON"
"""What is deleted is overwritten."""
ROWS_AT_ONCE = 100
"""Translations that are read at once, or deleted in a transaction, so that others need not wait
for long."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner INTEGER,
    is_shared INTEGER NOT NULL,
    client TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    beam_size INTEGER,
    glossary TEXT NOT NULL,
    detected REAL,
    bytes INTEGER NOT NULL,
    characters INTEGER NOT NULL,
    units INTEGER NOT NULL,
    characters_done INTEGER NOT NULL,
    units_done INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    created REAL NOT NULL,
    ended REAL,
    error_code TEXT,
    error_message TEXT,
    warnings TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS translations (
    job TEXT NOT NULL,
    digest BLOB NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job, digest)
) WITHOUT ROWID;
"""

DELETE_SOME = """
DELETE FROM translations WHERE job = ? AND digest IN (
    SELECT digest FROM translations WHERE job = ? LIMIT ?
)
"""

NEXT_PAGE = """
SELECT digest, text FROM translations WHERE job = ? AND digest > ? ORDER BY digest LIMIT ?
"""


@dataclass(frozen=True)
class Job:
    """A file to translate, and how far it is.

    `owner` is the key that it belongs to, None if it came without one; if `is_shared`, whoever has
    the id may have it all the same. `client` is who sent it, by key or address. `kind` is the
    format's extension, `glossary` JSON, `detected` the confidence (0 to 1) with which the source
    language was, None if it was given. `starts` counts how often work on it began since a unit was
    last translated. Times are Unix times.
    """

    name: str
    kind: str
    source: str
    target: str
    characters: int
    units: int
    bytes: int
    client: str = ""
    owner: int | None = None
    is_shared: bool = False
    beam_size: int | None = None
    glossary: str = "{}"
    detected: float | None = None
    id: str = ""
    status: Status = "queued"
    characters_done: int = 0
    units_done: int = 0
    starts: int = 0
    created: float = 0.0
    ended: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    warnings: str = "{}"

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done about it."""
        return self.status in ("done", "failed")

    @property
    def progress(self) -> float:
        """How much is translated, by characters: 0 to 1."""
        if self.status == "done":
            return 1.0
        return self.characters_done / self.characters if self.characters else 0.0

    @property
    def terms(self) -> dict[str, str]:
        """The glossary."""
        terms: dict[str, str] = json.loads(self.glossary)
        return terms

    @property
    def warning_counts(self) -> dict[str, int]:
        """Units with a warning, by its code."""
        counts: dict[str, int] = json.loads(self.warnings)
        return counts


@dataclass(frozen=True)
class UnitDone:
    """A unit's translation: the hash of the unit, what it counts for in the file (it may be there
    several times), the translation, and the codes of its warnings."""

    digest: bytes
    text: str
    characters: int
    units: int = 1
    warnings: Sequence[str] = ()


_NAMES = [field.name for field in fields(Job)]
_COLUMNS = ", ".join(_NAMES)


class JobStore:
    """The jobs in a database, which is made where there is none. Use it in one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            SECURE,
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)

    def new_id(self) -> str:
        """An id that nobody can guess."""
        return secrets.token_urlsafe(24)

    def add(self, job: Job) -> Job:
        """Keep a new job, under its id, as queued from now on."""
        job = replace(job, status="queued", created=time.time())
        marks = ", ".join("?" * len(_NAMES))
        values = [getattr(job, name) for name in _NAMES]
        self._db.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", values)
        return job

    def find(self, id: str) -> Job | None:
        """The job of an id."""
        return next(iter(self._select("WHERE id = ?", id)), None)

    def with_status(self, *statuses: Status) -> list[Job]:
        """Jobs of these statuses, the oldest first."""
        marks = ", ".join("?" * len(statuses))
        return self._select(f"WHERE status IN ({marks}) ORDER BY created", *statuses)

    def ended_before(self, then: float) -> list[Job]:
        """Jobs that were over before a time."""
        return self._select("WHERE ended < ?", then)

    def ids(self) -> set[str]:
        """Every job's."""
        return {id for (id,) in self._db.execute("SELECT id FROM jobs")}

    def bytes_kept(self) -> int:
        """Of all files, by the jobs' sizes, and of the database."""
        (files,) = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(files + pages * page_bytes)

    def requeue(self) -> None:
        """What was running when the last service ended is queued again; translations that it did
        not come to delete are."""
        self._db.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'")
        self._db.execute(
            "DELETE FROM translations "
            "WHERE job NOT IN (SELECT id FROM jobs WHERE status = 'queued')"
        )

    def begin(self, id: str) -> None:
        """Work on a job begins."""
        self._set(id, "status = 'running', starts = starts + 1")

    def pause(self, id: str) -> None:
        """Work on a job ends in an orderly way before it is over."""
        self._set(id, "status = 'queued', starts = 0")

    def keep(self, id: str, done: Collection[UnitDone]) -> None:
        """Record translations of units, all in one transaction; those that are there stay."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            job = self.find(id)
            if job is None:
                return
            counts = Counter(job.warning_counts)
            units = characters = 0
            for one in done:
                added = self._db.execute(
                    "INSERT OR IGNORE INTO translations VALUES (?, ?, ?)",
                    (id, one.digest, one.text),
                )
                if added.rowcount:
                    units += one.units
                    characters += one.characters
                    counts.update(one.warnings)
            self._set(
                id,
                "starts = 0, units_done = units_done + ?, characters_done = characters_done + ?, "
                "warnings = ?",
                units,
                characters,
                json.dumps(counts),
            )

    def translations(self, id: str) -> Mapping[bytes, str]:
        """Translations that a job has, by the hash of the unit."""
        rows = self._db.execute("SELECT digest, text FROM translations WHERE job = ?", (id,))
        return dict(rows)

    def pages(self, id: str) -> Iterator[list[tuple[bytes, str]]]:
        """The same by and by: some of them at a time, by hash."""
        after = b""
        while page := self._db.execute(NEXT_PAGE, (id, after, ROWS_AT_ONCE)).fetchall():
            yield page
            after = page[-1][0]

    def finish(self, id: str, result_bytes: int) -> None:
        """A job is done: its result is there."""
        self._end(id, "status = 'done', bytes = ?", result_bytes)

    def fail(self, id: str, code: str, message: str) -> None:
        """A job failed."""
        self._end(id, "status = 'failed', error_code = ?, error_message = ?", code, message)

    def remove(self, id: str) -> None:
        """Forget a job; `scrub` deletes its translations."""
        self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def scrub(self, ids: Collection[str]) -> None:
        """Delete the translations of jobs that are over or removed, and overwrite what was deleted,
        in the write-ahead log too. It may take a while: call it in a thread."""
        with closing(sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)) as db:
            db.execute(f"PRAGMA {SECURE}")
            for id in ids:
                while db.execute(DELETE_SOME, (id, id, ROWS_AT_ONCE)).rowcount:
                    pass
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _select(self, condition: str, *values: object) -> list[Job]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {condition}", values)
        return [Job(*row) for row in rows]

    def _set(self, id: str, assignments: str, *values: object) -> None:
        self._db.execute(f"UPDATE jobs SET {assignments} WHERE id = ?", (*values, id))

    def _end(self, id: str, assignments: str, *values: object) -> None:
        self._set(id, f"{assignments}, ended = ?", *values, time.time())


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

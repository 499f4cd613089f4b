"""The storage of jobs: a SQLite database, and the folder that holds it and the files.

A translation is stored under the hash of its unit, so equal units of a file are translated once,
and a service that was killed resumes with the missing ones. Only the service's user can read the
folder, and only one service at a time uses it.
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
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

from export.runtime.manifest import Formality
from quickstudy.errors import QuickstudyError
from service.documents import UnitWarning

Status = Literal["queued", "running", "done", "failed"]
BUSY_S = 5.0
SECURE = "secure_delete = ON"
"""Deleted data is overwritten."""
ROWS_AT_ONCE = 100
"""Translations that are read at once, or deleted in one transaction, so others do not wait long."""
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
    formality TEXT,
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
    warnings TEXT NOT NULL,
    unit_warnings TEXT,
    replaces INTEGER
);
CREATE TABLE IF NOT EXISTS translations (
    job TEXT NOT NULL,
    digest BLOB NOT NULL,
    text TEXT NOT NULL,
    warnings TEXT,
    PRIMARY KEY (job, digest)
) WITHOUT ROWID;
"""

ADDED_COLUMNS = {
    "jobs": {"formality": "TEXT", "unit_warnings": "TEXT", "replaces": "INTEGER"},
    "translations": {"warnings": "TEXT"},
}
"""Columns that the first version did not have, by table; null in older rows."""

DELETE_SOME = """
DELETE FROM translations WHERE job = ? AND digest IN (
    SELECT digest FROM translations WHERE job = ? LIMIT ?
)
"""

NEXT_PAGE = """
SELECT digest, text, warnings FROM translations WHERE job = ? AND digest > ? ORDER BY digest LIMIT ?
"""


@dataclass(frozen=True)
class Job:
    """A file to translate, and its progress.

    `owner` is the key that it belongs to, None if it was sent without one; if `is_shared`, the id
    is enough to access it. `client` is who sent it, by key or address. `kind` is the format's
    extension, `glossary` is JSON, `detected` is the confidence (0 to 1) of the detected source
    language, None if it was not detected. If it `replaces`, what has a
    translation is translated, too. `starts` counts how often work on it began since a unit
    was last translated. Times are Unix times.
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
    formality: Formality | None = None
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
    unit_warnings: str | None = None
    replaces: bool | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is done or has failed."""
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

    @property
    def named_warnings(self) -> list[UnitWarning]:
        """What the file's reader warned of, text by text."""
        return [UnitWarning(*one) for one in json.loads(self.unit_warnings or "[]")]


@dataclass(frozen=True)
class UnitDone:
    """A unit's translation: the hash of the unit, the translation, the characters and units that it
    counts for (it may occur several times), and its warnings: codes and messages."""

    digest: bytes
    text: str
    characters: int
    units: int = 1
    warnings: Sequence[tuple[str, str]] = ()


StoredTranslation = tuple[bytes, str, list[tuple[str, str]]]
"""The hash of a unit, its translation, and the codes and messages of its warnings."""
_NAMES = [field.name for field in fields(Job)]
_COLUMNS = ", ".join(_NAMES)


class JobStore:
    """The jobs in a database, which is created if missing. Use it in one thread at a time."""

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
        self._add_columns()

    def _add_columns(self) -> None:
        """Add the columns that a database of an older version lacks."""
        for table, columns in ADDED_COLUMNS.items():
            present = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            for name, kind in columns.items():
                if name not in present:
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")

    def new_id(self) -> str:
        """An id that nobody can guess."""
        return secrets.token_urlsafe(24)

    def add(self, job: Job) -> Job:
        """Add a job as queued."""
        job = replace(job, status="queued", created=time.time())
        marks = ", ".join("?" * len(_NAMES))
        values = [getattr(job, name) for name in _NAMES]
        self._db.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", values)
        return job

    def find(self, id: str) -> Job | None:
        """The job with an id."""
        return next(iter(self._select("WHERE id = ?", id)), None)

    def with_status(self, *statuses: Status) -> list[Job]:
        """The jobs with these statuses, oldest first."""
        marks = ", ".join("?" * len(statuses))
        return self._select(f"WHERE status IN ({marks}) ORDER BY created", *statuses)

    def ended_before(self, then: float) -> list[Job]:
        """The jobs that ended before a time."""
        return self._select("WHERE ended < ?", then)

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        return {id for (id,) in self._db.execute("SELECT id FROM jobs")}

    def bytes_kept(self) -> int:
        """The size of all files, as the jobs record it, and of the database."""
        (files,) = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(files + pages * page_bytes)

    def requeue(self) -> None:
        """Queue again what was running when the last service ended, and delete the translations
        that it left behind."""
        self._db.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'")
        self._db.execute(
            "DELETE FROM translations "
            "WHERE job NOT IN (SELECT id FROM jobs WHERE status = 'queued')"
        )

    def begin(self, id: str) -> None:
        """Mark a job as running."""
        self._set(id, "status = 'running', starts = starts + 1")

    def pause(self, id: str) -> None:
        """Queue a running job again; this does not count as a crash."""
        self._set(id, "status = 'queued', starts = 0")

    def keep(self, id: str, done: Collection[UnitDone]) -> None:
        """Store translations of units in one transaction; existing ones stay."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            job = self.find(id)
            if job is None:
                return
            counts = Counter(job.warning_counts)
            units = characters = 0
            for unit in done:
                added = self._db.execute(
                    "INSERT OR IGNORE INTO translations (job, digest, text, warnings) "
                    "VALUES (?, ?, ?, ?)",
                    (id, unit.digest, unit.text, json.dumps(unit.warnings or None)),
                )
                if added.rowcount:
                    units += unit.units
                    characters += unit.characters
                    counts.update(code for code, _ in unit.warnings)
            self._set(
                id,
                "starts = 0, units_done = units_done + ?, characters_done = characters_done + ?, "
                "warnings = ?",
                units,
                characters,
                json.dumps(counts),
            )

    def translations(self, id: str) -> Mapping[bytes, str]:
        """A job's translations, by the hash of the unit."""
        rows = self._db.execute("SELECT digest, text FROM translations WHERE job = ?", (id,))
        return dict(rows)

    def pages(self, id: str) -> Iterator[list[StoredTranslation]]:
        """A job's translations in pages, ordered by hash."""
        after = b""
        while rows := self._db.execute(NEXT_PAGE, (id, after, ROWS_AT_ONCE)).fetchall():
            yield [
                (digest, text, json.loads(warnings or "null") or [])
                for digest, text, warnings in rows
            ]
            after = rows[-1][0]

    def finish(
        self,
        id: str,
        result_bytes: int,
        counts: Mapping[str, int] = MappingProxyType({}),
        warnings: Sequence[UnitWarning] = (),
    ) -> None:
        """Mark a job as done; its result exists. `counts` of warnings are added to its own."""
        job = self.find(id)
        total = Counter(job.warning_counts if job else {}) + Counter(counts)
        self._end(
            id,
            "status = 'done', bytes = ?, warnings = ?, unit_warnings = ?",
            result_bytes,
            json.dumps(total),
            json.dumps([astuple(warning) for warning in warnings]),
        )

    def fail(self, id: str, code: str, message: str) -> None:
        """Mark a job as failed."""
        self._end(id, "status = 'failed', error_code = ?, error_message = ?", code, message)

    def remove(self, id: str) -> None:
        """Delete a job; `scrub` deletes its translations."""
        self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def scrub(self, ids: Collection[str]) -> None:
        """Delete the translations of jobs that have ended or were removed, and overwrite them, in
        the write-ahead log, too. This may take a while: call it in a thread."""
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
GLOSSARIES_FILE = "glossaries.db"
LOCK_WAIT_S = 10.0
"""How long a service waits for its predecessor to release the folder."""


class JobsFolderError(QuickstudyError):
    """A folder that cannot be used for jobs; the message says what to do."""


class JobsFolder:
    """The files of jobs, by id, and the databases. Without `path` it is a new private folder, which
    `close` deletes.

    Raises JobsFolderError if it cannot be written, or another service works in it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.is_permanent = path is not None
        try:
            if path is None:
                _remove_leftovers()
                path = Path(tempfile.mkdtemp(prefix=PREFIX))
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = path
            self._lock = _private(path / LOCK_FILE)
            _take(self._lock, LOCK_WAIT_S)
            self.database = path / DATABASE_FILE
            self.glossaries = path / GLOSSARIES_FILE
            for file in (self.database, self.glossaries):
                _private(file).close()
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
        """The path of a job's source file."""
        return self.path / "files" / id / "source"

    def result(self, id: str) -> Path:
        """The path of its translation, once that is complete."""
        return self.path / "files" / id / "result"

    def write_source(self, id: str, data: bytes) -> None:
        """Store the source file of a new job."""
        self.source(id).parent.mkdir(mode=0o700)
        _write(self.source(id), data)

    def write_result(self, id: str, data: bytes) -> None:
        """Store a translation, and delete the source file."""
        _write(self.result(id), data)
        self.source(id).unlink(missing_ok=True)

    def remove(self, id: str) -> None:
        """Delete a job's files."""
        shutil.rmtree(self.source(id).parent, ignore_errors=True)

    def remove_others(self, ids: Collection[str]) -> None:
        """Delete the files of all other jobs."""
        for folder in (self.path / "files").iterdir():
            if folder.name not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Release the folder, and delete it if it is private."""
        if not self.is_permanent:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _private(path: Path) -> BinaryIO:
    """Open a file that only its owner can read; it is created if missing."""
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
    """Lock a file for this process. Raises BlockingIOError if another process keeps it locked."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _remove_leftovers() -> None:
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

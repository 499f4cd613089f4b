"""API keys in SQLite (only their hashes, rights and monthly usage), and `quickstudy keys`.

A key is 256 random bits, so SHA-256 without salt or stretching is enough: it cannot be guessed, and
a lookup costs one hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.errors import QuickstudyError

PREFIX = "qs_"
BUSY_S = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    admin INTEGER NOT NULL,
    quota_chars INTEGER,
    created TEXT NOT NULL,
    revoked TEXT
);
CREATE TABLE IF NOT EXISTS usage (
    key INTEGER NOT NULL REFERENCES keys (id),
    month TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    characters INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, month)
);
"""


class KeyFileError(QuickstudyError):
    """A key file that cannot be used, or a key that is not in it; the message says what to do."""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. `quota_chars` a month; None for the service's default."""

    id: int
    name: str
    admin: bool
    quota_chars: int | None
    created: str
    revoked: str | None


@dataclass(frozen=True)
class Usage:
    """What a key has used in a month."""

    requests: int = 0
    characters: int = 0


class KeyStore:
    """The keys in a file, which is made where there is none. Use it in one thread at a time.

    Raises KeyFileError if it is not a key file or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise KeyFileError(
                f"{path} cannot be used as a key file ({error}): name a file that is not there "
                "yet, in a folder that can be written, or one that `quickstudy keys` has made"
            ) from error

    def add(self, name: str, *, admin: bool = False, quota_chars: int | None = None) -> str:
        """Make a key. It is returned this once: only its hash is kept."""
        key = PREFIX + secrets.token_urlsafe(32)
        self._db.execute(
            "INSERT INTO keys (name, hash, admin, quota_chars, created) VALUES (?, ?, ?, ?, ?)",
            (name, _hash(key), admin, quota_chars, _now()),
        )
        return key

    def all(self) -> list[ApiKey]:
        """Every key, in the order in which they were made."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY id")
        return [_key(row) for row in rows]

    def find(self, key: str) -> ApiKey | None:
        """The key that this is, unless it is unknown or revoked."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE hash = ? AND revoked IS NULL", (_hash(key),)
        ).fetchone()
        return _key(row) if row else None

    def revoke(self, id: int) -> None:
        """Revoke a key for good. Raises KeyFileError if there is no such valid key."""
        done = self._db.execute(
            "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (_now(), id)
        )
        if not done.rowcount:
            raise KeyFileError(f"there is no valid key {id}: see `quickstudy keys list`")

    def usage(self, id: int) -> Usage:
        """What a key has used this month."""
        row = self._db.execute(
            "SELECT requests, characters FROM usage WHERE key = ? AND month = ?", (id, _month())
        ).fetchone()
        return Usage(*row) if row else Usage()

    def charge(self, id: int, characters: int, limit: int | None) -> bool:
        """Add a request to this month's usage, unless its characters would exceed the limit.

        Returns whether it was added.
        """
        self._db.execute("INSERT OR IGNORE INTO usage (key, month) VALUES (?, ?)", (id, _month()))
        done = self._db.execute(
            "UPDATE usage SET requests = requests + 1, characters = characters + ? "
            "WHERE key = ? AND month = ? AND (? IS NULL OR characters + ? <= ?)",
            (characters, id, _month(), limit, characters, limit),
        )
        return done.rowcount > 0

    def refund(self, id: int, characters: int, requests: int = 1) -> None:
        """Subtract a failed request from this month's usage."""
        self._db.execute(
            "UPDATE usage SET requests = max(0, requests - ?), "
            "characters = max(0, characters - ?) WHERE key = ? AND month = ?",
            (requests, characters, id, _month()),
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_COLUMNS = "id, name, admin, quota_chars, created, revoked"


def _key(row: tuple[int, str, int, int | None, str, str | None]) -> ApiKey:
    id, name, admin, quota_chars, created, revoked = row
    return ApiKey(id, name, bool(admin), quota_chars, created, revoked)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _month() -> str:
    return datetime.now(UTC).strftime("%Y-%m")


keys_app = typer.Typer(help="API keys: make, list and revoke them.", no_args_is_help=True)

FileOption = Annotated[
    Path,
    typer.Option(
        "--file", envvar="QUICKSTUDY_KEYS_FILE", help="SQLite file; made where there is none."
    ),
]
LARGEST_QUOTA = 2**63 - 1
"""What SQLite can count to."""


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[KeyStore]:
    """The keys in a file. Raises KeyFileError where it cannot be read or written after all."""
    with contextlib.closing(KeyStore(file)) as store:
        try:
            yield store
        except sqlite3.Error as error:
            raise KeyFileError(
                f"{file} cannot be used ({error}): see to the space on its disk and to the rights "
                "of the file and its folder; no key was changed"
            ) from error


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the list.")],
    file: FileOption,
    admin: Annotated[bool, typer.Option("--admin", help="May also swap models.")] = False,
    quota: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_QUOTA,
            help="Characters a month; 0 is none at all.",
            show_default="the service's",
        ),
    ] = None,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    with _opened(file) as store:
        print(store.add(name, admin=admin, quota_chars=quota))


@keys_app.command("list")
def keys_list(file: FileOption) -> None:
    """Print every key without its secret, with this month's usage."""
    with _opened(file) as store:
        print("id\tname\tadmin\tquota\tcharacters\trequests\tcreated\trevoked")
        for key in store.all():
            usage = store.usage(key.id)
            quota = "default" if key.quota_chars is None else key.quota_chars
            row = (key.id, key.name, "yes" if key.admin else "no", quota)
            print(*row, usage.characters, usage.requests, key.created, key.revoked or "-", sep="\t")


@keys_app.command("revoke")
def keys_revoke(
    id: Annotated[int, typer.Argument(help="The key's number in the list.")], file: FileOption
) -> None:
    """Make a key void at once, for good."""
    with _opened(file) as store:
        store.revoke(id)

"""Stored glossaries in SQLite: terms by pair of languages.

A glossary has a dictionary for each pair. It belongs to an API key; where there are no keys,
whoever knows its id may use it, as with files. How many a client stores and how much room all of
them take is bounded.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BUSY_S = 5.0
ROW_BYTES = 1000
"""What a glossary or a dictionary counts beside its texts; so their number is bounded, too."""
CLIENT_SHARE = 4
"""A client may fill this part of the room: a fourth."""
KEYLESS_SHARE = 2
"""Clients without a key may fill this part of the room where there are keys: half."""
OF_KEY = "key:"
SCHEMA = """
CREATE TABLE IF NOT EXISTS glossaries (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    client TEXT NOT NULL,
    created REAL NOT NULL,
    bytes INTEGER NOT NULL,
    name TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS glossaries_by_owner ON glossaries (owner);
CREATE INDEX IF NOT EXISTS glossaries_by_client ON glossaries (client);
CREATE TABLE IF NOT EXISTS dictionaries (
    glossary TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    terms TEXT NOT NULL,
    PRIMARY KEY (glossary, source, target)
);
"""
SIZE_OF_CLIENT = """
SELECT coalesce(sum(bytes), 0) + coalesce(sum((
    SELECT coalesce(sum(bytes), 0) FROM dictionaries WHERE glossary = glossaries.id
)), 0) FROM glossaries WHERE client = ?
"""
SIZE = """
SELECT (SELECT coalesce(sum(bytes), 0) FROM glossaries)
    + (SELECT coalesce(sum(bytes), 0) FROM dictionaries)
"""
NEXT_CREATED = "SELECT max(?, coalesce(max(created), 0) + 1e-5) FROM glossaries"
"""Times that differ, so that lists are in the order in which glossaries were made."""


class GlossaryRoomError(Exception):
    """There is no room for a glossary. `of_client`: the client's own room is full, not that of
    all."""

    def __init__(self, message: str, of_client: bool) -> None:
        super().__init__(message)
        self.of_client = of_client


@dataclass(frozen=True)
class StoredDictionary:
    """A pair of languages of a glossary, without its terms; `count` is their number."""

    source: str
    target: str
    count: int


@dataclass(frozen=True)
class StoredGlossary:
    """A glossary without its terms; `created` is a Unix time."""

    id: str
    owner: str
    client: str
    created: float
    name: str
    dictionaries: tuple[StoredDictionary, ...] = ()


@dataclass(frozen=True)
class NewDictionary:
    """Terms of a source language, each with its translation."""

    source: str
    target: str
    terms: Mapping[str, str]


class GlossaryStore:
    """The glossaries in a database, whose path `find_file` gives at the first use.

    A client stores at most `max_of_client`, and all of them take at most `max_bytes`. Use it in one
    thread at a time.
    """

    def __init__(
        self,
        find_file: Callable[[], Path],
        max_of_client: int,
        max_bytes: int,
        has_keys: bool = False,
    ) -> None:
        self._find_file = find_file
        self._max_of_client = max_of_client
        self._max_bytes = max_bytes
        self._has_keys = has_keys
        self._is_open = False

    @cached_property
    def _db(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._find_file(), timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
        db.executescript(SCHEMA)
        self._is_open = True
        return db

    def create(
        self, owner: str, client: str, name: str, dictionaries: Sequence[NewDictionary]
    ) -> StoredGlossary:
        """Store a glossary. Raises GlossaryRoomError."""
        id = str(uuid.uuid4())
        with self._transaction():
            of_client = "SELECT count(*) FROM glossaries WHERE client = ?"
            (count,) = self._db.execute(of_client, (client,)).fetchone()
            if count >= self._max_of_client:
                raise GlossaryRoomError(f"{count} glossaries are stored: delete some first", True)
            (created,) = self._db.execute(NEXT_CREATED, (time.time(),)).fetchone()
            row = (id, owner, client, created, ROW_BYTES + len(name.encode()), name)
            self._db.execute("INSERT INTO glossaries VALUES (?, ?, ?, ?, ?, ?)", row)
            for dictionary in dictionaries:
                self._put(id, dictionary)
            self._check_room(client)
        stored = self.find(id, owner)
        assert stored is not None
        return stored

    def find(self, id: str, owner: str) -> StoredGlossary | None:
        """The glossary with an id, unless it is another key's."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM glossaries WHERE id = ?", (id,)).fetchone()
        if row is None or (row[1].startswith(OF_KEY) and row[1] != owner):
            return None
        return self._with_dictionaries(row)

    def all_of(self, owner: str) -> list[StoredGlossary]:
        """The glossaries of an owner, in the order in which they were made; none of nobody's.

        Of more than a client may store, which several clients with one word as a key may have, the
        newest ones.
        """
        if not owner:
            return []
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM glossaries WHERE owner = ? ORDER BY created DESC LIMIT ?",
            (owner, self._max_of_client),
        ).fetchall()
        return [self._with_dictionaries(row) for row in reversed(rows)]

    def terms(self, id: str, source: str, target: str) -> str | None:
        """The terms of a pair as a JSON object; None if the glossary has no such dictionary."""
        row = self._db.execute(
            "SELECT terms FROM dictionaries WHERE glossary = ? AND source = ? AND target = ?",
            (id, source, target),
        ).fetchone()
        return row[0] if row else None

    def rename(self, glossary: StoredGlossary, name: str) -> None:
        """Give a glossary another name. Raises GlossaryRoomError."""
        with self._transaction():
            self._db.execute(
                "UPDATE glossaries SET name = ?, bytes = ? WHERE id = ?",
                (name, ROW_BYTES + len(name.encode()), glossary.id),
            )
            self._check_room(glossary.client)

    def put(self, glossary: StoredGlossary, dictionaries: Sequence[NewDictionary]) -> None:
        """Add dictionaries, in place of those of the same pairs. Raises GlossaryRoomError."""
        with self._transaction():
            for dictionary in dictionaries:
                self._put(glossary.id, dictionary)
            self._check_room(glossary.client)

    def remove_dictionary(self, id: str, source: str, target: str) -> bool:
        """Delete a dictionary; returns whether it was there."""
        done = self._db.execute(
            "DELETE FROM dictionaries WHERE glossary = ? AND source = ? AND target = ?",
            (id, source, target),
        )
        return done.rowcount > 0

    def remove(self, id: str) -> None:
        """Delete a glossary."""
        with self._transaction():
            self._db.execute("DELETE FROM dictionaries WHERE glossary = ?", (id,))
            self._db.execute("DELETE FROM glossaries WHERE id = ?", (id,))

    def close(self) -> None:
        """Close the database."""
        if self._is_open:
            self._is_open = False
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def _put(self, id: str, dictionary: NewDictionary) -> None:
        terms = json.dumps(dict(dictionary.terms), ensure_ascii=False)
        size = ROW_BYTES + len(terms.encode())
        pair = (id, dictionary.source, dictionary.target)
        self._db.execute(
            "INSERT OR REPLACE INTO dictionaries VALUES (?, ?, ?, ?, ?, ?)",
            (*pair, len(dictionary.terms), size, terms),
        )

    def _check_room(self, client: str) -> None:
        """Raise GlossaryRoomError, which undoes the transaction, if something is over its room."""
        (own,) = self._db.execute(SIZE_OF_CLIENT, (client,)).fetchone()
        room = self._max_bytes // CLIENT_SHARE
        if own > room:
            message = f"your glossaries would take {own} bytes, {room} are possible: delete some"
            raise GlossaryRoomError(message, True)
        (all_,) = self._db.execute(SIZE).fetchone()
        is_keyless = self._has_keys and not client.startswith(OF_KEY)
        if all_ > self._max_bytes // (KEYLESS_SHARE if is_keyless else 1):
            message = "there is no room for more glossaries: send the terms with each request"
            raise GlossaryRoomError(message, False)

    def _with_dictionaries(self, row: tuple[str, str, str, float, str]) -> StoredGlossary:
        dictionaries = self._db.execute(
            "SELECT source, target, count FROM dictionaries WHERE glossary = ? "
            "ORDER BY source, target",
            (row[0],),
        )
        return StoredGlossary(*row, tuple(StoredDictionary(*each) for each in dictionaries))


_COLUMNS = "id, owner, client, created, name"

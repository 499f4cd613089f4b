"""Suggested translations in SQLite, and `quickstudy suggestions`, which exports them to train on.

Whoever corrects a translation may send the text and a better translation (LibreTranslate's
`/suggest`). They are kept only where the settings name a file, and how many is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, TextIO

import typer

from quickstudy.atomic import atomic_file
from quickstudy.errors import QuickstudyError

MAX_CHARS = 2000
"""Characters of a text, and of its suggestion."""
CLIENT_SHARE = 10
"""A client may send this part of all suggestions: a tenth."""
BUSY_S = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS suggestions (
    id INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    key INTEGER,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    digest BLOB NOT NULL,
    created TEXT NOT NULL,
    text TEXT NOT NULL,
    suggestion TEXT NOT NULL,
    UNIQUE (client, source, target, digest)
);
"""


class SuggestionFileError(QuickstudyError):
    """A file of suggestions that cannot be used; the message says what to do."""


class SuggestionRoomError(Exception):
    """No more suggestions are kept. `of_client`: of this client."""

    def __init__(self, message: str, of_client: bool) -> None:
        super().__init__(message)
        self.of_client = of_client


@dataclass(frozen=True)
class Suggestion:
    """A text, and the translation that a client suggests. `key` is the number of its API key."""

    client: str
    key: int | None
    source: str
    target: str
    text: str
    suggestion: str

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Its lines, each with its translation; all as one where their numbers differ. Tabs and
        other spaces are single spaces."""
        texts, suggestions = _lines(self.text), _lines(self.suggestion)
        if len(texts) != len(suggestions):
            texts, suggestions = [" ".join(texts)], [" ".join(suggestions)]
        yield from zip(texts, suggestions, strict=True)


class SuggestionStore:
    """The suggestions in a file, which is made at the first use. Use it in one thread at a time.

    At most `max_count` are kept. Raises SuggestionFileError at the first use if it is no such file
    or cannot be written.
    """

    def __init__(self, path: Path, max_count: int = 0) -> None:
        self._path = path
        self._max_count = max_count
        self._is_open = False

    def open(self) -> None:
        """Open the file. Raises SuggestionFileError."""
        _ = self._db

    @cached_property
    def _db(self) -> sqlite3.Connection:
        try:
            self._path.touch(mode=0o600)
            db = sqlite3.connect(
                self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                db.execute(f"PRAGMA {pragma}")
            db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise SuggestionFileError(
                f"{self._path} cannot be used for suggestions ({error}): name a file that is not "
                "there yet, in a folder that can be written, or one that the service has made"
            ) from error
        self._is_open = True
        return db

    def add(self, new: Suggestion) -> None:
        """Keep a suggestion, in place of the client's former one for the same text. Raises
        SuggestionRoomError."""
        digest = hashlib.sha256(new.text.encode()).digest()
        place = (new.client, new.source, new.target, digest)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "DELETE FROM suggestions "
                "WHERE client = ? AND source = ? AND target = ? AND digest = ?",
                place,
            )
            self._check_room(new.client)
            self._db.execute(
                "INSERT INTO suggestions "
                "(client, source, target, digest, key, created, text, suggestion) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, new.key, _now(), new.text, new.suggestion),
            )

    def all(self) -> Iterator[Suggestion]:
        """Every suggestion, in the order in which they came."""
        rows = self._db.execute(
            "SELECT client, key, source, target, text, suggestion FROM suggestions ORDER BY id"
        )
        return (Suggestion(*row) for row in rows)

    def remove(self, client: str | None) -> int:
        """Delete a client's suggestions, or all of them; returns how many there were."""
        return self._db.execute(
            "DELETE FROM suggestions WHERE ? IS NULL OR client = ?", (client, client)
        ).rowcount

    def close(self) -> None:
        """Close the file."""
        if self._is_open:
            self._is_open = False
            self._db.close()

    def _check_room(self, client: str) -> None:
        of_client = "SELECT count(*) FROM suggestions WHERE client = ?"
        (own,) = self._db.execute(of_client, (client,)).fetchone()
        if own >= max(1, self._max_count // CLIENT_SHARE):
            message = f"{own} suggestions of yours are kept, and no more: thank you"
            raise SuggestionRoomError(message, True)
        (count,) = self._db.execute("SELECT count(*) FROM suggestions").fetchone()
        if count >= self._max_count:
            message = "there is no room for more suggestions: try again another day"
            raise SuggestionRoomError(message, False)


def _lines(text: str) -> list[str]:
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if line]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


suggestions_app = typer.Typer(
    help="Suggested translations: export them to train on, delete them.", no_args_is_help=True
)
FileOption = Annotated[
    Path,
    typer.Option(
        "--file", envvar="QUICKSTUDY_SUGGESTIONS_FILE", help="SQLite file of the service."
    ),
]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[SuggestionStore]:
    """The suggestions in a file that is there. Raises SuggestionFileError."""
    if not file.is_file():
        raise SuggestionFileError(
            f"{file} is not there: name the file that QUICKSTUDY_SUGGESTIONS_FILE names for the "
            "service; it is made with the first suggestion"
        )
    with contextlib.closing(SuggestionStore(file)) as store:
        try:
            yield store
        except sqlite3.Error as error:
            raise SuggestionFileError(
                f"{file} cannot be used ({error}): see to its disk"
            ) from error


@suggestions_app.command("export")
def suggestions_export(
    file: FileOption,
    source: Annotated[
        str | None, typer.Option(help="Language of the texts.", show_default="the only one")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Language of the suggestions.", show_default="the only one")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="TSV file to write.", show_default="standard output")
    ] = None,
    keyed: Annotated[bool, typer.Option("--keyed", help="Only what came with an API key.")] = False,
) -> None:
    """Write a pair of languages as TSV without header, for `corpus.train` of a recipe: a line of
    text, a tab, its suggested translation."""
    with _opened(file) as store:
        chosen = [
            one
            for one in store.all()
            if source in (None, one.source)
            and target in (None, one.target)
            and (one.key is not None or not keyed)
        ]
    languages = sorted({(one.source, one.target) for one in chosen})
    if len(languages) > 1:
        named = ", ".join(" → ".join(pair) for pair in languages)
        raise SuggestionFileError(f"{file} has {named}: choose by --source and --target")
    if output is None:
        _write(chosen, sys.stdout)
        return
    with atomic_file(output) as draft, draft.open("w", encoding="utf-8", newline="\n") as stream:
        count = _write(chosen, stream)
    print(f"{output}: {count} pairs", file=sys.stderr)


def _write(suggestions: list[Suggestion], stream: TextIO) -> int:
    pairs = dict.fromkeys(pair for one in suggestions for pair in one.pairs())
    for pair in pairs:
        stream.write("\t".join(pair) + "\n")
    return len(pairs)


@suggestions_app.command("list")
def suggestions_list(file: FileOption) -> None:
    """Print who suggested how many translations, by pair of languages."""
    counts: dict[tuple[str, str, str], int] = {}
    with _opened(file) as store:
        for one in store.all():
            place = (one.client, one.source, one.target)
            counts[place] = counts.get(place, 0) + 1
    print("client\tsource\ttarget\tsuggestions")
    for place, count in sorted(counts.items()):
        print(*place, count, sep="\t")


@suggestions_app.command("delete")
def suggestions_delete(
    file: FileOption,
    client: Annotated[str | None, typer.Option(help="As `list` has it, like `key:3`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those of all clients.")] = False,
) -> None:
    """Delete the suggestions of a client, or all of them."""
    if (client is None) != everything:
        raise SuggestionFileError("say whose suggestions to delete: --client CLIENT, or --all")
    with _opened(file) as store:
        print(f"{store.remove(client)} suggestions deleted", file=sys.stderr)

"""`quickstudy keys`: make, list and revoke API keys."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from service.keys import KeyFileError, KeyStore

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

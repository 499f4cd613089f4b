"""What the files of somebody else's model say of its licence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from export.runtime.bundle import read_small
from export.runtime.manifest import BundleError, printable

MAX_TEXT_BYTES = 1 << 20
HEAD_CHARS = 3000
KEYS = ("license", "licence")
UNKNOWN = ("other", "unknown", "none", "tbd")
FRONT_MATTER = re.compile(r"---\r?\n(.{1,20000}?)\r?\n---", re.DOTALL)
FRONT_LINE = re.compile(r"^licen[cs]e: *[\"']?([^\s\"'#][^\"'#\n]{0,99})", re.MULTILINE)
TEXT_LINE = re.compile(
    r"^[#*_> -]{0,8}licen[cs]e[*_]{0,3} *(?::|is|under)[*_ ]{0,4}([^\s*][^\n*]{1,99})",
    re.MULTILINE | re.IGNORECASE,
)
TITLES = {
    "Apache License\\s+Version 2\\.0": "Apache-2.0",
    "MIT License|Permission is hereby granted, free of charge": "MIT",
    "CC0 1\\.0 Universal": "CC0-1.0",
    "Attribution-NonCommercial(?: |-)4\\.0": "CC-BY-NC-4.0",
    "Attribution-ShareAlike(?: |-)4\\.0": "CC-BY-SA-4.0",
    "Attribution(?: |-)4\\.0": "CC-BY-4.0",
    "GNU AFFERO GENERAL PUBLIC LICENSE\\s+Version 3": "AGPL-3.0",
    "GNU GENERAL PUBLIC LICENSE\\s+Version 3": "GPL-3.0",
    "Mozilla Public License[ ,]+[Vv]ersion 2\\.0": "MPL-2.0",
}
"""How the texts of licences begin."""


def licence_of(texts: Iterable[Path], metadata: Mapping[str, Any] | None = None) -> str | None:
    """The licence that a package's metadata, README or licence file names; None where none does.

    A README says it in its front matter or on a line of its own, `License: …`.
    """
    for key in KEYS:
        value = (metadata or {}).get(key)
        if isinstance(value, str) and (licence := _plain(value)):
            return licence
    paths = list(texts)
    readers = (_of_front_matter, _of_title, _of_line)
    for reader in readers:
        for path in paths:
            if licence := _plain(reader(_head(path), path.name)):
                return licence
    return None


def _head(path: Path) -> str:
    try:
        return read_small(path, MAX_TEXT_BYTES).decode("utf-8", errors="replace")
    except (OSError, BundleError):
        return ""


def _of_front_matter(text: str, _: str) -> str:
    front = FRONT_MATTER.match(text.lstrip("\ufeff"))
    line = FRONT_LINE.search(front[1]) if front else None
    return line[1] if line else ""


def _of_title(text: str, name: str) -> str:
    if not name.upper().startswith("LICEN"):
        return ""
    head = text[:HEAD_CHARS]
    return next((short for title, short in TITLES.items() if re.search(title, head)), "")


def _of_line(text: str, _: str) -> str:
    line = TEXT_LINE.search(text)
    return line[1] if line else ""


def _plain(text: str) -> str:
    licence = " ".join(printable(text[:200]).split()).rstrip(".")
    return "" if licence.lower() in UNKNOWN else licence

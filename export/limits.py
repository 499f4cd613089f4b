"""How large a bundle may be, and what its files may be called; see docs/bundle.md.

Room for any model that is quick to serve, and none for a folder that is made to do harm.
"""

from __future__ import annotations

import re

MAX_MANIFEST_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 64 << 20
MAX_TOTAL_BYTES = 16 << 30
"""Of all files but the manifest."""
MAX_DOWNLOAD_BYTES = 4 << 30
"""What `pull` takes unless it is told otherwise."""
MAX_FILES = 1000
MAX_FOLDER_DEPTH = 8
MAX_PATH_CHARS = 200
MAX_VOCAB_SIZE = 1_000_000
MAX_TEXT_CHARS = 10_000
"""Of a description, a licence and the like."""

_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Devices on Windows, whatever their ending."""


def path_fault(value: str) -> str | None:
    """What keeps `value` from being the name of a file in a bundle, or None.

    Names are plain on every system: ASCII letters, digits, `.`, `_` and `-`, parted by `/`. So
    there is no way up or out, no device, and no two spellings of one name.
    """
    parts = value.split("/")
    if len(value) > MAX_PATH_CHARS or len(parts) > MAX_FOLDER_DEPTH:
        return f"longer than {MAX_PATH_CHARS} characters or deeper than {MAX_FOLDER_DEPTH} folders"
    if not all(_PART.fullmatch(part) for part in parts):
        return (
            "not a plain relative path inside the bundle: use ASCII letters, digits, '.', '_' and "
            "'-', forward slashes, no '..', no leading '/' or '.'"
        )
    if any(_RESERVED.fullmatch(part) for part in parts):
        return "the name of a device on Windows: choose another"
    return None


def printable(text: str) -> str:
    """`text` for a terminal or a log: what is not a visible character or a space is escaped.

    Strangers' texts could otherwise move the cursor, hide or turn around what is printed.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )

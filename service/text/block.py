"""What a format's reader makes of a document: what is kept, and paragraphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.text.rich import InlineText

Escape = Callable[[str], str]
"""Plain text → the same in a document's format."""


@dataclass(frozen=True)
class Block:
    """A paragraph, and how plain text is written where it stands."""

    rich: InlineText
    escape: Escape

"""A table of a report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table; the first column is text, the others are figures unless `words` names them."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    words: frozenset[int] = field(default_factory=frozenset)

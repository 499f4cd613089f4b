"""What a push or pull did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Transfer:
    """A bundle's files and bytes, and how many of them had to be moved."""

    place: str
    files: int
    total_bytes: int
    moved_files: int
    moved_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.files} files of {self.total_bytes / 1e6:.2f} MB, "
            f"{self.moved_files} of {self.moved_bytes / 1e6:.2f} MB moved"
        )

"""Read an Argos Translate package: a zip file, or the folder that it was unpacked to.

```
metadata.json           from_code, to_code, package_version, argos_version, target_prefix …
model/                  a CTranslate2 folder
sentencepiece.model     for both sides; older OPUS-MT packages have bpe.model instead
README.md, stanza/      credits; a sentence splitter, which is not read
```

A package comes from a stranger: see `export.archives`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from export.archives import unpacked
from export.runtime.bundle import list_files, read_small
from export.runtime.manifest import BundleError, printable, strict_json

METADATA_FILE = "metadata.json"
MODEL_FOLDER = "model"
SENTENCEPIECE_FILE, BPE_FILE = "sentencepiece.model", "bpe.model"
TEXT_FILES = ("README.md", "README.txt", "README", "LICENSE", "LICENSE.txt", "LICENSE.md")
MAX_METADATA_BYTES = 1 << 20


@dataclass(frozen=True)
class ArgosPackage:
    """An unpacked package: its folder, what metadata.json says, and its files."""

    folder: Path
    metadata: dict[str, Any]
    files: frozenset[str]

    def text(self, key: str) -> str:
        """A text of metadata.json, empty where there is none."""
        value = self.metadata.get(key)
        return printable(value)[:200] if isinstance(value, str) else ""


@contextlib.contextmanager
def open_argos(path: Path) -> Iterator[ArgosPackage]:
    """Yield a package, unpacked into a temporary folder if it is a zip file.

    Raises BundleError for an archive that is not one, breaks a limit or leads outside, and for a
    package that lacks its metadata, model or SentencePiece model.
    """
    path = Path(path)
    if path.is_dir():
        yield _package(path, path)
        return
    if not path.is_file():
        raise BundleError(f"there is no Argos package at {path}: give an .argosmodel file")
    with unpacked(path, lambda names: _chosen(names, path)) as folder:
        yield _package(folder, path)


def _package(folder: Path, given: Path) -> ArgosPackage:
    files = frozenset(list_files(folder))
    if METADATA_FILE not in files:
        raise BundleError(f"{given} has no {METADATA_FILE}: it is no Argos package")
    try:
        metadata = strict_json(read_small(folder / METADATA_FILE, MAX_METADATA_BYTES))
    except ValueError as error:
        raise BundleError(f"{given}: {METADATA_FILE} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise BundleError(f"{given}: {METADATA_FILE} is not a JSON object")
    if metadata.get("type", "translate") != "translate":
        kind = printable(str(metadata["type"]))[:50]
        raise BundleError(f"{given} is a package of type {kind!r}, not of a translation model")
    if not any(name.startswith(f"{MODEL_FOLDER}/") for name in files):
        raise BundleError(f"{given} has {METADATA_FILE}, but no {MODEL_FOLDER}/ folder")
    if SENTENCEPIECE_FILE not in files:
        _refuse_tokenizer(given, files)
    return ArgosPackage(folder, metadata, files)


def _refuse_tokenizer(given: Path, files: frozenset[str]) -> None:
    if BPE_FILE in files:
        raise BundleError(
            f"{given} splits words with {BPE_FILE} (Moses and subword-nmt), not SentencePiece, "
            "and such packages are not served: import the OPUS-MT model that it was made from"
        )
    raise BundleError(f"{given} has no {SENTENCEPIECE_FILE}: the package is not whole")


def _chosen(names: list[str], path: Path) -> dict[str, str]:
    """What is read of a package's files, with their names below its top folder."""
    tops = [name for name in names if PurePosixPath(name).name == METADATA_FILE]
    tops = [name for name in tops if name.count("/") <= 1 and not name.startswith("__MACOSX/")]
    if len(tops) != 1:
        held = ", ".join(sorted({printable(name.split("/")[0]) for name in names})[:5]) or "nothing"
        count = "no" if not tops else f"{len(tops)} files"
        raise BundleError(f"{path} has {count} {METADATA_FILE} at its top, only {held}")
    top = tops[0].removesuffix(METADATA_FILE)
    below = {name: name.removeprefix(top) for name in names if name.startswith(top)}
    return {name: inside for name, inside in below.items() if _is_read(inside)}


def _is_read(name: str) -> bool:
    parts = name.split("/")
    if len(parts) == 1:
        return name in (METADATA_FILE, SENTENCEPIECE_FILE, BPE_FILE, *TEXT_FILES)
    return len(parts) == 2 and parts[0] == MODEL_FOLDER

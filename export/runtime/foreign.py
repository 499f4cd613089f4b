"""What lies in a folder or file that is no bundle: other people's models, by their files; no torch.

Only names and small JSON files are looked at. `quickstudy bundle import` makes bundles of what is
recognised; whoever is given such a path by mistake can say so.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from export.runtime.manifest import SourceFormat, printable, strict_json

MAX_NAMES = 2000
MAX_JSON_BYTES = 1 << 20
TOKENIZER = "a SentencePiece model (*.spm, *.model)"
"""What a CTranslate2 folder lacks that was converted from a model without one; it can be given."""
LABELS: dict[SourceFormat, str] = {
    "firefox": "a Firefox or Bergamot model",
    "marian": "a Marian model",
    "huggingface-marian": "a Hugging Face Marian folder",
    "argos": "an Argos package",
    "ctranslate2": "a CTranslate2 folder",
}


@dataclass(frozen=True)
class ForeignModel:
    """What was recognised, and what it lacks to be whole; `format` is None for what cannot be
    imported, and `label` then says what to do."""

    format: SourceFormat | None
    label: str
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.label, *(f"{name} is missing" for name in self.missing)])


def recognise(path: Path) -> ForeignModel | None:
    """What the path holds, or None where it is nothing that is known here. Never raises."""
    try:
        if path.is_file():
            return _file(path)
        return _folder(path) if path.is_dir() else None
    except (OSError, ValueError):
        return None


def advice(path: Path) -> str | None:
    """What to say to someone who gave another's model where a bundle is needed."""
    model = recognise(path)
    if model is None:
        return None
    if model.format is None or model.missing:
        return f"{printable(str(path))} is no bundle but {model}"
    return (
        f"{printable(str(path))} is {model}, not a bundle: make one of it with `quickstudy bundle "
        f"import {printable(str(path))}`"
    )


def _file(path: Path) -> ForeignModel | None:
    if path.suffix == ".argosmodel":
        if zipfile.is_zipfile(path):
            return _recognised("argos")
        return ForeignModel(None, "an .argosmodel that is no zip archive: download it again")
    if path.suffix in (".npz", ".bin", ".spm") or path.name.endswith(".safetensors"):
        return ForeignModel(None, "one file of a model: give the folder that it lies in")
    return None


def _folder(path: Path) -> ForeignModel | None:
    names = _names(path)
    if {"manifest.json", "engines"} <= names:
        return ForeignModel(None, "a bundle already: serve it as it is")
    if "checkpoint.json" in names:
        return ForeignModel(None, "a Quickstudy checkpoint: export the recipe that made it")
    if "metadata.json" in names and (path / "model").is_dir():
        return _recognised("argos")
    config = _json(path / "config.json")
    if isinstance(kind := config.get("model_type"), str):
        return _hugging_face(kind, names)
    if _any(names, "source.spm") and _any(names, "target.spm") and "vocab.json" in names:
        return _recognised("huggingface-marian", "config.json" not in names and "config.json")
    if _any(names, "*vocabulary.json", "*vocabulary.txt") or "unk_token" in config:
        return _ctranslate2(names)
    return _marian(names)


def _hugging_face(kind: str, names: set[str]) -> ForeignModel:
    if kind != "marian":
        return ForeignModel(
            None,
            f"a Hugging Face folder of type {printable(kind)[:50]!r}: convert it with "
            "`ct2-transformers-converter` and import that, or name it as a teacher",
        )
    if not _any(names, "*.safetensors"):
        return ForeignModel(
            None,
            "a Hugging Face Marian folder without *.safetensors: other weights are not read, "
            "since loading them can run code; save the model with safetensors first",
        )
    missing = [name for name in ("source.spm", "target.spm", "vocab.json") if name not in names]
    return _recognised("huggingface-marian", *missing)


def _ctranslate2(names: set[str]) -> ForeignModel:
    vocabulary = _any(names, "*vocabulary.json", "*vocabulary.txt")
    return _recognised(
        "ctranslate2",
        "model.bin" not in names and "model.bin",
        not vocabulary and "shared_vocabulary.json",
        not _any(names, "*.spm", "*.model") and TOKENIZER,
    )


def _marian(names: set[str]) -> ForeignModel | None:
    lexicon = _any(names, "lex*.bin")
    weights = _any(names, "*.npz") or any(
        fnmatch(name, "*.bin") and not fnmatch(name, "lex*.bin") for name in names
    )
    vocabulary = _any(names, "*.spm")
    if not (vocabulary or lexicon) or not (weights or lexicon):
        return None
    firefox = lexicon or _any(names, "*intgemm*.bin")
    return _recognised(
        "firefox" if firefox else "marian",
        not weights and "the model (*.bin or *.npz)",
        not vocabulary and "its vocabulary (*.spm)",
    )


def _recognised(format_: SourceFormat, *missing: str | bool) -> ForeignModel:
    return ForeignModel(
        format_, LABELS[format_], tuple(name for name in missing if isinstance(name, str))
    )


def _any(names: set[str], *patterns: str) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def _names(path: Path) -> set[str]:
    names: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            names.add(entry.name)
            if len(names) > MAX_NAMES:
                raise ValueError(f"over {MAX_NAMES} files")
    return names


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        return {}
    try:
        value = strict_json(path.read_bytes())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

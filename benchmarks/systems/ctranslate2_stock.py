"""The student's weights in CTranslate2's own int8, as its converters write it.

Ours differ in that weights keep to 7 bits: with 8, sums overflow on processors that have AVX2 and
no VNNI (`export/ctranslate2.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.systems.base import (
    Subject,
    System,
    SystemInfo,
    Unavailable,
    batches,
    missing,
    side_by_side,
)

if TYPE_CHECKING:
    from benchmarks.systems.base import Student

NAME = "ctranslate2-stock-int8"
MAX_BATCH_TOKENS = 4096
INSTALL = "pip install 'quickstudy[train]'"


def systems(subject: Subject) -> list[System]:
    """The student as CTranslate2 quantises it."""
    if reason := missing(INSTALL, ("ctranslate2", "torch")):
        raise Unavailable(reason)
    from benchmarks.systems.base import student_info, student_of

    student = student_of(subject)
    if student is None:
        return []
    folder = subject.folder / NAME
    write_stock(student, folder)
    info = student_info(
        subject,
        student,
        folder,
        name=NAME,
        engine="CTranslate2",
        precision="int8 (stock)",
        packages=("ctranslate2",),
        note=f"{student.weights}, quantised as CTranslate2 does",
    )
    return [CTranslate2Stock(info, folder, student.tokenizer, student.model.max_length)]


def write_stock(student: Student, folder: Path) -> None:
    """A CTranslate2 folder of the student, int8 by CTranslate2's own rule."""
    from ctranslate2.specs import TransformerSpec

    from export.ctranslate2 import QuickstudyConverter

    class StockConverter(QuickstudyConverter):
        def _load(self) -> TransformerSpec:
            spec = super()._load()
            spec.__class__ = TransformerSpec  # whose int8 has 8 bits
            return spec

    StockConverter(student.model, student.pieces).convert(
        str(folder), quantization="int8", force=True
    )


@dataclass
class CTranslate2Stock:
    """A CTranslate2 folder and a SentencePiece model, as CTranslate2's documentation joins them."""

    info: SystemInfo
    folder: Path
    tokenizer: Path
    max_length: int
    _translator: Any = field(default=None, init=False, repr=False)
    _processor: Any = field(default=None, init=False, repr=False)
    _threads: int = field(default=1, init=False, repr=False)

    def load(self, threads: int) -> None:
        import ctranslate2
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(self.tokenizer))
        self._translator = ctranslate2.Translator(
            str(self.folder), compute_type="int8", inter_threads=threads, intra_threads=1
        )
        self._threads = threads

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Threads have a call each. A whole file goes in a call a thread: CTranslate2 sorts it by
        length and batches by tokens."""
        size = batch_size or max(1, -(-len(sentences) // self._threads))
        threads = 1 if batch_size == 1 else self._threads
        return side_by_side(batches(sentences, size), self._call, threads)

    def _call(self, sentences: Sequence[str]) -> list[str]:
        results = self._translator.translate_batch(
            self._processor.encode(list(sentences), out_type=str),
            max_batch_size=MAX_BATCH_TOKENS,
            batch_type="tokens",
            beam_size=1,
            max_input_length=self.max_length - 1,
            max_decoding_length=self.max_length - 1,
            disable_unk=True,
        )
        texts: list[str] = self._processor.decode([one.hypotheses[0] for one in results])
        return texts

    def close(self) -> None:
        self._translator = None

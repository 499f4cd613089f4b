"""The student of a subject as a torch model, for adapters that write its weights in another form.

Only for use where a run is planned: it needs torch, and what is timed should not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.systems.base import Subject, SystemInfo, bytes_on_disk, versions_of
from training.model import FeedForward, Transformer, parameter_count
from training.tokenizer import Tokenizer


@dataclass(frozen=True)
class Student:
    """A model in float32, ready for evaluation, and its SentencePiece model."""

    model: Transformer
    tokenizer: Path
    seven_bit: bool = False
    """Whether the weights are rounded to 7 bits."""

    @property
    def weights(self) -> str:
        """What they are, in words."""
        return "the student's 7-bit weights" if self.seven_bit else "the student's weights"

    @property
    def pieces(self) -> list[str]:
        return Tokenizer(self.tokenizer).pieces

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @property
    def activation(self) -> str:
        """The activation of all its feed-forward layers."""
        names = {part.activation for part in self.model.modules() if isinstance(part, FeedForward)}
        assert len(names) == 1, names
        return names.pop()

    @property
    def ffn(self) -> int:
        """Width of all its feed-forward layers."""
        return next(
            part.inner.out_features
            for part in self.model.modules()
            if isinstance(part, FeedForward)
        )


def student_of(subject: Subject) -> Student | None:
    """The student from its checkpoint or, failing that, from the bundle's CTranslate2 weights.

    None where the subject has neither. Those of a bundle without a float32 engine are its 7-bit
    weights in float32.
    """
    if subject.student is not None:
        from training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(subject.student)
        return Student(checkpoint.model.eval(), checkpoint.tokenizer)
    if subject.bundle is not None:
        from export.bundle import load_bundle
        from export.from_ctranslate2 import from_ctranslate2
        from export.upgrade import weights_of

        bundle = load_bundle(subject.bundle)
        exact = any(one.kind == "ctranslate2" and one.exact for one in bundle.manifest.engines)
        return Student(from_ctranslate2(weights_of(bundle)), bundle.tokenizer_path, not exact)
    return None


def student_info(
    subject: Subject,
    student: Student,
    folder: Path,
    *,
    name: str,
    engine: str,
    precision: str,
    packages: Sequence[str],
    note: str,
    scored: bool = True,
) -> SystemInfo:
    """What a peer is that runs the student's weights, written into `folder`, greedily."""
    return SystemInfo(
        name=name,
        role="peer",
        engine=engine,
        precision=precision,
        beam_size=1,
        source=subject.source,
        target=subject.target,
        parameters=student.parameters,
        bytes=bytes_on_disk(folder, student.tokenizer),
        versions=versions_of(*packages),
        note=note,
        scored=scored,
    )

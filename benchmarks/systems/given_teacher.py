"""The teacher as students learn from it: whatever a recipe names, by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from benchmarks.systems.base import SystemInfo, batches, bytes_on_disk, versions_of

if TYPE_CHECKING:
    from training.run import Run


@dataclass
class LabellingTeacher:
    """A teacher in the student's tokens, with the beam and length penalty of the labels. A folder
    of CTranslate2 that is made from a checkpoint when it is first asked counts as loading.
    `job` is a `TeacherJob` as plain data."""

    info: SystemInfo
    job: dict[str, Any]
    longest: int
    _teacher: Any = field(default=None, repr=False)
    _tokenizer: Any = field(default=None, repr=False)

    def load(self, threads: int) -> None:
        import torch

        from training.distill.teachers import TeacherJob, build_teacher
        from training.tokenizer import Tokenizer

        torch.set_num_threads(threads)
        job = TypeAdapter(TeacherJob).validate_python(self.job)
        self._teacher = build_teacher(job)
        self._tokenizer = Tokenizer(job.tokenizer)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        from training.batching import clipped

        texts: list[str] = []
        for call in batches(sentences, batch_size or max(len(sentences), 1)):
            rows = clipped(self._tokenizer.encode(list(call)), self.longest)
            penalty = self.job["labels"]["length_penalty"]
            found = self._teacher.translate(rows, self.info.beam_size, 1, penalty)
            texts += self._tokenizer.decode([hypotheses[0][0] for hypotheses in found])
        return texts

    def close(self) -> None:
        self._teacher = self._tokenizer = None


def labelling_teacher(run: Run) -> LabellingTeacher:
    """The teacher of a run, as it labels."""
    from training.distill.teachers import TeacherJob, build_teacher
    from training.given_teacher import longest_sides
    from training.teacher_config import TrainedTeacher
    from training.teacher_files import teacher_files

    given, labels, job = run.recipe.teacher, run.recipe.labels, run.teacher_job
    about = build_teacher(job).about
    files = (
        [run.teacher / "model.safetensors", run.teacher / "tokenizer.model"]
        if isinstance(given, TrainedTeacher)
        else list(teacher_files(given))
    )
    info = SystemInfo(
        name=f"teacher {about.engine} {about.precision} beam {labels.beam_size}",
        role="teacher",
        engine=about.engine,
        precision=about.precision,
        beam_size=labels.beam_size,
        source=run.recipe.corpus.src_lang,
        target=run.recipe.corpus.trg_lang,
        parameters=about.parameters,
        bytes=bytes_on_disk(*files),
        versions=versions_of("torch", "ctranslate2", "transformers", "sentencepiece"),
        note="as it labelled the text",
    )
    plain = TypeAdapter(TeacherJob).dump_python(job, mode="json")
    return LabellingTeacher(info, plain, longest_sides(run.recipe) - 1)

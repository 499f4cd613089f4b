"""Teachers with tokens of their own, behind the student's: by text, or piece by piece.

A teacher asked by text serves sentence-level objectives only. The student's ids hold their text
exactly: its tokenizer normalises nothing and falls back to bytes. A teacher whose pieces the
student adopted is asked by piece, and shares its distributions.

Shapes: N positions, U teacher's vocabulary, V student's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from training.config.recipe import RecipeError
from training.data.batching import clipped
from training.data.tokenizer import Tokenizer
from training.distill.teachers.base import (
    NO_LOGP,
    About,
    Distributions,
    Hypotheses,
    Ids,
    Teacher,
)
from training.model.transformer import EOS, UNK

Texts = list[tuple[str, float]]
"""Translations of one text with their log-probabilities under the teacher's own tokens (nats)."""


class TextTeacher(Protocol):
    """Who translates text."""

    @property
    def about(self) -> About: ...

    def translate_texts(
        self, texts: list[str], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Texts]:
        """`n_best` translations of each text, best first."""
        ...


class RetokenisedTeacher:
    """A text teacher as a `Teacher`: its translations in the student's tokens, cut to
    `max_length` positions. Sources are of `source_tokenizer`, where they have one of their own."""

    def __init__(
        self,
        teacher: TextTeacher,
        tokenizer: Path,
        max_length: int,
        source_tokenizer: Path | None = None,
    ) -> None:
        self.teacher = teacher
        self.tokenizer = Tokenizer(tokenizer)
        self.source_tokenizer = Tokenizer(source_tokenizer or tokenizer)
        self.max_length = max_length

    @property
    def about(self) -> About:
        return self.teacher.about

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """Translations in the student's ids; scores are the teacher's, of its own tokens."""
        texts = self.source_tokenizer.decode(src)
        return [
            [
                (ids, score)
                for ids, (_, score) in zip(self._ids(hypotheses), hypotheses, strict=True)
            ]
            for hypotheses in self.teacher.translate_texts(texts, beam_size, n_best, length_penalty)
        ]

    def _ids(self, hypotheses: Texts) -> list[Ids]:
        """The student's ids, cut to fit it."""
        ids = self.tokenizer.encode([text for text, _ in hypotheses])
        return clipped(ids, self.max_length - 1)

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        """Never: the vocabularies differ. Raises RecipeError."""
        raise RecipeError(
            "this teacher has no distributions over the student's vocabulary: set tokenizer.kind "
            "teacher, or use a sentence-level objective"
        )


class TextOfTokensTeacher:
    """A teacher that is asked by ids of its own tokenizer, as a text teacher."""

    def __init__(self, teacher: Teacher, tokenizer: Path, max_length: int) -> None:
        self.teacher = teacher
        self.tokenizer = Tokenizer(tokenizer)
        self.max_length = max_length

    @property
    def about(self) -> About:
        return self.teacher.about

    def translate_texts(
        self, texts: list[str], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Texts]:
        """Translations by the teacher's tokens; a text is cut to `max_length` of them."""
        src = clipped(self.tokenizer.encode(texts), self.max_length - 1)
        return [
            list(
                zip(
                    self.tokenizer.decode([ids for ids, _ in hypotheses]),
                    [score for _, score in hypotheses],
                    strict=True,
                )
            )
            for hypotheses in self.teacher.translate(src, beam_size, n_best, length_penalty)
        ]


# --- piece by piece ----------------------------------------------------------------------------


class PieceMap:
    """Which of a teacher's tokens each piece of an adopted tokenizer is.

    `pieces` are the student's in the order of their ids, `teacher_ids` the teacher's vocabulary;
    `unk` and `eos` are the teacher's names for what the student has at UNK and EOS.
    """

    def __init__(self, pieces: list[str], teacher_ids: dict[str, int], unk: str, eos: str) -> None:
        names = list(pieces)
        names[UNK], names[EOS] = unk, eos
        self.unk_id = teacher_ids[unk]
        indices = [teacher_ids.get(name) for name in names]
        self._to_teacher = [self.unk_id if index is None else index for index in indices]
        self._to_student = {
            index: piece for piece, index in enumerate(indices) if index is not None
        }
        self._missing = torch.tensor([index is None for index in indices])
        self._columns = torch.tensor(self._to_teacher)

    def to_teacher(self, ids: list[int]) -> list[int]:
        """A student's ids as the teacher's; what the teacher lacks is its unknown token."""
        return [self._to_teacher[index] for index in ids]

    def to_student(self, ids: list[int]) -> list[int]:
        """A teacher's words as the student's ids, EOS last; what is no word is left out."""
        known = (self._to_student.get(index, UNK) for index in ids)
        return [*(index for index in known if index > EOS), EOS]

    def gather(self, logp: Tensor) -> Tensor:
        """The teacher's log-probabilities [N, U] of the student's pieces: [N, V].

        A piece that the teacher lacks has probability 0; what the student lacks is left out, so
        that the probabilities then sum to less than one.
        """
        gathered = logp.index_select(1, self._columns).clamp(min=NO_LOGP)
        return gathered.masked_fill(self._missing, NO_LOGP)

"""Teachers with tokens of their own: text goes in, text comes out, the student's tokens around it.

Such a teacher serves sentence-level objectives only. The student's ids hold their text exactly: its
tokenizer normalises nothing and falls back to bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from training.distill.teachers.base import (
    About,
    Distributions,
    Hypotheses,
    Ids,
    Teacher,
    cut,
)
from training.recipe import RecipeError
from training.tokenizer import Tokenizer

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
    `max_length` positions."""

    def __init__(self, teacher: TextTeacher, tokenizer: Path, max_length: int) -> None:
        self.teacher = teacher
        self.tokenizer = Tokenizer(tokenizer)
        self.max_length = max_length

    @property
    def about(self) -> About:
        return self.teacher.about

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """Translations in the student's ids; scores are the teacher's, of its own tokens."""
        texts = self.tokenizer.decode(src)
        return [
            [
                (cut(ids, self.max_length), score)
                for ids, (_, score) in zip(
                    self.tokenizer.encode([text for text, _ in found]), found, strict=True
                )
            ]
            for found in self.teacher.translate_texts(texts, beam_size, n_best, length_penalty)
        ]

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
        src = [cut(ids, self.max_length) for ids in self.tokenizer.encode(texts)]
        return [
            list(
                zip(
                    self.tokenizer.decode([ids for ids, _ in found]),
                    [score for _, score in found],
                    strict=True,
                )
            )
            for found in self.teacher.translate(src, beam_size, n_best, length_penalty)
        ]

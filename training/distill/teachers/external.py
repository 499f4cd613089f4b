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
    GreedyLabel,
    Hypotheses,
    Ids,
    Member,
    OnePassTeacher,
    Steps,
    Teacher,
    batched_distributions,
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
    """A teacher that is asked by ids of its own tokenizer, as a text teacher; its translations may
    be of another, the `target`'s."""

    def __init__(
        self, teacher: Teacher, tokenizer: Path, max_length: int, target: Path | None = None
    ) -> None:
        self.teacher = teacher
        self.tokenizer = Tokenizer(tokenizer)
        self.target = self.tokenizer if target is None else Tokenizer(target)
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
                    self.target.decode([ids for ids, _ in hypotheses]),
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


class ExtendedTeacher:
    """A teacher behind a student's vocabulary that has pieces after the teacher's own.

    The teacher's ids are the student's first ones. A source with a piece that the teacher lacks is
    given to it as its own tokenizer reads that text; in a given target the piece is its unknown
    token. It never writes such a piece: its probability is 0.
    """

    def __init__(self, teacher: Member, own: Path, tokenizer: Path) -> None:
        """`own` is the SentencePiece model of the teacher, `tokenizer` the student's."""
        self.teacher = teacher
        self.batch_tokens = teacher.batch_tokens
        self.max_length = teacher.max_length
        self._own, self._tokenizer = Tokenizer(own), Tokenizer(tokenizer)
        self._known = len(self._own)

    @property
    def about(self) -> About:
        return self.teacher.about

    @property
    def one_pass(self) -> bool:
        """Whether `greedy_labels` is the way to labels."""
        return isinstance(self.teacher, OnePassTeacher) and self.teacher.one_pass

    def _sources(self, src: list[Ids]) -> list[Ids]:
        sources = list(src)
        rows = [row for row, ids in enumerate(src) if max(ids) >= self._known]
        if not rows:
            return sources
        texts = self._tokenizer.decode([src[row] for row in rows])
        read = clipped(self._own.encode(texts), self.max_length - 1)
        for row, ids in zip(rows, read, strict=True):
            sources[row] = ids
        return sources

    def _targets(self, trg: list[Ids]) -> list[Ids]:
        return [[self._target(token) for token in ids] for ids in trg]

    def _target(self, token: int) -> int:
        return token if token < self._known else UNK

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        return self.teacher.translate(self._sources(src), beam_size, n_best, length_penalty)

    def greedy_labels(self, src: list[Ids], top_k: int) -> list[GreedyLabel]:
        """The teacher's greedy translations and their top-k."""
        assert isinstance(self.teacher, OnePassTeacher)
        return self.teacher.greedy_labels(self._sources(src), top_k)

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        if top_k:
            return self.teacher.distributions(self._sources(src), self._targets(trg), top_k)
        return batched_distributions(self.log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch."""
        logp = self.teacher.log_probs(self._sources(src), self._targets(trg))
        return self.widened(logp, NO_LOGP)

    def steps(self, src: list[Ids], times: int) -> ExtendedSteps:
        """The teacher's decoding of some sources, each `times` times in turn."""
        return ExtendedSteps(self, self.teacher.steps(self._sources(src), times))

    def widened(self, values: Tensor, absent: float) -> Tensor:
        """Values [N, U] of the teacher's pieces → [N, V]."""
        added = len(self._tokenizer) - self._known
        return torch.cat([values, values.new_full((len(values), added), absent)], dim=1)


class ExtendedSteps:
    """A teacher's steps behind a larger vocabulary."""

    def __init__(self, teacher: ExtendedTeacher, steps: Steps) -> None:
        self._teacher, self._steps = teacher, steps

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Tokens [B], which the teacher has, → probabilities [B, V] of the next ones."""
        return self._teacher.widened(self._steps.next_probabilities(last), 0.0)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in that order."""
        self._steps.select(rows)

"""From a teacher's vocabulary to the student's, piece by piece.

Shapes: N positions, U teacher's vocabulary, V student's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.distill.teachers.base import NO_LOGP
from training.model import EOS, UNK


class PieceMap:
    """Which of a teacher's tokens each piece of an adopted tokenizer is.

    `pieces` are the student's in the order of their ids, `teacher_ids` the teacher's vocabulary;
    `unk` and `eos` are the teacher's names for what the student has at UNK and EOS.
    """

    def __init__(self, pieces: list[str], teacher_ids: dict[str, int], unk: str, eos: str) -> None:
        names = list(pieces)
        names[UNK], names[EOS] = unk, eos
        self.unk_id = teacher_ids[unk]
        found = [teacher_ids.get(name) for name in names]
        self._to_teacher = [self.unk_id if index is None else index for index in found]
        self._to_student = {index: piece for piece, index in enumerate(found) if index is not None}
        self._missing = torch.tensor([index is None for index in found])
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
        found = logp.index_select(1, self._columns).clamp(min=NO_LOGP)
        return found.masked_fill(self._missing, NO_LOGP)

"""Reads a pretrained model, whatever toolkit it comes from."""

from __future__ import annotations

from pathlib import Path

from training.pretrained.base import PretrainedModel
from training.pretrained.files import Folder
from training.pretrained.marian_folder import read_marian_folder


def read_pretrained(path: Path, source_prefix: tuple[str, ...] = ()) -> PretrainedModel:
    """The model in a folder of Firefox, Bergamot, translateLocally or Marian.

    Raises PretrainedError that says what was found and what is missing or does not fit.
    """
    return read_marian_folder(Folder.open(Path(path)), source_prefix)

"""Reads a pretrained model, whatever toolkit it comes from."""

from __future__ import annotations

from pathlib import Path

from training.pretrained.base import PretrainedModel
from training.pretrained.files import Folder, PretrainedError, shown
from training.pretrained.huggingface import is_huggingface, read_huggingface_folder
from training.pretrained.marian_folder import VOCABULARIES, model_files, read_marian_folder

PACKED = ("*.gz", "*.zst", "*.xz", "*.zip", "*.tar")


def read_pretrained(path: Path, source_prefix: tuple[str, ...] = ()) -> PretrainedModel:
    """The model in a folder of Firefox, Bergamot, translateLocally or Marian, or in a Hugging Face
    folder of a Marian model.

    `source_prefix` are the pieces in front of every source, such as `>>deu<<` for a model that
    translates into several languages. Raises PretrainedError that says what was found and what is
    missing or does not fit.
    """
    folder = Folder.open(Path(path))
    if is_huggingface(folder):
        return read_huggingface_folder(folder, tuple(source_prefix))
    if model_files(folder) or folder.matching(*VOCABULARIES):
        return read_marian_folder(folder, tuple(source_prefix))
    if packed := folder.matching(*PACKED):
        raise PretrainedError(f"{folder.path}: {shown(packed[0])} is compressed; unpack it first")
    files = ", ".join(folder.names[:10]) + (", …" if len(folder.names) > 10 else "")
    raise PretrainedError(
        f"{folder.path}: no model of Firefox, Marian or Hugging Face, it holds "
        f"{files or 'no files'}; give a folder with a model (.bin, .npz or model.safetensors) and "
        "its SentencePiece vocabulary (.spm)"
    )

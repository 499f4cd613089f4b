"""Folders of Marian models: those of Firefox, Bergamot and translateLocally, and Marian's own.

A model (`.bin` or `.npz`), SentencePiece vocabularies (`.spm`: one of both sides, or one of each)
and, both optional, a lexicon (`lex*.bin`) and a YAML of decoding.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from training.pretrained.base import (
    MAX_LENGTH,
    Languages,
    PretrainedModel,
    check_finite,
    model_config,
)
from training.pretrained.files import (
    MAX_LEXICON_BYTES,
    MAX_MODEL_BYTES,
    MAX_SETTINGS_BYTES,
    MAX_TOKENIZER_BYTES,
    MAX_VOCABULARY_BYTES,
    Folder,
    PretrainedError,
    language,
    plain_name,
    read_yaml,
    shown,
)
from training.pretrained.lexicon import Lexicon, read_lexicon
from training.pretrained.marian import convert_weights, read_architecture
from training.pretrained.marian_container import read_container
from training.pretrained.vocabulary import (
    Vocabulary,
    check_prefix,
    numbered_by_list,
    renumbered,
)

MODELS = ("*.bin", "*.npz")
LEXICONS = ("lex*.bin",)
VOCABULARIES = ("*.spm",)
LISTS = ("*vocab.yml", "*vocab.yaml")
DECODING = ("*.yml", "*.yaml")
ABOUT = ("model_info.json", "metadata.json", "modelMeta.json")
SIDES = {
    "source": ("srcvocab*", "src*.spm", "source*", "vocab.src*"),
    "target": ("trgvocab*", "trg*.spm", "target*", "vocab.trg*", "tgt*.spm"),
}
_PAIR = re.compile(r"(?:^|[._-])([a-z]{2})-?([a-z]{2})(?:[._-]|$)")
_SHORT_NAME = re.compile(r"([a-z]{2,3}(?:_[A-Za-z]+)?)-([a-z]{2,3}(?:_[A-Za-z]+)?)(?:-.*)?")


def model_files(folder: Folder) -> list[str]:
    """The names in a folder that can be Marian models."""
    lexicons = folder.matching(*LEXICONS)
    return [
        name
        for name in folder.matching(*MODELS)
        if name not in lexicons and not name.endswith(".optimizer.npz")
    ]


def read_marian_folder(folder: Folder, source_prefix: tuple[str, ...] = ()) -> PretrainedModel:
    """The model in a folder of Firefox, Bergamot, translateLocally or Marian.

    Raises PretrainedError that says what is missing, damaged or does not fit.
    """
    decoding = _decoding(folder)
    about = _about(folder)
    name = _model_name(folder, decoding)
    source, target = _vocabularies(folder)
    origin = str(folder.path / name)
    container = read_container(folder.read(name, MAX_MODEL_BYTES), origin)
    architecture = read_architecture(read_yaml(container.settings, origin), origin)
    if architecture.joint and not np.array_equal(source.original_ids, target.original_ids):
        raise PretrainedError(
            f"{folder.path}: tied-embeddings-all is one vocabulary, but the two files differ"
        )
    check_prefix(source_prefix, source, str(folder.path))
    state = convert_weights(container, architecture, source, target, origin)
    check_finite(state, origin)
    return PretrainedModel(
        config=model_config(**architecture.dimensions(), max_length=MAX_LENGTH),
        state=state,
        tokenizer=target.model,
        source_tokenizer=None if source.model == target.model else source.model,
        lexicon=_lexicon(folder, decoding, source, target),
        format="firefox" if container.quantized else "marian",
        name=plain_name(about.get("shortName"), folder.path.resolve().name),
        version=architecture.version,
        files=dict(folder.digests),
        languages=_languages(folder, about),
        source_prefix=source_prefix,
        max_length_factor=_factor(decoding),
    )


def _model_name(folder: Folder, decoding: dict[str, Any]) -> str:
    names = model_files(folder)
    if len(names) > 1 and isinstance(decoding.get("models"), list):
        chosen = {PurePath(name).name for name in decoding["models"] if isinstance(name, str)}
        names = [name for name in names if name in chosen] or names
    if len(names) != 1:
        raise PretrainedError(
            f"{folder.path}: {', '.join(names) or 'no .bin or .npz'} instead of one model; "
            "give a folder with one, or name it as `models` in its YAML"
        )
    return names[0]


def _vocabularies(folder: Folder) -> tuple[Vocabulary, Vocabulary]:
    """Those of source and target; one object where they share it."""
    names = folder.matching(*VOCABULARIES)
    sides = [[n for n in folder.matching(*SIDES[side]) if n in names] for side in SIDES]
    if all(len(side) == 1 for side in sides):
        names = [sides[0][0], sides[1][0]]
    elif len(names) != 1:
        raise PretrainedError(
            f"{folder.path}: {', '.join(names) or 'no .spm'}; one SentencePiece vocabulary is "
            "needed, or two called srcvocab….spm and trgvocab….spm"
        )
    read = [(folder.read(name, MAX_TOKENIZER_BYTES), str(folder.path / name)) for name in names]
    if lists := folder.matching(*LISTS):
        vocabularies = _by_list(folder, lists, read)
    else:
        vocabularies = [renumbered(data, origin) for data, origin in read]
        if len(read) == 2 and read[0][0] == read[1][0]:
            vocabularies = vocabularies[:1]
    return vocabularies[0], vocabularies[-1]


def _by_list(folder: Folder, lists: list[str], read: list[tuple[bytes, str]]) -> list[Vocabulary]:
    """SentencePiece models whose ids are in a YAML of both sides, as OPUS-MT has it."""
    origin = str(folder.path / lists[0])
    if len(lists) > 1:
        raise PretrainedError(f"{folder.path}: {', '.join(lists)}; one vocabulary of both is read")
    values = read_yaml(folder.read(lists[0], MAX_VOCABULARY_BYTES), origin)
    ids = {}
    for name, value in values.items():
        if not isinstance(value, str) or not re.fullmatch(r"\d{1,7}", value, re.ASCII):
            raise PretrainedError(f"{origin}: {shown(name)} has the id {shown(value)}")
        ids[name] = int(value)
    return numbered_by_list(read, ids, origin, max(ids.values(), default=0) + 1)


def _lexicon(
    folder: Folder, decoding: dict[str, Any], source: Vocabulary, target: Vocabulary
) -> Lexicon | None:
    named = decoding.get("shortlist")
    name = named[0] if isinstance(named, list) and named else None
    if isinstance(name, str) and Path(name).name not in folder.names:
        raise PretrainedError(
            f"{folder.path}: {shown(name)} is missing, which its YAML names as `shortlist`; copy "
            "it there, or take the line out to go without it"
        )
    names = folder.matching(*LEXICONS)
    if len(names) > 1:
        raise PretrainedError(f"{folder.path}: {', '.join(names)} instead of one lexicon")
    if not names:
        return None
    data = folder.read(names[0], MAX_LEXICON_BYTES)
    return read_lexicon(data, str(folder.path / names[0]), source, target)


def _decoding(folder: Folder) -> dict[str, Any]:
    """The settings of decoding: the only YAML file that names models or a length factor."""
    settings = {
        name: read_yaml(folder.read(name, MAX_SETTINGS_BYTES), str(folder.path / name))
        for name in folder.matching(*DECODING)
        if name not in folder.matching(*LISTS)
    }
    for values in settings.values():
        if "models" in values or "max-length-factor" in values:
            return values
    return {}


def _factor(decoding: dict[str, Any]) -> float | None:
    value = decoding.get("max-length-factor")
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,4}(\.\d{1,9})?", value):
        return None
    return float(value) or None


def _about(folder: Folder) -> dict[str, Any]:
    """What small JSON files say of the model; a damaged one says nothing."""
    about: dict[str, Any] = {}
    for name in folder.matching(*ABOUT):
        try:
            value = json.loads(folder.read(name, MAX_SETTINGS_BYTES))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            about.update(value)
    return about


def _languages(folder: Folder, about: dict[str, Any]) -> Languages:
    """From the model's description, else from the names of its files."""
    source, target = (language(about.get(f"{side}Language")) for side in ("source", "target"))
    if source and target:
        return source, target
    short = about.get("shortName")
    match = _SHORT_NAME.fullmatch(short) if isinstance(short, str) else None
    if match is not None:
        return language(match[1]), language(match[2])
    for name in folder.matching(*VOCABULARIES, *LEXICONS, *MODELS):
        match = _PAIR.search(name)
        if match is not None:
            return match[1], match[2]
    return None, None

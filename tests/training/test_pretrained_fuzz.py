"""Damaged and hostile files of every kind: refused with words, or a model that is sound.

Bytes are flipped, cut, repeated and overwritten with extreme numbers, all from fixed seeds.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm

from tests.training.tiny_pretrained import (
    firefox_folder,
    huggingface_folder,
    marian_arrays,
    marian_settings,
    sentencepiece_model,
    write_npz,
)
from training.pretrained.base import PretrainedModel
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained

ROUNDS = 150
MAX_MEGABYTES = 40
MAX_SECONDS = 5
EXTREMES = (
    b"\xff" * 8,
    b"\0" * 8,
    b"\0" * 7 + b"\x10",
    b"\0" * 7 + b"\x80",
    b"\xff" * 7 + b"\x7f",
    b"\0\0\0\x80",
    b"\xff\xff\xff\x7f",
)


def damaged(data: bytes, seed: int) -> bytes:
    """One to three faults in a file; most of them near its beginning, where its sizes are."""
    generator = random.Random(seed)
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        reach = len(changed) if generator.random() < 0.4 else min(len(changed), 512)
        at = generator.randrange(max(reach, 1))
        match generator.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([generator.randrange(256)])
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + generator.randint(1, 16)]
            case 3:
                extreme = generator.choice(EXTREMES)
                changed[at : at + len(extreme)] = extreme
            case 4:
                changed[at:at] = changed[: generator.randint(1, 64)]
    return bytes(changed)


def check_sound(model: PretrainedModel) -> None:
    """Everything that later steps rely on."""
    size = len(model.state["embedding.weight"])
    source_size = len(model.state.get("source_embedding.weight", model.state["embedding.weight"]))
    assert len(model.state["output_bias"]) == size
    assert all(np.isfinite(value).all() for value in model.state.values())
    tokenizer = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    source = spm.SentencePieceProcessor(model_proto=model.source_tokenizer or model.tokenizer)
    assert tokenizer.get_piece_size() == size
    assert source.get_piece_size() == source_size
    ids = source.encode("a b", add_eos=True)
    assert 0 <= min(ids) <= max(ids) < source_size
    if model.lexicon is not None:
        lexicon = model.lexicon
        assert len(lexicon.offsets) == source_size + 1
        assert lexicon.offsets[0] == 0
        assert lexicon.offsets[-1] == len(lexicon.targets)
        assert (np.diff(lexicon.offsets) >= 0).all()
        for words in (lexicon.targets, lexicon.always, lexicon.fill):
            assert not len(words) or 0 <= words.min() <= words.max() < size
        assert lexicon.candidates(ids).max() < size


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pretrained")
    source, target = sentencepiece_model(), sentencepiece_model(80)
    firefox_folder(root / "firefox", source)
    huggingface_folder(root / "huggingface", source, target)
    (root / "marian").mkdir()
    settings = marian_settings()
    arrays = marian_arrays(settings, 100, 100)
    (root / "marian" / "model.npz").write_bytes(write_npz(arrays, settings))
    (root / "marian" / "vocab.spm").write_bytes(source)
    names = ("firefox", "huggingface", "marian")
    return {name: root / name for name in names}


FILES = (
    "firefox/model.enpt.intgemm.alphas.bin",
    "firefox/lex.50.50.enpt.s2t.bin",
    "firefox/config.intgemm8bitalpha.yml",
    "firefox/vocab.enpt.spm",
    "marian/model.npz",
    "huggingface/model.safetensors",
    "huggingface/config.json",
    "huggingface/vocab.json",
    "huggingface/source.spm",
)


@pytest.mark.parametrize("file", FILES)
def test_damage_is_refused_or_harmless(folders: dict[str, Path], file: str) -> None:
    folder, name = file.split("/")
    path = folders[folder] / name
    whole = path.read_bytes()
    read_pretrained(path.parent)
    refused = 0
    tracemalloc.start()
    try:
        for seed in range(ROUNDS):
            path.write_bytes(damaged(whole, seed))
            started = time.process_time()
            try:
                check_sound(read_pretrained(path.parent))
            except PretrainedError:
                refused += 1
            assert time.process_time() - started < MAX_SECONDS, seed
        assert tracemalloc.get_traced_memory()[1] < MAX_MEGABYTES << 20
    finally:
        tracemalloc.stop()
        path.write_bytes(whole)
    assert refused, "no fault was noticed: do they reach the file?"

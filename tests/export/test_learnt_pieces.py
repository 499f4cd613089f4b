"""Characters that a model has pieces or bytes for, and has hardly learnt."""

from __future__ import annotations

from pathlib import Path

import sentencepiece as spm

from export.runtime.bundle import load_bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.engines.unknown import UnknownFinder, learnt_pieces
from tests.export import tiny


def test_such_characters_and_bytes_are_unknown(tokenizer_path: Path) -> None:
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    assert UnknownFinder(tokenizer).reads_all_text
    assert learnt_pieces(tokenizer, "") is None
    finder = UnknownFinder(tokenizer, learnt_pieces(tokenizer, "."))
    assert not finder.reads_all_text
    assert finder.spans("old cat.") == [(7, 8)]
    assert finder.spans("old 漢 cat") == [(4, 5)]
    assert finder.spans("old cat") == []


def test_a_bundle_says_which(tmp_path: Path, tokenizer_path: Path) -> None:
    bundle = tiny.make_bundle(tmp_path / "b", tokenizer_path, missing="€.")
    assert bundle.manifest.missing_characters == "€."
    engine = load_engine(load_bundle(bundle.path))
    assert not engine.reads_all_text
    assert engine.unknown_spans("old cat. old €") == [(7, 8), (13, 14)]
    # What is asked for all the same is translated: the caller decides.
    assert engine.translate_batch(["old cat."], TranslateOptions())[0].tokens

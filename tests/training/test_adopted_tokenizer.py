"""Adopted SentencePiece models: our special ids, the teacher's segmentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece as spm

from tests.training.distill.tiny_teachers import TEXTS, other_sentencepiece, our_tokenizer
from training.config.recipe import RecipeError
from training.data.adopted_tokenizer import SPECIAL, adopt, segmentation
from training.data.tokenizer import Tokenizer
from training.model.transformer import BOS, EOS, PAD, UNK


def test_the_special_pieces_stand_at_the_ids_of_the_model() -> None:
    names = [name for name, _ in SPECIAL]
    assert [names[index] for index in (PAD, UNK, BOS, EOS)] == ["<pad>", "<unk>", "<s>", "</s>"]


def test_our_own_model_stays_as_it_is(tmp_path: Path) -> None:
    path = our_tokenizer(tmp_path / "ours.model")
    assert adopt(path) == path.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram"},
        {"model_type": "bpe"},
        {"byte_fallback": True, "vocab_size": 400},
        {"control_symbols": ["<2de>"], "user_defined_symbols": ["<br>"]},
        {"unk_id": 2, "bos_id": 0, "eos_id": 1},
    ],
    ids=["unigram", "bpe", "bytes", "symbols", "other-ids"],
)
def test_other_models_keep_their_segmentation(tmp_path: Path, options: dict[str, object]) -> None:
    theirs = other_sentencepiece(tmp_path / "theirs.model", **options)
    (tmp_path / "adopted.model").write_bytes(adopt(theirs))
    adopted, plain = Tokenizer(tmp_path / "adopted.model"), spm.SentencePieceProcessor()
    plain.load(str(theirs))
    assert adopted.pieces[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert "<2de>" not in adopted.pieces
    for text in [*TEXTS, "a <br> b", "日 ﬁ x"]:
        ids = adopted.encode([text])[0]
        assert ids[-1] == EOS
        theirs_ids = plain.encode(text)
        known = [plain.id_to_piece(i) for i in theirs_ids if not plain.is_unknown(i)]
        assert [adopted.pieces[i] for i in ids[:-1] if i != UNK] == known
        assert [i == UNK for i in ids[:-1]] == [plain.is_unknown(i) for i in theirs_ids]
    assert adopted.decode(adopted.encode(TEXTS)) == plain.decode(plain.encode(TEXTS))
    assert segmentation(theirs) == segmentation(tmp_path / "adopted.model")


def test_models_that_cut_text_otherwise_differ(tmp_path: Path) -> None:
    one, other = (our_tokenizer(tmp_path / f"{seed}.model", seed) for seed in (1, 7))
    assert segmentation(one) != segmentation(other)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.model").write_text("no model at all")
    for name in ("text.model", "missing.model"):
        with pytest.raises(RecipeError, match=f"{name}: "):
            adopt(tmp_path / name)

"""Vocabularies of pretrained models: our ids, missing characters, more pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sentencepiece as spm

from tests.training.tiny_pretrained import TEXTS, piece_ids, pieces_of, sentencepiece_model
from training.data.adopted_tokenizer import ModelProto, Piece, has_our_ids
from training.model.transformer import BOS, EOS, PAD, UNK
from training.pretrained.coverage import (
    COMMON,
    extend,
    missing_characters,
    written_in_bytes,
)
from training.pretrained.files import PretrainedError
from training.pretrained.vocabulary import numbered_by_list, renumbered

MORE = [*TEXTS, "", " a  b ", "Ünknown wörds", "日本 x", "ﬁne № 5", "a.b,c!"]


def processor(model: bytes) -> Any:
    return spm.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def model() -> bytes:
    return sentencepiece_model()


# --- ids ---------------------------------------------------------------------------------------


def test_special_pieces_come_first_and_rows_follow_their_pieces(model: bytes) -> None:
    vocabulary = renumbered(model, "m.spm")
    names, theirs = pieces_of(vocabulary.model), pieces_of(model)
    assert names == ["<pad>", "<unk>", "<s>", "</s>", *theirs[2:]]
    assert vocabulary.original_ids.tolist() == [-1, 1, -1, 0, *range(2, 100)]
    assert vocabulary.our_ids.tolist() == [EOS, UNK, *range(4, 102)]
    table = np.arange(200, dtype=np.float32).reshape(100, 2) + 1
    rows = vocabulary.embedding(table)
    assert rows[[PAD, UNK, BOS, EOS, 4]].tolist() == [[0, 0], [3, 4], [0, 0], [1, 2], [5, 6]]
    bias = vocabulary.output_bias(table[:, 0])
    assert bias[[UNK, EOS, 101]].tolist() == [3, 1, 199]
    assert (bias[[PAD, BOS]] < -100).all()
    assert has_our_ids(ModelProto.FromString(vocabulary.model))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model_type": "bpe"},
        {"byte_fallback": True, "size": 400},
        {"control_symbols": ["<2de>"], "user_defined_symbols": ["<br>"]},
        {"pad_id": 3, "bos_id": 2, "eos_id": 0, "unk_id": 1},
    ],
    ids=["unigram", "bpe", "bytes", "symbols", "all-special"],
)
def test_segmentation_stays(options: dict[str, Any]) -> None:
    theirs = sentencepiece_model(**options)
    vocabulary = renumbered(theirs, "m.spm")
    plain, ours = processor(theirs), processor(vocabulary.model)
    for text in MORE:
        ids = ours.encode(text)
        assert vocabulary.original_ids[ids].tolist() == plain.encode(text)
        assert ours.decode(ids) == plain.decode(plain.encode(text))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"m\.spm: no SentencePiece model \(0 pieces\)"),
        (b"\xff\xff\xff", "no SentencePiece model"),
        (b"text", "no SentencePiece model"),
        (sentencepiece_model(eos_id=-1), "without <unk> or </s>"),
    ],
)
def test_what_is_no_vocabulary_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        renumbered(data, "m.spm")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_two_models_share_the_ids_of_a_list(kind: str) -> None:
    source, target = (sentencepiece_model(size, model_type=kind) for size in (100, 70))
    ids = piece_ids(source, target, codes=(">>deu<<",))
    both = numbered_by_list([(source, "s"), (target, "t")], ids, "vocab.json", len(ids))
    assert pieces_of(both[0].model) == pieces_of(both[1].model)
    for theirs, vocabulary in zip((source, target), both, strict=True):
        plain, ours = processor(theirs), processor(vocabulary.model)
        for text in MORE:
            expected = [ids.get(piece, 1) for piece in plain.encode(text, out_type=str)]
            assert vocabulary.original_ids[ours.encode(text)].tolist() == expected
            assert ours.decode(ours.encode(text)) == plain.decode(plain.encode(text))
        own = set(pieces_of(theirs))
        for index, piece in enumerate(ModelProto.FromString(vocabulary.model).pieces):
            if index > EOS and piece.piece not in own:
                assert piece.type == Piece.UNUSED
        words = processor(source).encode(TEXTS[0], out_type=str)
        assert ours.decode([ours.piece_to_id(word) for word in words]) == TEXTS[0]


def test_text_never_becomes_a_language_code() -> None:
    model = sentencepiece_model(user_defined_symbols=[">>deu<<"])
    assert ">>deu<<" in processor(model).encode(">>deu<< a", out_type=str)
    ids = piece_ids(model)
    (vocabulary,) = numbered_by_list([(model, "m")], ids, "vocab.json", len(ids))
    ours = processor(vocabulary.model)
    assert ">>deu<<" not in ours.encode(">>deu<< a", out_type=str)
    assert vocabulary.original_ids[ours.piece_to_id(">>deu<<")] == ids[">>deu<<"]


def test_pieces_that_the_list_lacks_are_unknown_and_cut_as_before(model: bytes) -> None:
    ids = piece_ids(model)
    plain = processor(model)
    dropped = plain.encode(TEXTS[0], out_type=str)[1]
    kept = {name: i for i, name in enumerate(name for name in ids if name != dropped)}
    (vocabulary,) = numbered_by_list([(model, "m")], kept, "vocab.json", len(kept))
    ours = processor(vocabulary.model)
    assert ours.encode(TEXTS[0], out_type=str) == plain.encode(TEXTS[0], out_type=str)
    row = ours.piece_to_id(dropped)
    assert vocabulary.original_ids[row] == kept["<unk>"]
    assert vocabulary.absent[row]
    assert vocabulary.our_ids[kept["<unk>"]] == UNK
    assert vocabulary.output_bias(np.zeros(len(kept), np.float32))[row] < -100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"<unk>": None}, "<unk> is missing"),
        ({"</s>": None}, "</s> is missing"),
        ({"▁a": 1}, "two pieces have the same id"),
        ({"▁a": 10**6}, "the model has 101 words"),
        ({"▁a": -5}, "ids from -5"),
        ({"": 200}, "a piece that is no text"),
        ({"a\0b": 200}, "a piece that is no text"),
        ({"\ud800": 200}, "a piece that is no text"),
    ],
)
def test_lists_that_do_not_fit_are_refused(
    model: bytes, change: dict[str, int | None], message: str
) -> None:
    ids = piece_ids(model)
    size = len(ids)
    changed = {k: v for k, v in {**ids, **change}.items() if v is not None}
    with pytest.raises(PretrainedError, match=message):
        numbered_by_list([(model, "m")], changed, "vocab.json", size)


# --- missing characters ------------------------------------------------------------------------


def test_missing_characters_are_those_that_become_unknown(model: bytes) -> None:
    missing = missing_characters(model)
    assert set("€ñŁ😀—“@{~→") <= set(missing) <= set(COMMON)
    assert not set("aeiou.") & set(missing)
    assert len(set(missing)) == len(missing)
    plain = processor(model)
    for character in COMMON:
        assert (plain.unk_id() in plain.encode(character)) == (character in missing)


def test_what_normalisation_maps_to_pieces_is_not_missing(model: bytes) -> None:
    assert "…" not in missing_characters(model)  # NFKC: three points
    assert "ª" not in missing_characters(model)
    plain = sentencepiece_model(normalization_rule_name="identity")
    assert "…" in missing_characters(plain)


def test_nothing_is_missing_with_byte_fallback() -> None:
    assert missing_characters(sentencepiece_model(400, byte_fallback=True)) == ""


def test_what_bytes_write_is_what_would_be_missing() -> None:
    plain, fallback = (sentencepiece_model(400, byte_fallback=one) for one in (False, True))
    assert written_in_bytes(plain) == ""
    assert "ã" in written_in_bytes(fallback)
    assert "e" not in written_in_bytes(fallback)


# --- more pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_an_extended_model_writes_what_was_missing(kind: str, byte_fallback: bool) -> None:
    model = renumbered(sentencepiece_model(model_type=kind), "m").model
    extended = extend(model, ["€", "ñ", "€", "a", "…", "😀", "中国"], byte_fallback)
    plain, ours = processor(model), processor(extended)
    added = pieces_of(extended)[len(pieces_of(model)) :]
    assert added[:4] == ["€", "ñ", "😀", "中国"]
    assert len(added) == 4 + 256 * byte_fallback
    assert pieces_of(extended)[: len(pieces_of(model))] == pieces_of(model)
    assert has_our_ids(ModelProto.FromString(extended))
    for text in MORE:
        ids = plain.encode(text)
        if UNK not in ids:
            assert ours.encode(text) == ids
    text = "a €e😀 ñ 中国 a"
    assert ours.decode(ours.encode(text)) == text
    assert "中国" in ours.encode(text, out_type=str)
    assert (UNK in ours.encode("日 a")) != byte_fallback
    assert ours.decode(ours.encode("日 a")) == ("日 a" if byte_fallback else " ⁇  a")
    assert missing_characters(extended) == (
        "" if byte_fallback else "".join(c for c in missing_characters(model) if c not in "€ñ😀")
    )


def test_all_missing_characters_can_be_added(model: bytes) -> None:
    extended = extend(model, missing_characters(model), False)
    assert missing_characters(extended) == ""
    assert extend(extended, missing_characters(model), False) == extended


def test_a_character_inside_a_longer_piece_changes_no_segmentation() -> None:
    proto = ModelProto.FromString(renumbered(sentencepiece_model(), "m").model)
    for piece, score in (("▁Kåln", -9.0), ("▁Kå", -9.5)):
        proto.pieces.add(piece=piece, score=score, type=Piece.NORMAL)
    model = proto.SerializeToString()
    extended = extend(model, ["å", "ål"], False)
    assert pieces_of(extended)[-1] == "å"  # "ål" would cut Kåln
    for text in ("Kåln", "Kålner", "in Kåln a", "Kåa"):
        assert processor(extended).encode(text) == processor(model).encode(text)
    assert UNK in processor(model).encode("åa")
    assert processor(extended).encode("åa", out_type=str)[1] == "å"


def test_an_added_character_costs_what_an_unknown_one_did() -> None:
    proto = ModelProto.FromString(renumbered(sentencepiece_model(), "m").model)
    proto.pieces.add(piece="aå", score=-20.0, type=Piece.NORMAL)
    model = proto.SerializeToString()
    extended = extend(model, ["å"], False)
    assert ModelProto.FromString(extended).pieces[-1].score == -30
    assert processor(model).encode("aåaå", out_type=str) == ["▁", "aå", "aå"]
    assert processor(extended).encode("aåaå", out_type=str) == ["▁", "aå", "aå"]


@pytest.mark.parametrize("piece", ["", "a b", " ", "\ud800", "a\0"])
def test_what_is_no_piece_is_refused(model: bytes, piece: str) -> None:
    with pytest.raises(PretrainedError, match="cannot be a piece"):
        extend(model, [piece], False)

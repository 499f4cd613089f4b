"""The lexicon of a pretrained model, in the ids of a student with fewer pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from export.lent_lexicon import LentLexicon, lent_lexicon
from tests.training.tiny_pretrained import firefox_folder, sentencepiece_model
from training.data.tokenizer import pieces_of
from training.pretrained.base import PretrainedModel
from training.pretrained.coverage import extend
from training.pretrained.reader import read_pretrained
from training.pretrained.trimmed import trim

SIZE = 200


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    folder = tmp_path_factory.mktemp("pretrained") / "enpt"
    firefox_folder(folder, sentencepiece_model(350, character_coverage=1.0))
    return read_pretrained(folder)


@pytest.fixture(scope="module")
def small(pretrained: PretrainedModel) -> bytes:
    """200 of the 350 pieces, with a sign that the model lacks among them."""
    return trim(extend(pretrained.tokenizer, ["€"], False), [], SIZE, ["€"])


def lent(model: PretrainedModel, small: bytes) -> LentLexicon:
    lexicon = lent_lexicon(model, small)
    assert lexicon is not None
    return lexicon


def test_lists_are_the_models_own_with_what_is_gone_cut_up(
    pretrained: PretrainedModel, small: bytes
) -> None:
    theirs, ours = pieces_of(pretrained.tokenizer), pieces_of(small)
    lexicon, words = pretrained.lexicon, lent(pretrained, small)
    assert lexicon is not None
    cut, listed = 0, 0
    for index, source in enumerate(theirs):
        if source not in ours:
            continue
        own = {ours[i] for i in words.lists[ours.index(source)].tolist()}
        bounds = lexicon.offsets[index : index + 2]
        wanted = [theirs[i] for i in lexicon.targets[bounds[0] : bounds[1]]]
        assert {piece for piece in wanted if piece in ours} <= own
        for piece in wanted:
            if piece not in ours:
                cut += 1
                assert any(piece.startswith(part) for part in own)
                assert any(piece.endswith(part) for part in own)
        listed += len(wanted)
        if all(piece in ours for piece in wanted):
            assert own == set(wanted), "and nothing else"
    assert 0 < cut < listed


def test_what_any_source_may_become_and_unknown_pieces(
    pretrained: PretrainedModel, small: bytes
) -> None:
    theirs, ours = pieces_of(pretrained.tokenizer), pieces_of(small)
    lexicon, words = pretrained.lexicon, lent(pretrained, small)
    assert lexicon is not None
    always = {ours[i] for i in words.always.tolist()}
    assert {p for i in lexicon.always if (p := theirs[i]) in ours} <= always
    assert ours.index("€") not in words.lists, "nothing is known of an added piece"
    assert max(max(ids, default=0) for ids in words.lists.values()) < SIZE


def test_a_model_without_a_lexicon_lends_none(pretrained: PretrainedModel, small: bytes) -> None:
    assert lent_lexicon(replace(pretrained, lexicon=None), small) is None

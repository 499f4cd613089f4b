"""Lexicons: the words that a sentence may become, as Marian lists and fills them up."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.training.tiny_pretrained import sentencepiece_model, write_lexicon
from training.model.transformer import EOS, UNK
from training.pretrained.files import PretrainedError
from training.pretrained.lexicon import MAGIC, Lexicon, read_lexicon
from training.pretrained.vocabulary import Vocabulary, renumbered

SIZE = 100
FREQUENT = 5


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return renumbered(sentencepiece_model(SIZE), "vocab.spm")


def lists() -> list[list[int]]:
    """Of 100 words: 10 has three, 11 has none, all others one, themselves."""
    return [{10: [20, 3, 50], 11: []}.get(word, [word]) for word in range(SIZE)]


@pytest.fixture(scope="module")
def lexicon(vocabulary: Vocabulary) -> Lexicon:
    return read_lexicon(write_lexicon(lists(), FREQUENT), "lex.bin", vocabulary, vocabulary)


def ours(*words: int) -> list[int]:
    """Firefox's ids in ours: `</s>` 0 → 3, `<unk>` 1 → 1, others two further on."""
    return [{0: EOS, 1: UNK}.get(word, word + 2) for word in words]


def test_lists_have_our_ids(lexicon: Lexicon) -> None:
    assert len(lexicon.offsets) == SIZE + 2 + 1
    assert lexicon.always.tolist() == sorted(ours(0, 1, 2, 3, 4))
    (word,) = ours(10)
    listed = lexicon.targets[lexicon.offsets[word] : lexicon.offsets[word + 1]]
    assert listed.tolist() == ours(3, 20, 50)
    for empty in (0, 2, *ours(11)):  # <pad>, <s>
        assert lexicon.offsets[empty] == lexicon.offsets[empty + 1]


def test_candidates_are_the_frequent_and_the_listed_filled_up_to_eight(lexicon: Lexicon) -> None:
    # Frequent 0 … 4; 10 lists 20, 3, 50; the end lists itself: 7 words, and 5 is the first free.
    assert lexicon.candidates(ours(10, 0)).tolist() == sorted(ours(0, 1, 2, 3, 4, 20, 50, 5))
    # 5 and 6 are listed themselves: 7 words, and the first free one is 7.
    assert lexicon.candidates(ours(5, 6, 0)).tolist() == sorted(ours(0, 1, 2, 3, 4, 5, 6, 7))
    # Eight words need no filling.
    words = lexicon.candidates(ours(97, 98, 99, 0))
    assert words.tolist() == sorted(ours(0, 1, 2, 3, 4, 97, 98, 99))


def test_the_sources_own_words_come_with_a_shared_vocabulary(lexicon: Lexicon) -> None:
    words = lexicon.candidates(ours(11, 0), with_source=True)
    assert words.tolist() == sorted(ours(0, 1, 2, 3, 4, 11, 5, 6))


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_those_of_a_plain_reading(lexicon: Lexicon, seed: int) -> None:
    src = [*np.random.default_rng(seed).integers(0, SIZE, 12).tolist(), 0]
    expected = set(range(FREQUENT)).union(*(lists()[word] for word in src))
    following = FREQUENT
    while len(expected) % 8:
        expected.add(following)
        following += 1
    assert lexicon.candidates(ours(*src)).tolist() == sorted(ours(*expected))
    assert EOS in lexicon.candidates(ours(*src))


def test_the_end_is_a_candidate_even_if_it_is_not_frequent(vocabulary: Vocabulary) -> None:
    data = write_lexicon([[] for _ in range(SIZE)], 0)
    lexicon = read_lexicon(data, "lex.bin", vocabulary, vocabulary)
    assert lexicon.always.tolist() == [EOS]
    assert lexicon.candidates([EOS]).tolist() == sorted(ours(0, 1, 2, 3, 4, 5, 6, 7))


def header(*numbers: int) -> bytes:
    return struct.pack("<6Q", *numbers)


def with_offsets(offsets: list[int], words: list[int]) -> bytes:
    body = np.array(offsets, "<u8").tobytes() + np.array(words, "<u4").tobytes()
    return header(MAGIC, 0, 5, 50, len(offsets), len(words)) + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, no binary lexicon"),
        (header(1, 0, 5, 50, 0, 0), "no binary lexicon, it begins with 0x1"),
        (header(MAGIC, 0, 5, 50, 1 << 60, 0), "its header needs 9223372036854775856"),
        (header(MAGIC, 0, 5, 50, (1 << 61) + 1, 1), "its header needs"),
        (header(MAGIC, 0, 5, 50, 0, 0), "it has no offsets"),
        (write_lexicon(lists(), 5)[:-1], "but its header needs"),
        (write_lexicon(lists()[:-1], 5), "lists for 99 source words, the vocabulary has 100"),
        (write_lexicon([*lists()[:-1], [100]], 5), "lists word 100, the vocabulary has 100 words"),
        (with_offsets([0] * 50 + [2] + [1] * 50, [7]), "do not ascend from 0 to 1"),
        (with_offsets([0] * 100 + [1 << 63], [7]), "do not ascend from 0 to 1"),
        (with_offsets([1] * 101, [7]), "do not ascend from 0 to 1"),
        (with_offsets([0] * 101, [7]), "do not ascend from 0 to 1"),
    ],
)
def test_what_is_no_lexicon_is_refused(vocabulary: Vocabulary, data: bytes, message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        read_lexicon(data, "lex.bin", vocabulary, vocabulary)

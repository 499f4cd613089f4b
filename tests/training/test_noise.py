"""Noise: as strong as asked for, repeatable, and never the end of a sentence."""

from __future__ import annotations

import random

import pytest

from training.data.cleaning import noisy, typo

TEXT = "two young men are standing near a bush in the garden behind an old house"


def test_no_noise_changes_nothing() -> None:
    assert noisy(TEXT, 0.0, random.Random(1)) == TEXT


def test_the_same_generator_gives_the_same_noise() -> None:
    assert noisy(TEXT, 0.5, random.Random(7)) == noisy(TEXT, 0.5, random.Random(7))
    assert noisy(TEXT, 0.5, random.Random(7)) != TEXT


@pytest.mark.parametrize("strength", [0.1, 0.3])
def test_strength_is_the_share_of_words_lost_or_misspelt(strength: float) -> None:
    """A third of the noise drops a word, a third misspells one; swaps keep every word."""
    words = ["abcdefgh"] * 20_000
    found = noisy(" ".join(words), strength, random.Random(3)).split(" ")
    assert 1 - len(found) / len(words) == pytest.approx(strength / 3, rel=0.1)
    misspelt = sum(word != "abcdefgh" for word in found) / len(words)
    assert misspelt == pytest.approx(strength / 3, rel=0.1)


def test_replaced_words_are_others_of_the_sentence() -> None:
    words = [f"w{number}" for number in range(2000)]
    found = noisy(" ".join(words), 0.3, random.Random(1), ["replace"]).split(" ")
    assert len(found) == len(words)
    assert set(found) < set(words)
    replaced = sum(one != other for one, other in zip(found, words, strict=True))
    assert replaced / len(words) == pytest.approx(0.3, abs=0.03)


def test_a_swap_keeps_every_word() -> None:
    words = [f"w{number}" for number in range(200)]
    found = noisy(" ".join(words), 0.3, random.Random(1), ["swap"]).split(" ")
    assert sorted(found) == sorted(words)
    assert found != words


def test_a_text_is_never_emptied() -> None:
    for seed in range(50):
        assert noisy("hello", 1.0, random.Random(seed))
        assert noisy("a b", 1.0, random.Random(seed))


def test_typo_exchanges_neighbours() -> None:
    assert typo("ab", random.Random(0)) == "ba"
    assert typo("a", random.Random(0)) == "a"
    assert sorted(typo("garden", random.Random(4))) == sorted("garden")

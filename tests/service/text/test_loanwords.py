"""English words with accents are sent as a model knows them."""

from __future__ import annotations

import pytest

from service.text.loanwords import Loanwords


def loanwords(alphabet: str, *, large: bool = True) -> Loanwords:
    """Those of a model that reads ASCII and some letters more."""
    return Loanwords.readable_by(
        lambda text: all(letter.isascii() or letter in alphabet for letter in text),
        lambda text: 1 if large else len(text),
    )


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("the café, two cafés", "the cafe, two cafes"),
        ("a naïve fiancé sautéed crêpes", "a naive fiance sautéed crepes"),
        ("vis-à-vis a pre-fiancé", "vis-a-vis a pre-fiancé"),
        ("Café Müller, schön, cafékatze", "Café Müller, schön, cafékatze"),
    ],
)
def test_known_words_lose_their_accents(text: str, sent: str) -> None:
    words = loanwords("")
    assert words.without_accents(text) == sent
    assert len(sent) == len(text)
    assert words.restore(text, sent) == text


def test_a_translation_keeps_its_own_words() -> None:
    words = loanwords("")
    assert words.restore("a café", "um café, cafeteria") == "um café, cafeteria"
    assert words.restore("a café", "cafe, Cafe") == "café, Cafe"
    assert words.restore("a cafe", "cafe") == "cafe"


def test_letters_that_are_read_stay() -> None:
    assert loanwords("é").without_accents("a naïve café") == "a naive café"


def test_a_small_vocabulary_knows_few() -> None:
    small = loanwords("", large=False)
    assert small.without_accents("the fiancé in the café") == "the fiancé in the cafe"

"""Cutting texts up and putting them together: nothing is lost, nothing is too long."""

from __future__ import annotations

import random
import unicodedata

import pytest

from service.text.sentences import join_parts, split_text


def words(sentence: str) -> int:
    """A stand-in for a tokenizer: letters count, three to a token."""
    return -(-len(sentence) // 3)


def cut(text: str, max_tokens: int = 100) -> list[tuple[str, bool]]:
    return [(part.text, part.translate) for part in split_text(text, "en", words, max_tokens)]


def test_sentences_are_cut_and_spaces_kept() -> None:
    assert cut("  Hello there.  How are you?\t") == [
        ("  ", False),
        ("Hello there.", True),
        ("  ", False),
        ("How are you?", True),
        ("\t", False),
    ]


def test_lines_and_blank_lines_stay() -> None:
    assert cut("One line\r\n\r\n \nAnother") == [
        ("One line", True),
        ("\r\n", False),
        ("\r\n", False),
        (" ", False),
        ("\n", False),
        ("Another", True),
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "42", "3.14 %", "–––", "😀", "\u00a0"])
def test_what_has_no_letter_is_kept(text: str) -> None:
    assert not any(translate for _, translate in cut(text))
    assert "".join(part for part, _ in cut(text)) == text


def test_abbreviations_do_not_end_sentences() -> None:
    assert cut("Dr. Smith is here.") == [("Dr. Smith is here.", True)]


def test_sentences_end_after_an_ellipsis_before_a_capital() -> None:
    assert [part for part, translate in cut("“Wait…” He went… and came… “Oh…”") if translate] == [
        "“Wait…”",
        "He went… and came…",
        "“Oh…”",
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("the dog sleeps; the cat, who is old, eats", "the dog sleeps;"),
        ("when it rains it pours, so we stay in the house", "when it rains it pours,"),
        ("one two three four five six seven", "one two three four"),
        ("Donaudampfschifffahrtsgesellschaft", "Donaudampfschifff"),
    ],
)
def test_a_long_sentence_is_cut_at_the_best_place(text: str, first: str) -> None:
    assert cut(text, max_tokens=10)[0] == (first, True)


def test_a_letter_keeps_its_marks() -> None:
    text = "x\u0323\u0307" * 20
    for part, _ in cut(text, max_tokens=4):
        assert not unicodedata.combining(part[0])


def test_any_text_adds_up_and_fits() -> None:
    generator = random.Random(5)
    alphabet = "ab cd. E, \n\r\t;:!?\u2028\u0301é漢字。،😀\u200d-1\x00"
    for _ in range(150):
        text = "".join(generator.choices(alphabet, k=generator.randrange(120)))
        parts = split_text(text, "en", words, 8)
        assert "".join(part.text for part in parts) == unicodedata.normalize("NFC", text)
        assert all(words(part.text) <= 8 for part in parts if part.translate)
        assert all(part.text == part.text.strip() for part in parts if part.translate)


def test_a_very_long_text_without_spaces_is_cut() -> None:
    parts = cut("a" * 5000, max_tokens=50)
    assert all(words(part) <= 50 for part, _ in parts)


def test_joining_puts_translations_in_place() -> None:
    parts = split_text(" One. Two.\n3\n", "en", words, 10)
    assert join_parts(parts, ["Eins.", "Zwei."]) == " Eins. Zwei.\n3\n"
    with pytest.raises(ValueError, match="1 translations for 2 sentences"):
        join_parts(parts, ["Eins."])


def test_letters_are_composed() -> None:
    assert cut("Cafe\u0301 au lait") == [("Café au lait", True)]

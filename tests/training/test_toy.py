"""The toy corpus: correct German, the same on every machine."""

import pytest

from training.data.cleaning import bare
from training.data.toy import (
    DATIVE,
    DITRANSITIVE,
    FOLDER,
    NOUNS,
    SIZES,
    Clause,
    Grammar,
    Noun,
    Phrase,
    _statement,
    make_toy,
    toy_files,
)


def test_committed_files_are_what_the_grammar_makes():
    for name, text in toy_files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, (
            f"{name}: run `python -m training.data.toy` and commit what it writes"
        )


def test_sizes_and_no_overlap():
    pairs = make_toy(sum(SIZES.values()))
    for side in (0, 1):
        assert len({bare(pair[side]) for pair in pairs}) == 4400


def test_seed_decides():
    assert make_toy(50, seed=1) == make_toy(60, seed=1)[:50]
    assert make_toy(50, seed=1) != make_toy(50, seed=2)


NOUN = {noun.en: noun for kind in NOUNS.values() for noun in kind}


@pytest.mark.parametrize(
    ("noun", "adjective", "determiner", "plural", "case", "negated", "expected"),
    [
        ("man", "alt", "the", False, "nom", False, "der alte Mann"),
        ("man", "alt", "the", False, "acc", False, "den alten Mann"),
        ("man", "alt", "a", False, "nom", False, "ein alter Mann"),
        ("man", "alt", "a", False, "acc", False, "einen alten Mann"),
        ("man", "alt", "a", False, "dat", False, "einem alten Mann"),
        ("woman", "jung", "a", False, "acc", False, "eine junge Frau"),
        ("woman", "jung", "a", False, "dat", False, "einer jungen Frau"),
        ("child", "klein", "a", False, "acc", False, "ein kleines Kind"),
        ("child", None, "the", True, "dat", False, "den Kindern"),
        ("woman", None, "the", True, "dat", False, "den Frauen"),
        ("car", None, "the", True, "dat", False, "den Autos"),
        ("house", "neu", "bare", True, "acc", False, "neue Häuser"),
        ("house", "neu", "bare", True, "acc", True, "keine neuen Häuser"),
        ("coffee", "heiß", "bare", False, "acc", False, "heißen Kaffee"),
        ("coffee", "heiß", "bare", False, "acc", True, "keinen heißen Kaffee"),
        ("water", "kalt", "bare", False, "acc", True, "kein kaltes Wasser"),
    ],
)
def test_declension(noun, adjective, determiner, plural, case, negated, expected):
    pair = ("", adjective) if adjective else None
    phrase = Grammar(1)._build(NOUN[noun], pair, determiner, plural, case, negated)
    assert phrase.de == expected


def test_a_or_an():
    build = Grammar(1)._build
    apple, dog = NOUN["apple"], NOUN["dog"]
    assert build(apple, None, "a", False, "acc", False).en == "an apple"
    assert build(apple, ("big", "groß"), "a", False, "acc", False).en == "a big apple"
    assert build(dog, ("old", "alt"), "a", False, "acc", False).en == "an old dog"


SHE = Phrase("she", "sie", "er", True)
BOOK = Phrase("the book", "das Buch", "er", True)
A_BOOK = Phrase("a book", "ein Buch", "er", False)
FATHER = Phrase("the father", "dem Vater", "er", True)


@pytest.mark.parametrize(
    ("objects", "tense", "negated", "time_first", "en", "de"),
    [
        ([FATHER, A_BOOK], "present", False, False,
         "She gives the father a book today.", "Sie gibt dem Vater heute ein Buch."),
        ([FATHER, BOOK], "present", True, False,
         "She does not give the father the book today.",
         "Sie gibt dem Vater das Buch heute nicht."),
        ([FATHER, BOOK], "past", False, True,
         "Today she gave the father the book.", "Heute hat sie dem Vater das Buch gegeben."),
        ([FATHER, A_BOOK], "future", False, False,
         "She will give the father a book today.", "Sie wird dem Vater heute ein Buch geben."),
    ],
)  # fmt: skip
def test_word_order(objects, tense, negated, time_first, en, de):
    clause = Clause(SHE, DITRANSITIVE[0], tense, negated, objects, ("today", "heute"), None)
    assert _statement(clause, time_first) == (en, de)


def test_words_are_complete():
    assert DATIVE[0].participle == "geholfen"
    assert all(isinstance(noun, Noun) and noun.gender in "mfn" for noun in NOUN.values())


def test_an_english_sentence_has_one_german():
    grammar = Grammar(3)
    german: dict[str, str] = {}
    for _ in range(20_000):
        en, de = grammar.sentence()
        assert german.setdefault(en, de) == de

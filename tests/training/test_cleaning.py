"""Each rule at its boundary; duplicates against a plain set."""

import random
import tracemalloc
import unicodedata

import numpy as np
import pytest

from tests.training.test_readers import corpus
from training.data.cleaning import (
    DuplicateFinder,
    bare,
    build_rules,
    clean,
    held_out_keys,
    normalise,
    plain_characters,
    rule_names,
)
from training.data.readers import CorpusError, RawPair


def dropped_by(src, trg, held_out=(), languages=("en", "de"), **options):
    fields = {"src_lang": languages[0], "trg_lang": languages[1], "clean": options}
    rules = build_rules(corpus(".", **fields), held_out_keys(held_out))
    return clean(RawPair(src, trg), rules).dropped_by


# --- normalisation -----------------------------------------------------------------------------


def test_normalise_composes_and_collapses():
    assert normalise(" scho\u0308n \t\u00a0\u2028 gru\u0308n\r") == "schön grün"
    assert normalise("\u3000") == ""


def test_normalise_is_idempotent():
    pick = random.Random(1)
    for _ in range(300):
        text = "".join(chr(pick.choice([pick.randrange(0xD800), 32, 0x308])) for _ in range(12))
        once = normalise(text)
        assert normalise(once) == once
        assert unicodedata.is_normalized("NFC", once)
        assert once == once.strip()
        assert "  " not in once


def test_typographic_characters_become_those_of_a_keyboard():
    typographic = "“It’s\u00a0here”\u2014she said\u2026 1\u20132\u00ad"
    assert plain_characters(typographic) == '"It\'s here" - she said... 1-2'
    assert plain_characters("schön – 20 °C") == "schön - 20 °C"


def test_bare_keeps_letters_marks_and_digits():
    assert bare("«Straße» No. 5,\n you’re!") == "strasseno5youre"
    assert bare("हिन्दी।") == "हिन्दी"
    assert bare("…?! 😀") == ""


# --- rules -------------------------------------------------------------------------------------


def test_a_good_pair_is_kept_normalised():
    pair = clean(RawPair(" A  dog. ", "Ein\tHund."), build_rules(corpus("."), set()))
    assert (pair.src, pair.trg, pair.dropped_by) == ("A dog.", "Ein Hund.", None)


def test_empty():
    assert dropped_by("", "x") == "empty"
    assert dropped_by("x", " \u2003 ") == "empty"


def test_too_long():
    assert dropped_by("x" * 10, "y" * 10, max_chars=10) is None
    assert dropped_by("x", "y" * 11, max_chars=10) == "too_long"
    assert dropped_by("x  " * 3, "y", max_chars=5) is None  # "x x x": counted when normalised


def test_length_ratio():
    assert dropped_by("x" * 10, "y" * 40) is None
    assert dropped_by("x" * 10, "y" * 41) == "length_ratio"
    assert dropped_by("y" * 41, "x" * 10) == "length_ratio"
    assert dropped_by("x", "y" * 19) is None
    assert dropped_by("x", "y" * 20) == "length_ratio"


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x7f", "\x9b", "\ufffe"])
def test_control_characters(character):
    assert dropped_by("a", f"b{character}c") == "control_characters"
    assert dropped_by(f"{character}a", "b") == "control_characters"
    assert dropped_by("a", f"b{character}c", drop_control=False) is None


def test_joiners_and_white_space_are_no_control_characters():
    assert dropped_by("a\u200db\u00adc", "d\te\x85f\x1cg") is None


def test_overlap_of_either_side():
    held_out = ["The dog sleeps.", "Der Hund schläft.", "?!"]
    assert dropped_by("the  DOG sleeps", "Der Köter schläft.", held_out) == "overlap"
    assert dropped_by("The dog is asleep.", "«Der Hund schla\u0308ft»", held_out) == "overlap"
    assert dropped_by("The dog sleeps well.", "Der Hund schläft gut.", held_out) is None
    assert dropped_by("...", "…", held_out) is None
    assert dropped_by("The dog sleeps.", "x", held_out, drop_overlap=False) is None


def test_equal_sides():
    """Text that was not translated, whatever its spaces."""
    assert dropped_by("The  dog sleeps.", "The dog sleeps. ") == "equal_sides"
    assert dropped_by("The dog sleeps.", "the dog sleeps.") is None
    assert dropped_by("The dog sleeps.", "The dog sleeps.", drop_equal=False) is None
    assert dropped_by("The dog sleeps.", None) is None


ENGLISH = "The weather is nice today, so we are going for a long walk."
GERMAN = "Das Wetter ist heute schön, deshalb machen wir einen langen Spaziergang."
FRENCH = "Il fait beau aujourd'hui, alors nous allons faire une longue promenade."


def test_wrong_language():
    assert dropped_by(ENGLISH, GERMAN, check_language=True) is None
    assert dropped_by(ENGLISH, FRENCH, check_language=True) == "wrong_language"
    assert dropped_by(GERMAN, ENGLISH, check_language=True) == "wrong_language"
    assert dropped_by(ENGLISH, FRENCH) is None
    assert dropped_by(ENGLISH, GERMAN, languages=("en-GB", "de-AT"), check_language=True) is None
    short = {"check_language": True, "language_min_chars": len(FRENCH) + 1}
    assert dropped_by(ENGLISH, FRENCH, **short) is None


def test_unknown_language_is_told():
    with pytest.raises(CorpusError, match=r"trg_lang 'tlh'; set check_language to false"):
        dropped_by("a", "b", languages=("en", "tlh"), check_language=True)


def test_faults_come_first_and_names_are_all_listed():
    rules = build_rules(corpus(".", clean={"check_language": True}), set())
    assert clean(RawPair("", "", "malformed"), rules).dropped_by == "malformed"
    assert rule_names(corpus("."), rules) == [
        *("invalid_utf8", "malformed", "empty", "too_long", "length_ratio"),
        *("control_characters", "equal_sides", "overlap", "wrong_language", "duplicate"),
    ]
    off = {
        "drop_duplicates": False,
        "drop_overlap": False,
        "drop_control": False,
        "drop_equal": False,
    }
    config = corpus(".", clean=off)
    names = rule_names(config, build_rules(config, set()))
    assert names == ["invalid_utf8", "malformed", "empty", "too_long", "length_ratio"]


# --- duplicates --------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "parts"), [(1, 1), (2, 7), (3, 256)])
def test_duplicates_equal_a_plain_set(tmp_path, seed, parts):
    pick = random.Random(seed)
    pairs = [(str(pick.randrange(40)), str(pick.randrange(40))) for _ in range(3000)]
    finder = DuplicateFinder(tmp_path, parts)
    for start in range(0, len(pairs), 700):
        finder.add(pairs[start : start + 700])
    seen = set()
    expected = [pair in seen or seen.add(pair) is not None for pair in pairs]
    assert finder.marks().tolist() == expected


def test_duplicates_need_both_sides_at_their_place(tmp_path):
    finder = DuplicateFinder(tmp_path)
    finder.add([("a", "b"), ("b", "a"), ("a", "c"), ("ab", ""), ("a", "b")])
    finder.add([])
    assert finder.marks().tolist() == [False, False, False, False, True]


def test_no_pairs_no_duplicates(tmp_path):
    assert DuplicateFinder(tmp_path).marks().shape == (0,)


def test_memory_of_duplicates_is_flat(tmp_path):
    def peak(batches):
        finder = DuplicateFinder(tmp_path / str(batches), parts=64)
        tracemalloc.start()
        for batch in range(batches):
            finder.add([(f"{batch} {number}", "x") for number in range(1000)])
        assert not np.count_nonzero(finder.marks())
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)
    assert peak(40) < 1.2 * peak(10)

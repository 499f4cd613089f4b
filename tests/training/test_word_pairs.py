"""Single words that translate each other, out of translated sentences."""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path

import pytest

from training.data.readers import CorpusError
from training.data.word_pairs import WordPair, word_pairs, write_word_pairs

NOUNS = {"dog": "Hund", "cat": "Katze", "house": "Haus", "USA": "USA"}
VERBS = {"sees": "sieht", "finds": "findet"}
ADJECTIVES = {"big": "groß", "red": "rot", "X": "X"}


def sentences() -> list[tuple[str, str]]:
    """Each noun with each verb and adjective; verbs begin a sentence once."""
    rows = [
        (f"the {noun} {verb} {adjective}.", f"so {verb_de} {noun_de}, {adjective_de}.")
        for (noun, noun_de), (verb, verb_de), (adjective, adjective_de) in product(
            NOUNS.items(), VERBS.items(), ADJECTIVES.items()
        )
    ]
    return [*rows, ("Sees it?", "Sieht es?"), ("Dog and unicorn.", "Hund und Einhorn.")]


def test_words_that_translate_each_other_are_found_in_their_usual_form() -> None:
    found = {pair.src: pair.trg for pair in word_pairs(sentences())}
    expected = {"dog": "Hund", "cat": "Katze", "house": "Haus", "big": "groß", "red": "rot"}
    assert found == {"the": "so", **expected, **VERBS}


def test_they_come_by_frequency_with_their_counts() -> None:
    found = word_pairs(sentences())
    assert found[0] == WordPair("the", "so", 24)
    assert [pair.frequency for pair in found] == sorted(
        (pair.frequency for pair in found), reverse=True
    )
    assert WordPair("dog", "Hund", 7) in found


def test_rare_words_are_left_out() -> None:
    assert "unicorn" not in {pair.src for pair in word_pairs(sentences())}
    assert {pair.src for pair in word_pairs(sentences(), least_count=7)} == {
        *("the", "sees", "finds", "big", "red", "dog")
    }


def test_a_word_with_two_translations_is_no_pair() -> None:
    rows = [("a bank here", "eine Bank hier"), ("a bank here", "ein Ufer hier")] * 5
    assert "bank" not in {pair.src for pair in word_pairs(rows)}


def test_no_text_has_no_pairs() -> None:
    assert word_pairs([]) == []
    assert word_pairs([("1 2 3", "4 5")]) == []


def test_files_are_joined_and_written_with_a_capital_too(tmp_path: Path) -> None:
    files = []
    rows = sentences()
    for number, part in enumerate((rows[:9], rows[9:])):
        for side, language in enumerate(("en", "de")):
            path = tmp_path / f"{number}.{language}"
            path.write_text("".join(f"{row[side]}\n" for row in part), encoding="utf-8")
            files.append(path)
    out = tmp_path / "words.tsv.gz"
    count = write_word_pairs(files[::2], files[1::2], out)
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert len(lines) == count == 16
    assert {"big\tgroß", "Big\tGroß", "dog\tHund", "Dog\tHund"} < set(lines)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "a.en", tmp_path / "a.de"
    one.write_text("a dog\na cat\n")
    other.write_text("ein Hund\n")
    with pytest.raises(CorpusError, match=r"has 2 lines and .* 1: line n of one must"):
        write_word_pairs([one], [other], tmp_path / "out.tsv")
    other.write_text("\n\n")
    with pytest.raises(CorpusError, match="give more text"):
        write_word_pairs([one], [other], tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()

"""What looks wrong, what does not, and which of two is better."""

from __future__ import annotations

import random

import pytest

from export.runtime.engines import TranslateOptions, Translation
from service.fallback import (
    STUTTER,
    WORD,
    WORD_OR_MARK,
    check_output,
    fallback_options,
    pick_better,
)


def codes(source: str, text: str, **found: object) -> list[str]:
    """Codes for a translation whose tokens are its words."""
    translation = Translation(
        **{"text": text, "tokens": len(text.split()), **found}  # type: ignore[arg-type]
    )
    return [warning.code for warning in check_output(source, len(source.split()), translation)]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("She set the world record.", "Sie hat den Weltrekord Schlässssssssss."),
        ("Construction workers are here.", "Die Maschinenisisisisisisis sind da."),
        ("I bought it.", "Ich habe es, habe es, habe es gekauft."),
        ("A man is on the street today.", "Ein Mann ist auf der Straße auf der Straße."),
        ("It is very small.", "Es ist sehr sehr sehr klein."),
        ("Clique em Salvar para salvar.", "Click Save to save to save changes."),
        ("bye bye", "tschüss tschüss tschüss tschüss"),
        ("He wrote a book.", "Er HAT ein Buch, er hat ein Buch"),
        ("We go home.", "мы идём идём идём домой"),
    ],
)
def test_repetition_is_seen(source: str, text: str) -> None:
    assert "repetition" in codes(source, text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Bye bye!", "Tschüss tschüss!"),
        ("No, no, no!", "Nein, nein, nein!"),
        ("No!", "Nein, nein, nein!"),
        ("hahahahaha", "hahahahaha"),
        ("Noooooo!", "Neiiiiin!"),
        ("He said that that was good.", "Er sagte, dass das, das gut war, gut war."),
        ("Call 555 555 555 or 000000.", "Ruf 555 555 555 oder 000000 an."),
        ("Wait .......", "Warte ......."),
        ("The ferry company", "Die Schifffahrtsgesellschaft"),
        ("people who own it", "die, die die Stadt besitzen"),
        ("It mattered that we stayed.", "Wichtig war, war, dass wir blieben. Ja! Ja! Ja, ja."),
        ("They go hand in hand in the park.", "Sie gehen Hand in Hand in den Park."),
        ("I know that you know.", "Ich weiß, dass du weißt, dass ich es weiß."),
    ],
)
def test_rightful_repetition_is_not(source: str, text: str) -> None:
    assert codes(source, text) == []


def test_an_echo_is_seen() -> None:
    source = "the cat sat on the mat"
    assert codes(source, source) == ["echo"]
    assert codes(source, "The cat sat on the mat.") == ["echo"]
    assert codes(source, "die Katze saß auf der Matte") == []


@pytest.mark.parametrize(
    "source",
    [
        "Berlin",
        "Tom",
        "New York City Marathon",
        "42",
        "COVID-19 2020",
        "OK",
        "9 a.m.–5 p.m.",
        "Taxi, bitte",
        "",
        "…",
    ],
)
def test_what_may_stay_as_it_is_is_no_echo(source: str) -> None:
    assert codes(source, source) == []


def test_length_is_seen() -> None:
    assert codes("one two three four", "a b c d e f g h i j k l") == ["too_long"]
    assert codes("one two three four", "a b c d e f g h i j k") == []  # 12 / 5
    assert codes("one two three four five six seven eight nine", "a b") == ["too_short"]
    assert codes("one two three four five six seven eight nine", "a b c") == []  # 4 / 10
    assert codes("Hi there", "a b c d e f g h i j k l") == []  # too little to measure
    assert codes("one two three", "") == ["echo", "too_short"]


def test_truncation_and_low_scores_are_seen() -> None:
    assert codes("one two three", "eins zwei drei", truncated=True) == ["truncated"]
    assert codes("one two three", "eins zwei drei", score=-1.41) == ["low_score"]
    assert codes("one two three", "eins zwei drei", score=-1.4) == []
    assert codes("one two three", "eins zwei drei", score=None) == []


def test_messages_hold_none_of_the_text() -> None:
    translation = Translation("geheim geheim geheim geheim", 40, -9.0, truncated=True)
    warnings = check_output("secret word here", 3, translation)
    assert {warning.code for warning in warnings} == {
        "truncated", "repetition", "too_long", "low_score"
    }  # fmt: skip
    for warning in warnings:
        assert "geheim" not in warning.message
        assert "secret" not in warning.message


def test_the_better_one_has_less_wrong_and_then_a_higher_score() -> None:
    source, tokens = "one two three four", 4
    fine = Translation("eins zwei drei vier", 4, -1.0)
    likelier = Translation("eins, zwei, drei, vier", 4, -0.5)
    loops = Translation("eins eins eins eins", 4, -0.1)
    unscored = Translation("eins zwei", 4)
    assert pick_better(source, tokens, loops, fine) is fine
    assert pick_better(source, tokens, fine, loops) is fine
    assert pick_better(source, tokens, fine, likelier) is likelier
    assert pick_better(source, tokens, likelier, fine) is likelier
    assert pick_better(source, tokens, fine, unscored) is fine
    assert pick_better(source, tokens, unscored, fine) is unscored
    assert pick_better(source, tokens, fine, fine) is fine


def test_a_sentence_is_tried_three_times_at_most() -> None:
    greedy = TranslateOptions(return_scores=True)
    beam, penalty = fallback_options(greedy)
    assert (beam.beam_size, beam.repetition_penalty) == (4, 1.0)
    assert (penalty.beam_size, penalty.repetition_penalty) == (4, 1.3)
    assert fallback_options(beam) == [penalty]
    assert fallback_options(penalty) == []
    wide = TranslateOptions(beam_size=8, alternatives=3, return_scores=True)
    assert [one.beam_size for one in fallback_options(wide)] == [8]
    assert all(one.alternatives == 3 for one in fallback_options(wide))


def test_long_texts_are_judged() -> None:
    letters = "abcdefghijklmnop"
    text = " ".join(first + second for first in letters for second in letters)  # 256 words
    assert codes(text, text.upper()) == ["echo"]
    assert codes(text, " ".join(["da"] * 255)) == ["repetition"]


def test_repetition_is_what_a_search_of_every_stretch_finds() -> None:
    def most_in_a_row(words: list[str], size: int) -> int:
        most = 1
        for start in range(len(words)):
            times = 1
            while words[start : start + size] == words[start + times * size :][:size] != []:
                times += 1
            whole = start + times * size <= len(words)
            most = max(most, times if whole else times - 1)
        return most

    def repeats(source: str, text: str) -> bool:
        def words(one: str) -> list[str]:
            return WORD.findall(one.casefold())

        def apart(one: str) -> list[str]:
            found = WORD_OR_MARK.findall(one.casefold())
            return [word if word[0].isalpha() else f"{at}." for at, word in enumerate(found)]

        def stutter(one: str) -> int:
            return max((len(match[0]) for match in STUTTER.finditer(one.casefold())), default=0)

        rules = [
            (1, 3, apart),
            (2, 2, apart),
            *((n, 3 if n == 2 else 2, words) for n in range(2, 13)),
        ]
        return stutter(text) > stutter(source) or any(
            (times := most_in_a_row(read(text), size)) >= too_often
            and times > most_in_a_row(read(source), size)
            for size, too_often, read in rules
        )

    chance = random.Random(3)
    parts = ["ja", "ja", "nein,", "so", "die", "haha", "ti", "ti", "Mi", "-", "x!", "und", "er"]
    found = 0
    for _ in range(3000):
        source, text = (
            "".join(chance.choice(parts) + chance.choice(["", " ", " "]) for _ in range(length))
            for length in (chance.randint(1, 6), chance.randint(1, 16))
        )
        given = "repetition" in [one.code for one in check_output(source, 1, Translation(text, 1))]
        assert given == repeats(source, text), (source, text)
        found += given
    assert found > 50

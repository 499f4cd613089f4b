"""Shortened English words are sent in full."""

from __future__ import annotations

import pytest

from service.text.document import open_document
from service.text.shortened_words import in_full
from service.text.spelled_out import spell_out


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("the max. weight, the avg. age", "the maximum weight, the average age"),
        ("Min. 8 characters, max 9", "Minimum 8 characters, maximum 9"),
        ("Max. 5 files", "Maximum 5 files"),
        ("MAX. LOAD, MIN 5", "MAXIMUM LOAD, MINIMUM 5"),
        ("Min. order: $20, max. speed", "Minimum order: $20, maximum speed"),
        ("5 people max.", "5 people maximum."),
        ("5 people (max.) came", "5 people (maximum) came"),
        ("Price incl. VAT", "Price including VAT"),
        ("$5 excl. VAT", "$5 without VAT"),
        ("2 hrs 30mins", "2 hours 30 minutes"),
        ("Wait 5 mins.", "Wait 5 minutes."),
        ("a 5 yrs. old dog", "a 5 years old dog"),
        ("w/ milk, W/o sugar", "with milk, without sugar"),
        (
            "Reply ASAP, or ASAP if you can.",
            "Reply as soon as possible, or as soon as possible if you can.",
        ),
        ("the capital, i.e. Lisbon", "the capital, that is, Lisbon"),
        ("(i.e., Lisbon)", "(that is, Lisbon)"),
        ("in the U.K., and the UK.", "in the United Kingdom, and the United Kingdom."),
        ("the U.K.'s economy, the U.N.", "the UK's economy, the UN."),
        ("the U.K. economy of the U.N.", "the UK economy of the UN."),
    ],
)
def test_they_are_sent_in_full(text: str, sent: str) -> None:
    assert in_full(text) == sent
    assert spell_out("max. 5", "de") == "max. 5"


@pytest.mark.parametrize(
    "text",
    [
        "I like Max. He is nice.",
        "and Max 2 is here",
        "Emma asked Max. 20 minutes later",
        "Max 5, Emma 7 and Leo 9",
        "Verstappen, Max. 1st place",
        "The Boeing 737 MAX 8, GB 24, MIN 27",
        "iPhone 14 Pro max 512GB",
        "80 beats per min., wait a min. I am late",
        "five min. on each side, 5½ min., one to two min. each",
        "price incl.",
        "Max 5 left home.",
        "Ask mad max.",
        "ASAP Rocky sang, the ASAP protocol",
        "The UK and US governments agreed.",
        "The UK by-election was close.",
        "min.js, min-max., the 3 min. walk, a.max. b",
        "24 hrs/day",
        "We left the U.K. Then it rained.",
        "the UK Parliament, the UK economy, the UK's economy, UK law, THE UK",
        "a w/c, either w/",
        "the min is low",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert in_full(text) == text


def test_an_app_ends_a_sentence_before_a_number() -> None:
    document = open_document("1. Open the app. 2. Tap Settings.", "text", "en", len, 100)
    texts = [segment.text for segment in document.segments]
    assert not any("Appendix" in text for text in texts)
    assert any(text.endswith("Open the app.") for text in texts)

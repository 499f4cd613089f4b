"""Which language a text is in: the served ones are likelier, and letters are needed."""

from __future__ import annotations

import pytest

from service.languages import Detection, Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(["en", "de", "pt-BR"])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The weather is nice today.", "en"),
        ("Das Wetter ist heute schön.", "de"),
        ("O tempo está bom hoje, não está?", "pt-BR"),
        ("Il fait beau aujourd'hui.", "fr"),
        ("THE WEATHER IS NICE TODAY.", "en"),
        ("12:30 — DAS WETTER IST HEUTE SCHÖN!", "de"),
        ("Сегодня хорошая погода.", "ru"),
        ("hello", "en"),
    ],
)
def test_the_language_of_a_line(detector: Detector, text: str, language: str) -> None:
    found = detector.detect(text)
    assert found[0].language == language
    assert [one.confidence for one in found] == sorted(
        (one.confidence for one in found), reverse=True
    )
    assert 0.99 < sum(one.confidence for one in found) < 1.001


@pytest.mark.parametrize("text", ["", "  \n", "42", "😀 🎉", "?!…", "--- 3 % ---"])
def test_text_without_a_letter_is_undetermined(detector: Detector, text: str) -> None:
    assert detector.detect(text) == [Detection("und", 0.0)]


def test_a_long_text_is_judged_by_its_start(detector: Detector) -> None:
    text = "\n" * 9000 + "Das Wetter ist heute schön. " * 100 + "The weather is nice. " * 9000
    assert detector.detect(text)[0].language == "de"

"""Abbreviations before numbers are sent as the words they stand for."""

from __future__ import annotations

import pytest

from service.text.document import open_document
from service.text.spelled_out import spell_out


@pytest.mark.parametrize(
    ("language", "text", "sent"),
    [
        ("en", "no. 8 is new", "number 8 is new"),
        ("en", "No. 8 is new", "Number 8 is new"),
        ("en", "take no. 8 now", "take No. 8 now"),
        ("en", "Nos. 8 and 9", "Numbers 8 and 9"),
        ("en", "see p. 8 and pp. 9-10", "see page 8 and pages 9-10"),
        ("en", "(fig. 8)", "(Figure 8)"),
        ("en", "vol. XI, ch. V", "Volume XI, Chapter V"),
        ("en", "I like art. I paint.", "I like art. I paint."),
        ("en", "the answer is no. We left.", "the answer is no. We left."),
        ("en", "a.p. 8, x-no. 8", "a.p. 8, x-no. 8"),
        ("en-GB", "ca. 8 dogs", "about 8 dogs"),
        ("de", "siehe S. 8, Abb. 9", "siehe Seite 8, Abbildung 9"),
        ("pt", "ver pág. 8", "ver página 8"),
        ("pt-BR", "o n.º 8 e o nº 9", "o número 8 e o número 9"),
        ("pt", "no séc. XI", "no século XI"),
        ("fr", "voir p. 8", "voir p. 8"),
        ("en", "Tue–Thu 8:30", "Tuesday to Thursday 8:30"),
        ("en", "Closed Tuesday - Thursday", "Closed Tuesday to Thursday"),
        ("en", "Sun 8 pm, Sat: no", "Sunday 8 pm, Saturday: no"),
        ("en", "the Sun is 8 light minutes away", "the Sun is 8 light minutes away"),
        ("en", "he sat 8 hours", "he sat 8 hours"),
        ("de", "Di.–Do.", "Dienstag bis Donnerstag"),
        ("pt", "Ter–Qui", "Terça-feira a Quinta-feira"),
    ],
)
def test_abbreviations_are_sent_as_words(language: str, text: str, sent: str) -> None:
    assert spell_out(text, language) == sent


def test_documents_send_words_and_keep_their_source() -> None:
    document = open_document("See <b>fig. 8</b> there.", "html", "en", len, 100)
    (segment,) = document.segments
    assert segment.text == "See Figure 8 there."
    assert segment.source == "See fig. 8 there."


@pytest.mark.parametrize("text", ["§ 8", "§§ 8-9", "§ 8a", "¶ 8", "№ 8", "§\u00a08"])
def test_signs_before_numbers_stay_with_them(text: str) -> None:
    document = open_document(f"as {text} says", "text", "en", len, 100)
    assert text in document.rebuild(["wie Boston sagt"])

"""Abbreviations before numbers are sent as the words they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.text.document import open_document
from service.text.numerals import Numerals
from service.text.spelled_out import spell_out, with_number_signs
from tests.service.text.engines import run


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
        ("pt", "às 17h30, 9h05min ou 8h", "às 17:30, 9:05 ou 8h"),
        ("pt", "a17h30, 17h305, 2,5h30, 25h30", "a17h30, 17h305, 2,5h30, 25h30"),
        ("pt", "no 3º andar e no 8", "no 3º andar e no 8"),
        ("pt", "na 2ª-feira, às 6as-feiras", "na segunda-feira, às sextas-feiras"),
        ("pt", "a 2ª vez, a 7ª-feira", "a 2ª vez, a 7ª-feira"),
        ("pt", "de seg. a sex., das 9h", "de segunda-feira a sexta-feira, das 9h"),
        ("pt", "seg a sex, ter a sexta", "segunda-feira a sexta-feira, ter a sexta"),
        (
            "pt",
            "vai ter a Sex Education, ter a seg. parte",
            "vai ter a Sex Education, ter a seg. parte",
        ),
        (
            "pt",
            "em três anos 40 empresas, aos 18 anos 70 reais",
            "em três anos 40 empresas, aos 18 anos 70 reais",
        ),
        ("pt", "nos últimos dez anos 50 pessoas", "nos últimos dez anos 50 pessoas"),
        ("pt", "de 3 em 3 de maio", "de 3 em 3 de maio"),
        ("pt", "De 8 em 8 horas", "A cada 8 horas"),
        ("pt", "os anos 80 do século XIX, anos 30 a.C.", "os anos 80 do século XIX, anos 30 a.C."),
        ("pt", "Anos 50-60", "Anos 1950 e 1960"),
        ("pt", "Ter a sex shop, de ter a sex tape", "Ter a sex shop, de ter a sex tape"),
        ("pt", "Da 2ª à 6ª-feira", "Da segunda à sexta-feira"),
        ("en", "The Sun: a star", "The Sun: a star"),
        ("pt", "Aberto de Seg. a Sáb.", "Aberto de segunda-feira a sábado."),
        ("pt", "de 8 em 8 horas, de 8 em 9", "a cada 8 horas, de 8 em 9"),
        ("pt", "nos anos 80 e 90, os anos 20", "nos anos 1980 e 1990, os anos 20"),
        ("pt", "na década de 80; 90 anos", "na década de 1980; 90 anos"),
        ("pt", "os anos 80,5, anos 80 mil", "os anos 80,5, anos 80 mil"),
        ("en", "after 8h30", "after 8h30"),
        ("en", "Open 9am-5pm.", "Open 9am to 5pm."),
        ("en", "from 9:30 a.m. – 5 p.m. daily", "from 9:30 a.m. to 5 p.m. daily"),
        ("en", "Open 9-5pm, closed 12-1 p.m.", "Open 9am to 5pm, closed 12 p.m to 1 p.m."),
        ("en", "between 5 and 6pm", "between 5pm and 6pm"),
        ("en", "between 11:30 and 1 PM", "between 11:30 AM and 1 PM"),
        ("en", "from 5:30 to 5:45 pm", "from 5:30 pm to 5:45 pm"),
        ("en", "9.30 AM–5.30 PM", "9:30 AM to 5:30 PM"),
        ("en", "from 7 until 9 pm", "from 7 pm until 9 pm"),
        ("en", "at 9.30 am", "at 9:30 am"),
        ("en", "We saw 10 and 6pm came.", "We saw 10 and 6pm came."),
        ("en", "1.9am-5pm, x9am-5pm, 13-5pm", "1.9am-5pm, x9am-5pm, 13-5pm"),
        ("en", "$5-6pm, 5-6 pms, 3.5-4 am", "$5-6pm, 5-6 pms, 3.5-4 am"),
        ("de", "9am-5pm", "9am-5pm"),
        ("en", "on Dec. 3-5, Sept 8th, Mar 2025", "on December 3-5, September 8th, March 2025"),
        ("en", "the 8 Dec. 2025 and 9 Oct we met", "the 8 December 2025 and 9 October we met"),
        ("en", "We left on 9 Feb.", "We left on 9 February."),
        ("en", "Nov.", "Nov."),
        ("en", "Room 8 Jan sleeps in, dec 8", "Room 8 Jan sleeps in, dec 8"),
        ("en", "on 8 Jan 2025, 8 Jan.", "on 8 January 2025, 8 January."),
        ("en", "Jan. 8 – Feb. 9", "January 8 to February 9"),
        ("en", "Room 8-Mar-2, 8-Jan", "Room 8-Mar-2, 8-Jan"),
    ],
)
def test_abbreviations_are_sent_as_words(language: str, text: str, sent: str) -> None:
    assert spell_out(text, language) == sent


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("at 1pm", "at 13:00"),
        ("at 1 p.m.", "at 13:00."),
        ("5 p.m.", "5 p.m."),
        ("at 1 p.m. today, 12 A.M. (or 12 P. M.)", "at 13:00 today, 0:00 (or 12:00)"),
        ("at 5 p.m. EST, a 5 p.m. London flight", "at 17:00 EST, a 17:00 London flight"),
        ("2PM released an album, 4AM Studios", "2PM released an album, 4AM Studios"),
        ("I am 5 am I right, 9 AM stations", "I am 5 am I right, 9 AM stations"),
        ("from 8:30am, to 11:45 PM!", "from 8:30, to 23:45!"),
        ("Sat 9-1pm", "Saturday 9:00 to 13:00"),
        ("00:30–1am", "00:30–1:00"),
        ("13pm, x1pm, $8 am, 8 ams, 1.9 pm, 2,8pm", "13pm, x1pm, $8 am, 8 ams, 1.9 pm, 2,8pm"),
        ("8 o'clock in the morning", "8 o'clock in the morning"),
    ],
)
def test_hours_count_to_24_where_the_model_reads_those(text: str, sent: str) -> None:
    assert spell_out(text, "en", "pt-BR") == sent
    assert spell_out("9am", "en", "de") == "9am"


def test_hours_that_are_sent_to_24_are_those_of_the_text() -> None:
    """What a model makes of `13:00` agrees with `1pm`."""
    numerals = Numerals("en", "pt")
    sent: list[str] = []

    def translate(texts: Sequence[str]) -> list[str]:
        sent.extend(texts)
        return [text.replace("from", "das").replace(" to ", " às ") for text in texts]

    source = "Open from <b>9am</b>-1pm, Dec. 3."
    found = run(source, "html", translate, numerals=numerals)
    assert sent[0] == "Open from 9:00 to 13:00, December 3."
    assert found == "Open das <b>9:00</b> às 13:00, December 3."


@pytest.mark.parametrize(
    ("target", "source", "translation", "written"),
    [
        ("de", "No. 8 is new", "Zahl 8 ist neu", "Nr. 8 ist neu"),
        ("de", "take no. 8 now", "nimm jetzt Nummer 8", "nimm jetzt Nr. 8"),
        ("de", "no. 8 and No. 11", "Nr. 8 und No. 11", "Nr. 8 und Nr. 11"),
        ("de", "Nos. 8 and 11", "Zahlen 8 und 11", "Nrn. 8 und 11"),
        ("de", "bus No. 8", "Busnr. 8", "Busnr. 8"),
        ("de", "number 8", "Zahl 8", "Zahl 8"),
        ("de", "No. 8, number 8", "Zahl 8, Zahl 8", "Zahl 8, Zahl 8"),
        ("de", "No. 8 of 80", "Zahl 8 von 80, Zahl 80", "Nr. 8 von 80, Zahl 80"),
        ("pt-BR", "No. 8: the dog", "Número 8: o cão", "N.º 8: o cão"),
        ("pt", "at No. 8", "no número 8", "no n.º 8"),
        ("en", "Nr. 8 ist neu", "Number 8 is new", "No. 8 is new"),
        ("fr", "No. 8", "Numéro 8", "Numéro 8"),
    ],
)
def test_numbers_have_the_sign_of_the_target_language(
    target: str, source: str, translation: str, written: str
) -> None:
    assert with_number_signs(source, translation, target) == written


def test_what_is_tagged_has_it_too() -> None:
    numerals = Numerals("en", "de")
    words = {"Number": "Zahl", "No.": "Nr.", "see": "siehe", "it": "es"}

    def translate(texts: Sequence[str]) -> list[str]:
        return [" ".join(words.get(word, word) for word in text.split()) for text in texts]

    for source, written in (
        ("<b>No. 8</b>, see it now", "<b>Nr. 8</b>, siehe es now"),
        ("see <i>No. 8</i>", "siehe <i>Nr. 8</i>"),
    ):
        assert run(source, "html", translate, numerals=numerals) == written


def test_documents_send_words_and_keep_their_source() -> None:
    document = open_document("See <b>fig. 8</b> there.", "html", "en", len, 100)
    (segment,) = document.segments
    assert segment.text == "See Figure 8 there."
    assert segment.source == "See fig. 8 there."


@pytest.mark.parametrize("text", ["§ 8", "§§ 8-9", "§ 8a", "¶ 8", "№ 8", "§\u00a08"])
def test_signs_before_numbers_stay_with_them(text: str) -> None:
    document = open_document(f"as {text} says", "text", "en", len, 100)
    assert text in document.rebuild(["wie Boston sagt"])

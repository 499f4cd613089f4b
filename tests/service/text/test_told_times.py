"""Times in words are sent in digits; numbers of another kind stay words."""

from __future__ import annotations

import pytest

from service.text.numerals import Numerals
from service.text.spelled_out import spell_out, with_plain_times
from service.text.told_times import with_times_in_digits


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("at half past three", "at 3:30"),
        ("It is half past 3pm.", "It is 3:30pm."),
        ("Half-past 12 o'clock", "12:30"),
        ("a quarter to five.", "4:45."),
        ("at quarter past seven, then", "at 7:15, then"),
        ("at a quarter to one in the morning", "at 12:45 in the morning"),
        ("It is ten past six", "It is 6:10"),
        ("five minutes past two", "2:05"),
        ("at 5 minutes to 12!", "at 11:55!"),
        ("at half\u00a0past\u00a0three", "at 3:30"),
        ("It’s a quarter to five", "It’s 4:45"),
        ("at twenty-five to two tomorrow", "at 1:35 tomorrow"),
        ("until twenty to nine p.m.", "until 8:40 p.m."),
    ],
)
def test_times_are_sent_in_digits(text: str, sent: str) -> None:
    assert with_times_in_digits(text, "en") == sent


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("Chegou às três e meia.", "Chegou às 3:30."),
        ("às 3 e quinze, à uma e meia", "às 3:15, à 1:30"),
        ("São dez para as oito da noite", "São 7:50 da noite"),
        ("São três e meia. É uma e quinze!", "São 3:30. É 1:15!"),
        ("às oito e vinte e cinco", "às 8:25"),
        ("ao meio-dia e meia", "ao 12:30"),
        ("às quinze minutos para o meio-dia", "às 11:45"),
    ],
)
def test_portuguese_times_are_sent_in_digits(text: str, sent: str) -> None:
    assert with_times_in_digits(text, "pt-BR") == sent
    assert with_times_in_digits(text, "fr") == text


@pytest.mark.parametrize(
    "text",
    [
        "às vinte e três horas",
        "São três e cinco mil",
        "três e meia",
        "São duas e dez por cento",
        "A torre é duas e meia vezes maior.",
        "São três e meia xícaras de farinha.",
        "São dez para as duas equipes.",
        "São vinte para as três turmas.",
        "As idades deles são oito e dez anos.",
        "As respostas são quatro e cinco.",
        "Ela saiu às nove e quinze minutos depois voltou.",
        "Entregou os livros às duas e vinte alunas.",
        "Deu prêmios às três e cinco meninas.",
        "Às 2 e meia hora depois ele chegou.",
    ],
)
def test_other_portuguese_numbers_stay(text: str) -> None:
    assert with_times_in_digits(text, "pt") == text


@pytest.mark.parametrize(
    "text",
    [
        "The ratio is ten to one.",
        "from ten to six",
        "It takes about five to ten, on average.",
        "They won after five to four on penalties.",
        "From a quarter to three, the share grew.",
        "Turn around twenty to three, please.",
        "It's 3 to 2 in the ninth inning.",
        "It was 5 to 4, but we won.",
        "The court stood at 6 to 3.",
        "The odds were set at 10 to 1.",
        "It is ten to one, and nobody believes in us.",
        "Prices start at 5 to 10, depending on size.",
        "The share price fell by a quarter to 6.",
        "He gave a quarter to one, a half to the other.",
        "He ran 20 past 3 defenders.",
        "We passed ten past six defenders.",
        "at ten to six percent",
        "It is ten to twenty degrees.",
        "five to ten people",
        "We walked past three dogs.",
        "in the third quarter to five customers",
        "in the last quarter past ten o'clock",
        "a quarter to three months",
        "half past three hundred",
        "ten past 1,500, 5 past 13, 0 past 5",
        "half past three-quarters",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert with_times_in_digits(text, "en") == text


def test_halves_of_the_day_stand_behind_them() -> None:
    text = "at half past three p.m."
    assert spell_out(text, "en", "de") == "at 3:30 p.m."
    assert spell_out(text, "en", "pt") == "at 15:30."
    assert spell_out("halb vier", "de") == "halb vier"


def test_another_hour_is_a_difference() -> None:
    numerals = Numerals("en", "de")
    read_as = with_times_in_digits("at half past three", "en")
    assert numerals.agree(read_as, "um 3:30 Uhr")
    assert not numerals.agree(read_as, "um 4:30 Uhr")
    assert not numerals.agree(read_as, "um halb drei")


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("na 2ª-feira", "on Monday"),
        ("de 8 em 8 horas", "every 8 hours"),
        ("nos anos 90", "in the 1990s"),
        ("às três e meia", "at 3:30"),
    ],
)
def test_what_is_read_agrees(source: str, translation: str) -> None:
    assert Numerals("pt", "en").agree(with_plain_times(source, "pt"), translation)

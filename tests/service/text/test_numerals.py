"""Numbers come out of a translation as they went in, in the form of its language."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from service.text.document import Document, open_document
from service.text.number_words import NUMBER_WORDS
from service.text.numerals import Numerals, numbers_of, separators
from service.text.patterns import CONTROLS, COUNTS, PLACEHOLDER, SYNTAXES
from tests.service.text.engines import count_tokens, shout

EN_DE = Numerals("en", "de")


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("1,250 dogs", "1.250 Hunde"),
        ("1,250 dogs", "1250 Hunde"),
        ("1,250 dogs", "1\u202f250 Hunde"),
        ("3.5 km", "3,5 km"),
        ("1,250,000.75 of it", "1.250.000,75 davon"),
        ("at 3:30 pm", "um 15:30 Uhr"),
        ("at 3:30 p.m.", "um 15.30 Uhr"),
        ("at 5 p.m.", "um 17 Uhr"),
        ("twenty dogs", "20 Hunde"),
        ("two million", "2000000"),
        ("twenty-three dogs", "dreiundzwanzig Hunde"),
        ("23 dogs", "dreiundzwanzig Hunde"),
        ("twenty-three dogs", "23 Hunde"),
        ("a two-year-old dog", "ein zweijähriger Hund"),
        ("the two of them", "die beiden"),
        ("one of them, no one else", "einer von ihnen, niemand sonst"),
        ("the twenty-first of two thirds", "der einundzwanzigste von zwei Dritteln"),
        ("half past two", "halb drei"),
        ("at five pm", "um siebzehn Uhr"),
        ("nineteen eighty-four", "neunzehnhundertvierundachtzig"),
        ("two hundred and fifty thousand", "250.000"),
        ("two hundred inhabitants", "zweihundert Einwohner"),
        ("two million dogs", "2 Millionen Hunde"),
        ("we left thirty minutes ago", "wir gingen vor einer halben Stunde"),
        ("at seven-thirty", "um 7:30 Uhr"),
        ("at seven-thirty in the evening", "um 19.30 Uhr"),
        ("at seven thirty", "um halb acht"),
        ("$5", "5 Dollar"),
        ("$5", "5 $"),
        ("at 5 pm", "um 5 Uhr nachmittags"),
        ("at 12 am", "um 0 Uhr"),
        ("at 6:45 in the evening", "um 18:45 Uhr"),
        ("on 05 May", "am 5. Mai"),
        ("-5.5 °C", "−5,5 °C"),
        ("the years 1990-1995", "die Jahre 1990 bis 1995"),
    ],
)
def test_forms_of_the_same_number_agree(source: str, translation: str) -> None:
    assert EN_DE.agree(source, translation)


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("1,250 dogs", "120 Hunde"),
        ("$19.99", "191 Dollar"),
        ("1.5 GB", "15 GB"),
        ("12.5%", "125 %"),
        ("2.50 in the afternoon", "14.50 am Nachmittag"),
        ("5 dogs", "5 5 Hunde"),
        ("5 dogs and 5 cats", "5 Hunde und Katzen"),
        ("2 dogs", "Hunde"),
        ("a dog", "47 Hunde"),
        ("-5.5 °C", "5,5 °C"),
        ("at 3:30", "um 15:30"),
        ("at 3:30 pm", "um 3:30 Uhr"),
        ("at 12 am", "um 12 Uhr"),
        ("twenty-three dogs", "sechzig Hunde"),
        ("twenty-three dogs", "zwanzigunddrüßige Hunde"),
        ("five dogs", "sieben Hunde"),
        ("five dogs", "7 Hunde"),
        ("two million dogs", "2 Hunde"),
        ("fifteen dogs and fifteen cats", "15 Hunde und 50 Katzen"),
        ("forty-two of the seventeen", "zweiundvierzig von ihnen"),
        ("$5", "5"),
        ("$5 and 5 dollars", "5 und 5 Dollar"),
        ("€5", "$5"),
    ],
)
def test_other_numbers_do_not(source: str, translation: str) -> None:
    assert not EN_DE.agree(source, translation)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("It is 1,250.5 of it.", "1.250,5"),
        ("It is 3.5 km.", "3,5"),
        ("Python 3.5 is old.", "3.5"),
        ("See section 3.5 of it.", "3.5"),
        ("Come at 3.30 p.m. then.", "3.30"),
        ("About 7.9 of it.", "7,9"),
        ("It is 1.250.000 there.", "1.250.000"),
        ("It is -5.5 here.", "-5,5"),
    ],
)
def test_numbers_get_the_form_of_the_target_language(source: str, expected: str) -> None:
    (number,) = numbers_of(source)
    assert EN_DE.in_target_form(source, number.start, number.end) == expected
    same = Numerals("en", "de", keeps_form=True)
    assert same.in_target_form(source, number.start, number.end) == number.text


def test_separators_are_those_of_cldr() -> None:
    codes = ("en", "de", "de-AT", "de-CH", "fr", "pt", "pt-PT", "pt-BR", "es-MX", "xx")
    assert [separators(code) for code in codes] == [
        ".,", ",.", ",\u00a0", ".’", ",\u202f", ",.", ",\u00a0", ",.", ".,", ".,",
    ]  # fmt: skip


def translated(text: str, model: Callable[[str], str], format: str = "text") -> tuple[str, bool]:
    """A text through a model, and whether its numbers differ."""

    def translate(texts: Sequence[str]) -> list[str]:
        return [model(one) for one in texts]

    document: Document = open_document(
        text,
        format,  # type: ignore[arg-type]
        "en",
        count_tokens,
        100,
        numerals=EN_DE,
    )
    outputs = translate([segment.text for segment in document.segments])
    for repair in document.check(outputs):
        outputs[repair.segment] = repair.join(translate(repair.texts))
    finished = document.finish(outputs)
    return document.rebuild(outputs), any(one.numbers_differ for one in finished)


def bad_at_marks(text: str) -> str:
    """A model that copies plain numbers, and loses the marks within others."""
    return shout([re.sub(r"(?<=\d)[.,:](?=\d)", "", text)])[0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("we have 1,250 dogs.", "WE HAVE 1.250 DOGS."),
        ("it costs $19.99 today.", "IT COSTS $19,99 TODAY."),
        ("it has 1.5 GB of it.", "IT HAS 1,5 GB OF IT."),
        ("it rose by 12.5%.", "IT ROSE BY 12,5%."),
        ("it is -5.5 °C and 3.25 km away.", "IT IS -5,5 °C AND 3,25 km AWAY."),
        ("it is 5 or 1,250 or 2.5 of it.", "IT IS 5 OR 1.250 OR 2,5 OF IT."),
        ("come at 14:05 with {name}.", "COME AT 14:05 WITH {name}."),
    ],
)
def test_a_number_that_a_model_loses_comes_back(source: str, expected: str) -> None:
    assert translated(source, bad_at_marks) == (expected, False)


@pytest.mark.parametrize(
    ("source", "translation", "expected"),
    [
        ("we took $5 there", "wir nahmen 5 dort", "wir nahmen $5 dort"),
        ("we took 5 € there", "wir nahmen 5 dort", "wir nahmen 5 € dort"),
        ("we took US$ 1,250.50", "wir nahmen 1,250.50", "wir nahmen US$ 1.250,50"),
        ("$5 and £5", "5 und £5", "$5 und £5"),
        ("we took $5 there", "wir nahmen 5 Dollar dort", "wir nahmen 5 Dollar dort"),
        ("folder 5512 and 20000", "Ordner 5,512 und 20.000", "Ordner 5512 und 20000"),
        ("up by 12.5%", "um 125 %", "um 12,5 %"),
        ("from 9 am to 9 pm", "von 9 bis 9 Uhr", "von 9 bis 21 Uhr"),
        ("at 3:30 pm", "um 3.30 Uhr", "um 15:30 Uhr"),
        ("at 5 pm", "um 5 Uhr abends", "um 5 Uhr abends"),
        ("at 17:30", "um 17:30", "um 17:30"),
    ],
)
def test_what_is_clear_is_mended_at_once(source: str, translation: str, expected: str) -> None:
    assert EN_DE.converted(source, translation) == expected
    assert EN_DE.agree(source, expected)


@pytest.mark.parametrize("language", NUMBER_WORDS)
def test_numbers_in_words_are_read_as_they_are_written(language: str) -> None:
    words = NUMBER_WORDS[language]
    for value in (*range(2, 1200), 1999, 2001, 10_203, 250_000, 999_999, 2_000_017, 90_300_000):
        if (written := words.spell(value)) is not None:
            assert [one.value for one in words.find(f"we saw {written}, there")] == [value]
            assert value in words.mentioned(written)


@pytest.mark.parametrize(
    ("language", "text", "values"),
    [
        ("en", "a hundred dogs, hundreds of cats, millions", [100]),
        ("en", "two, three and four; ten often tend", [2, 3, 4, 10]),
        ("en", "two million, nine hundred", [2_000_000, 900]),
        ("de", "Achtung, achtzehn und hundertfünf", [18, 105]),
        ("de", "eine Million zweihunderttausend Leute", [1_200_000]),
        ("de", "Dreißig oder dreissig", [30, 30]),
        ("pt", "duzentas e cinquenta mil pessoas", [250_000]),
        ("pt", "um deles, dezasseis, dezesseis, uma vez", [16, 16]),
        ("pt", "3 mil milhões, 2 mil e quinhentos; mil", [1000]),
        ("de", "3 Tausend, hundert", [100]),
    ],
)
def test_numbers_in_words_are_found(language: str, text: str, values: list[int]) -> None:
    assert [one.value for one in NUMBER_WORDS[language].find(text)] == values


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("Custa 3 mil milhões de euros.", "It costs EUR 3 billion."),
        ("Cerca de 2 mil pessoas vieram.", "About 2,000 people came."),
        ("Cerca de 2 mil pessoas vieram.", "About 2 thousand people came."),
        ("custa 2,5 mil euros", "it costs 2,500 euros"),
        ("A reunião é às 17h30.", "The meeting is at 5:30 p.m."),
        ("A reunião é às 17h30.", "The meeting is at 17:30."),
        ("aberto das 9h30 às 18h", "open from 9:30 am to 6 pm"),
    ],
)
def test_portuguese_thousands_and_times_agree(source: str, translation: str) -> None:
    assert Numerals("pt", "en").agree(source, translation)


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("Cerca de 2 mil pessoas vieram.", "About 3,000 people came."),
        ("A reunião é às 17h30.", "The meeting is at 6:30 p.m."),
    ],
)
def test_other_thousands_and_times_do_not(source: str, translation: str) -> None:
    assert not Numerals("pt", "en").agree(source, translation)


def test_a_time_comes_back_as_the_target_writes_it() -> None:
    text = "às 17h30"
    assert Numerals("pt", "en").in_target_form(text, 3, 8) == "17:30"
    assert Numerals("pt", "pt-BR").in_target_form(text, 3, 8) == "17h30"


def bad_at_words(text: str) -> str:
    """A model that knows no number in words."""
    return shout([re.sub(r"twenty-three|seventeen|Seventeen", "sechzig", text)])[0]


def test_a_number_in_words_that_a_model_mistakes_comes_back() -> None:
    assert translated("we saw twenty-three dogs.", bad_at_words) == (
        "WE SAW dreiundzwanzig DOGS.",
        False,
    )
    assert translated("Seventeen dogs, <b>twenty-three</b> cats.", bad_at_words, "html") == (
        "Siebzehn DOGS, <b>dreiundzwanzig</b> CATS.",
        False,
    )
    assert translated("we saw one of them, and two.", bad_at_words)[1] is False


def test_amounts_that_never_reach_the_model_get_the_target_s_form() -> None:
    assert EN_DE.converted_amount("£1,250.50", "£1,250.50") == ("£1.250,50", "£1.250,50")
    assert EN_DE.converted_amount("{0:.2f}", "{0:.2f}") == ("{0:.2f}", "{0:.2f}")
    for written in ("&pound;1,250.50", "<b>£</b>1,250.50"):
        assert EN_DE.converted_amount("£1,250.50", written) == (
            "£1.250,50",
            written.replace("1,250.50", "1.250,50"),
        )
    assert EN_DE.converted_amount("12.5%", '<b a="12.5">12.5</b>%')[1] == '<b a="12.5">12,5</b>%'
    unclear = "<b>12.5</b> 12.5%"
    assert EN_DE.converted_amount("12.5%", unclear) == ("12.5%", unclear)
    assert EN_DE.converted_amount("4.5", "*4*.5", "as Linux ", " has") == ("4.5", "*4*.5")
    hostile = "<b>4</b>" + "*" * 5000 + ".5"
    assert EN_DE.converted_amount("4.5", hostile)[1] == hostile.replace(".", ",")
    assert Numerals("en", "de", keeps_form=True).converted_amount("£1.50", "£1.50")[0] == "£1.50"


def test_numbers_within_tags_come_back() -> None:
    source = "<p>we saw <b>12.50</b> big dogs.</p>"
    assert translated(source, bad_at_marks, "html") == (
        "<p>WE SAW <b>12,50</b> BIG DOGS.</p>",
        False,
    )


def test_a_number_that_no_try_brings_back_is_told() -> None:
    def deaf(text: str) -> str:
        return "".join(character for character in text.upper() if not character.isdigit())

    def no_names(text: str) -> str:
        return deaf(text).replace("BOSTON", "").replace("TOM", "")

    assert translated("we have 1,250 dogs.", no_names)[1]
    assert not translated("we have dogs.", no_names)[1]
    assert translated("we have dogs.", lambda text: f"{text} 47")[1]


def test_every_syntax_begins_with_a_sign_that_is_looked_for() -> None:
    samples = {
        "ERB, EJS, ASP, JSP": ("<%= x %>", "<% x %>"),
        "marked number": ("##0##", "§§0§§", "@@0@@", "⟦0⟧"),
        "Laravel": (":name",),
        "i18n-tasks": ("X__0",),
        "entity": ("&nbsp;",),
        "TYPO3": ("###NAME###",),
        "Vue": ("@:a.b",),
        "escaped quote": ('\\"',),
        "character escape": ("\\u0041",),
        "strftime": ("%Y",),
        "wiki": ("[[a]]",),
    }
    pattern = re.compile(PLACEHOLDER, re.VERBOSE)
    assert samples.keys() <= SYNTAXES.keys() | CONTROLS.keys() | COUNTS.keys()
    for names in samples.values():
        assert all(pattern.fullmatch(sample) for sample in names), names


@pytest.mark.parametrize(
    ("source", "translation", "mended"),
    [
        ("at 6:45", "um 18:45 Uhr", "um 6:45 Uhr"),
        ("at 6:45 a.m. or 5 pm", "um 18.45 oder 17 Uhr", "um 6:45 oder 17 Uhr"),
        ("at 6:45 in the evening", "um 18:45 Uhr", "um 18:45 Uhr"),
        ("at 6:45 pm", "um 18:45 Uhr", "um 18:45 Uhr"),
        ("at 6:45 and 18:45", "um 6:45 und 18:45 Uhr", "um 6:45 und 18:45 Uhr"),
        ("at 6:45", "um 18:457 und 8:18:45", "um 18:457 und 8:18:45"),
    ],
)
def test_times_stay_in_their_half_of_the_day(source: str, translation: str, mended: str) -> None:
    assert EN_DE.converted(source, translation) == mended

"""What the model sees of text with protected spans in it, and what comes back, case by case."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.text.document import Format, open_document
from service.text.glossary import NO_GLOSSARY, Glossary
from service.text.numerals import Numerals
from service.text.protected import strip_invented_markup
from tests.service.text.engines import count_tokens, run

PETS = Glossary({"dog": "Rüde", "cat": "Katze"})


def sent(text: str, format: Format = "text", glossary: Glossary = NO_GLOSSARY) -> list[str]:
    """The sentences that a model is given."""
    document = open_document(text, format, "en", count_tokens, 200, glossary)
    return [segment.text for segment in document.segments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we saw https://a.b/c?!.", "we saw Boston?!."),
        ("we saw (https://a.b/c).", "we saw (Boston)."),
        ("we saw [https://a.b/c] now", "we saw [Boston] now."),
        ("we saw [(https://a.b/c)]: it", "we saw [(Boston)]: it."),
        ("we saw https://a.b/c(d) then", "we saw Boston then."),
        ("we saw https://a.b/c[d], then", "we saw Boston, then."),
        ("we saw me@a.de, then", "we saw Boston, then."),
        ("we saw (me@a.de)...", "we saw (Boston)..."),
    ],
)
def test_an_address_ends_before_the_sentence_s_punctuation(text: str, expected: str) -> None:
    assert sent(text) == [expected]
    assert run(text) == text.replace("we", "WE").replace("saw", "SAW").replace(
        "then", "THEN"
    ).replace(" now", " NOW").replace(" it", " IT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we saw pre{x}post now", "we saw Boston now."),
        ("we saw pre_{x}_post now", "we saw Boston now."),
        ("we saw {x}{y} now", "we saw Boston now."),
        ("we saw x%d now", "we saw Boston now."),
        ("we saw %d%d now", "we saw Boston now."),
        ("we saw %d now", "we saw 20 now."),
        ("we saw {x}-{y} now", "we saw Boston-Tom now."),
        ("we saw a😀b now", "we saw a b now."),
        ("we saw 犬{x}犬 now", "we saw 犬Boston犬 now."),
        ("{x}s went", "Boston went."),
        ("we saw the {x}s", "we saw the Boston."),
    ],
)
def test_what_touches_goes_along(text: str, expected: str) -> None:
    assert sent(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we saw 10³ m of it", "we saw 20 m of it."),
        ("it has 5 m², 5 kg/m³ and 3·10⁻⁵ of it", "it has 5 Boston, 5 Tom and 20 of it."),
        ("CO₂ and x₁ rise to 1½ or 2 ½ cups", "Boston and Tom rise to 20 or 5 cups."),
        ("it is 20℃ now, Na⁺ too", "it is 20 now, Boston too."),
        ("the 5º and 10ª of it, n.º 3", "the Boston and Tom of it, Japan 3."),
        ("2² is it", "20 is it."),
        ("we saw 人² now", "we saw 人20 now."),
        ("ﬁne ＡＢＣ５ is Größe", "ﬁne ＡＢＣ５ is Größe."),
    ],
)
def test_what_normalisation_would_change_is_protected_with_its_word(
    text: str, expected: str
) -> None:
    assert sent(text) == [expected]
    assert run(text, translate=list) == text


@pytest.mark.parametrize("language", ["pt", "pt-BR", "es"])
def test_models_of_romance_languages_read_ordinals(language: str) -> None:
    document = open_document("a 3.ª casa, o 5º dia", "text", language, count_tokens, 100)
    assert document.segments[0].text == "a 3.ª casa, o 5º dia."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First name*: ______", "First name*:"),
        ("Signature: ..........", "Signature:"),
        ("On: __/__/____", "On:"),
        ("On __ /__ / ____ we, ____, agree", "On Boston we, Tom, agree."),
        ("Name______ is it", "Name is it."),
        ("===== a title =====", "a title."),
        ("*** a title ---", "a title."),
        ("a chapter . . . . . . 5", "a chapter 5."),
        ("a chapter.......... page 5", "a chapter page 5."),
        ("wait... or 1 - 2, 3 -- or 4 == 5", "wait... or 1 - 2, 3 -- or 4 Boston 5."),
        ("see __NAME__ and a_b now", "see Boston and Tom now."),
    ],
)
def test_lines_to_write_on_stay(text: str, expected: str) -> None:
    assert sent(text) == [expected]
    assert run(text, translate=list).split() == text.split()


@pytest.mark.parametrize(
    "piece",
    [
        "978-3-16-148410-0", "0-306-40615-X", "+49 30 1234-5678", "+1 (555) 010-9999",
        "2026-11-29", "1/2/2026", "10:30:15", "1234 5678 9012 3456", "192.168.1.20", "1.2.3",
        "123456789", "AB-2026-001-5", "12 34 56 78",
    ],
)  # fmt: skip
def test_numbers_that_count_nothing_are_one_stretch(piece: str) -> None:
    assert sent(f"we gave {piece} to them.") == ["we gave Boston to them."]
    assert run(f"{piece}, it is. we saw ({piece})") == f"{piece}, IT IS. WE SAW ({piece})"


@pytest.mark.parametrize(
    "piece", ["1,234.56", "1.234.567,89", "1,234,567", "10:30", "1914-1918", "1/2", "5 6", "-5.5"]
)
def test_numbers_that_count_are_left_to_the_model(piece: str) -> None:
    assert sent(f"we gave {piece} to them.") == [f"we gave {piece} to them."]
    assert strip_invented_markup("1/2/2026 e 978-3-16-1") == "1/2/2026 e 978-3-16-1"


@pytest.mark.parametrize("sign", ["→", "<=", "=>", "->", "<", "≠", "!=", "➜"])
def test_a_sign_between_spaces_keeps_its_place(sign: str) -> None:
    assert sent(f"we go {sign} they stay") == ["we go Boston they stay."]
    assert run(f"we go {sign} they stay") == f"WE GO {sign} THEY STAY"


def test_bars_part_labels() -> None:
    assert sent("Home | about us | <b>a</b> || b|c", "html") == ["Home.", "about us.", "a || b|c."]
    assert run("| Home | about us |") == "| Home | ABOUT US |"


def test_what_touches_is_bounded() -> None:
    """60 letters on both sides together; those before it first."""
    for before, after, left in ((0, 60, 0), (0, 61, 1), (58, 2, 0), (59, 2, 1), (61, 0, 0)):
        (text,) = sent(f"we saw {'a' * before}{{x}}{'b' * after} now")
        beyond = "a" * max(0, before - 60)
        assert text == f"we saw {beyond}Boston{'b' * left} now."


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("a <b>b</b> c", "a b c."),
        ("see n<sup>th</sup> now", "see Boston now."),
        ("see <b>x{a}</b> now", "see Boston now."),
        ("see {a}<b>x</b> now", "see Boston now."),
        ("see a{x}<b>c now</b> d", "see aBostonc now d."),
        ("see &amp;{x} now", "see &Boston now."),
        ("see x&nbsp;{x} now", "see x Boston now."),
        ("see {a<b>}</b> now", "see Boston now."),
    ],
)
def test_a_word_that_tags_part_is_one(html: str, expected: str) -> None:
    assert sent(html, "html") == [expected]
    source = run(html, "html", translate=list)
    assert source == html


@pytest.mark.parametrize(
    ("html", "expected", "whole"),
    [
        ("un<b>like</b>ly story", "unlikely story.", "<b>unlikely</b> story"),
        ("<b>un</b>likely story", "unlikely story.", "<b>unlikely</b> story"),
        ("see un<b>lik</b> now", "see unlik now.", "see <b>unlik</b> now"),
        (
            "see un<b>li</b><i>ke</i>ly now",
            "see unlikely now.",
            "see <b><i>unlikely</i></b> now",
        ),
    ],
)
def test_tags_within_a_word_are_put_around_it(html: str, expected: str, whole: str) -> None:
    assert sent(html, "html") == [expected]
    assert run(html, "html", translate=list) == whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog😀 eats", "A Rüde😀 EATS"),
        ("a 😀dog eats", "A 😀Rüde EATS"),
        ("the dog {x} cat eats", "THE Rüde {x} Katze EATS"),
        ("dog cat {x} dog cat", "Rüde Katze {x} Rüde Katze"),
        ("{dog} eats, cat too", "{dog} EATS, Katze TOO"),
        ("see dog.example.com cat", "SEE dog.example.com Katze"),
        ("see dog.example.com/cat, a dog", "SEE dog.example.com/cat, A Rüde"),
        ("dog{x} eats", "Rüde{x} EATS"),
        ("{x}dog eats", "{x}Rüde EATS"),
    ],
)
def test_terms_beside_what_is_protected(text: str, expected: str) -> None:
    assert run(text, glossary=PETS) == expected


@pytest.mark.parametrize(
    "text", ["hello 😀!", "see 😀, then", "see {x} 😀. then 😀 {x}😀!", "😀, see"]
)
def test_a_symbol_stays_before_the_punctuation_after_it(text: str) -> None:
    assert run(text).lower() == text


def test_a_symbol_stays_in_its_brackets() -> None:
    assert sent("it is done (✓) now [😀] here") == ["it is done now here."]
    assert run("we saw Rome (✓) now, (a ✓)") == "WE SAW Rome (✓) NOW, (A ✓)"


def test_final_marks_stay() -> None:
    assert run("we go!!!", translate=lambda texts: ["nós vamos!" for _ in texts]) == "nós vamos!!!"


def test_a_term_within_a_word_of_tags_is_still_put_in() -> None:
    assert run("un<b>like dog</b>ly", "html", glossary=PETS) == "UN<b>LIKE Rüde</b>LY"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words", "plain words"),
        ("we saw {x} now", "we saw now"),
        ("a {b {c}} d", "a d"),
        ("{a{b{c{d}}}} z", "z"),
        ("a_b c", "c"),
        ("e.g. this", "e.g. this"),
        ("see <b>x</b>", "see x"),
        ("me@a.de z", "z"),
        ("100% of it", "100% of it"),
        ("50%x is", "50 x is"),
    ],
)
def test_a_text_less_all_that_is_protected(text: str, expected: str) -> None:
    assert strip_invented_markup(text) == expected


AMOUNTS = {
    "sign before": ("<i>$</i><b>34.50</b>", "<i>$</i><b>34,50</b>"),
    "sign behind": ("<b>34.50</b>&nbsp;<i>€</i>", "<b>34,50</b>&nbsp;<i>€</i>"),
    "percent": ("<b>34.5</b><small>%</small>", "<b>34,5</b><small>%</small>"),
    "parts": ("<b>34</b>.<i>50</i>", "<b>34</b>,<i>50</i>"),
    "group": ("<b>3</b>,450", "<b>3</b>.450"),
    "time": ("<b>14</b>:<b>30</b>", "<b>14</b>:<b>30</b>"),
    "both marks": ("<b>3</b>,<i>450</i>.<u>25</u>", "<b>3</b>.<i>450</i>,<u>25</u>"),
    "tagged mark": ("34<i>.</i>50", "34<i>,</i>50"),
    "digits": ("3<b>4.5</b>0", "3<b>4,5</b>0"),
    "in an attribute": ('<i>$</i><b a="34.50">34.50</b>', '<i>$</i><b a="34.50">34,50</b>'),
    "raised cents": ("<i>€</i>34<sup>.50</sup>", "<i>€</i>34<sup>,50</sup>"),
    "raised cents alone": ("$<b>34</b>.<sup>50</sup>", "$<b>34</b>,<sup>50</sup>"),
    "version": ("Linux <b>4</b>.<b>5</b>", "Linux <b>4</b>.<b>5</b>"),
}


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize(
    ("before", "after"), [("", " is it."), ("it is ", " now."), ("it is ", "")]
)
def test_amounts_with_tags_inside_are_one(name: str, before: str, after: str) -> None:
    source, written = AMOUNTS[name]
    output = run(f"{before}{source}{after}", "html", numerals=Numerals("en", "de"))
    assert output == f"{before.upper()}{written}{after.upper()}"


def test_raised_numbers_are_no_part_of_an_amount() -> None:
    numerals = Numerals("en", "de")
    for number in ("34<sup>5</sup>", "34.<sup>5</sup>", "in 1934.<sup>50</sup>"):
        output = run(f"it is {number} now", "html", numerals=numerals)
        assert output == f"it is {number} now".upper().replace("SUP>", "sup>")


@pytest.mark.parametrize(
    ("format", "source", "expected"),
    [
        (
            "html",
            "it is <del>cold</del><ins>hot</ins> now",
            "IT IS <del>COLD</del><ins>HOT</ins> NOW",
        ),
        ("html", "it is <s>cold</s><b>hot</b>", "IT IS <s>COLD</s><b>HOT</b>"),
        ("html", "it is <del>cold</del> <ins>hot</ins>", "IT IS <del>COLD</del> <ins>HOT</ins>"),
        ("markdown", "it is ~~cold~~**hot** now", "IT IS ~~COLD~~**HOT** NOW"),
    ],
)
def test_what_is_struck_out_is_a_word_of_its_own(
    format: Format, source: str, expected: str
) -> None:
    assert run(source, format) == expected


def test_parts_keep_the_marks_before_them() -> None:
    """Where a model loses what stands for placeholders, and marks that begin a text."""
    names = {"BOSTON", "TOM", "JAPAN", "LONDON", "WASHINGTON", "ENGLAND", "20"}

    def lose(texts: Sequence[str]) -> list[str]:
        words = [text.lstrip(",; ").upper().split() for text in texts]
        return [" ".join(one for one in row if one.strip(".,") not in names) for row in words]

    assert (
        run("hello {name}, you have {n} new messages; %s too.", translate=lose)
        == "HELLO {name}, YOU HAVE {n} NEW MESSAGES; %s TOO."
    )

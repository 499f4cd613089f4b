"""Plain text through a model: what stays, what is protected, what is enforced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lxml.html
import pytest
from markdown_it import MarkdownIt

from service.text.document import Format, open_document
from service.text.glossary import Glossary, GlossaryError
from service.text.placeholders import PlaceholderWords, choose_placeholder_words
from tests.service.text.engines import count_tokens, run, shout, source_of


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n \t", "😀", "😀 👩‍👩‍👧!", "42 %", "{name}", "https://a.b/c"]
)
def test_what_has_no_sentence_comes_back_unasked(text: str) -> None:
    document = open_document(text, "text", "en", count_tokens, 100)
    assert document.segments == []
    assert document.rebuild([]) == text


def test_layout_comes_back_exactly() -> None:
    text = "  - one dog\n\t* two cats  \r\n\r\n3. a mouse\n(b) [x] a bird\n\n   "
    assert run(text) == "  - ONE DOG\n\t* TWO CATS  \r\n\r\n3. A MOUSE\n(b) [x] A BIRD\n\n   "


def test_wrapped_lines_are_one_sentence() -> None:
    text = "we saw\na dog. it\r\nslept. \n\n- a cat\n  too\n"
    document = open_document(text, "text", "en", count_tokens, 100, wrapped=True)
    assert [segment.text for segment in document.segments] == [
        "we saw a dog.",
        "it slept.",
        "a cat too.",
    ]
    assert document.rebuild(["1.", "2.", "3."]) == "1. 2. \n\n- 3\n"


def test_tabs_part_cells() -> None:
    text = "Name\tthe age \t\t we go. they stay\n\tan indent\t\nsee {a,\tb}\tx"
    document = open_document(text, "text", "en", count_tokens, 100, split=False)
    assert [segment.text for segment in document.segments] == [
        "Name.", "the age.", "we go. they stay.", "an indent.", "see Boston.", "x.",
    ]  # fmt: skip
    assert run(text) == ("Name\tTHE AGE \t\t WE GO. THEY STAY\n\tAN INDENT\t\nSEE {a,\tb}\tX")
    assert run("<p>we go\n\tand stay</p>", "html") == "<p>WE GO AND STAY</p>"


def test_lines_of_cells_are_not_wrapped() -> None:
    text = "we go\t\n\tand they\nname\tage\nTom\t5\n\tit is\nhere \n"
    document = open_document(text, "text", "en", count_tokens, 100, wrapped=True)
    assert [segment.text for segment in document.segments] == [
        "we go and they.", "name.", "age.", "Tom.", "it is here.",
    ]  # fmt: skip
    assert document.rebuild(["1", "2", "3", "4", "5"]) == "1\n2\t3\n4\t5\n\t5 \n"


def test_sentences_can_stay_together() -> None:
    document = open_document("We go. They stay.", "text", "en", count_tokens, 100, split=False)
    assert [segment.text for segment in document.segments] == ["We go. They stay."]


def test_list_marks_and_heads_are_not_sent() -> None:
    document = open_document("1. we eat\n• they sleep", "text", "en", count_tokens, 100)
    assert [segment.text for segment in document.segments] == ["we eat.", "they sleep."]


@pytest.mark.parametrize(
    "piece",
    [
        "{name}", "{0}", "{user.first_name}", "{a, plural, one {# dog} other {# dogs}}", "{{ x }}",
        "{% if x %}", "${y}", "%{z}", "%s", "%d", "%1$s", "%-5.2f", "%(user)s", "%@", "%%", "$HOME",
        '<x id="1"/>', "https://a.b/c?d=1&e=(f)#g", "www.example.com/x", "example.org",
        "first.last+tag@mail.example.org", "/usr/local/bin", "snake_case_name", "call()",
        "notes.pdf", "[[name]]", "__NAME__", "@someone", "#topic",
    ],
)  # fmt: skip
def test_what_is_protected_comes_back(piece: str) -> None:
    assert run(f"we gave {piece} to them, and left.") == f"WE GAVE {piece} TO THEM, AND LEFT."
    assert run(f"{piece} was there") == f"{piece} WAS THERE"
    assert run(f"it is at {piece}. we saw it.") == f"IT IS AT {piece}. WE SAW IT."


def test_what_touches_a_placeholder_goes_with_it() -> None:
    assert run("it is {width}px wide, pre{x}post") == "IT IS {width}px WIDE, pre{x}post"
    assert run("we saw {name}'s dog") == "WE SAW {name}'s DOG"


def test_a_percentage_is_no_placeholder() -> None:
    assert run("we ate 50% of it, 100% sure") == "WE ATE 50% OF IT, 100% SURE"


def test_a_symbol_keeps_its_place_and_spaces() -> None:
    assert run("we like Rome 😀 very much") == "WE LIKE Rome 😀 VERY MUCH"
    assert run("so, Acme™ made it") == "SO, Acme™ MADE IT"


def test_numbers_stand_for_what_counts() -> None:
    document = open_document("you have %d new and {name} old ones", "text", "en", count_tokens, 100)
    assert document.segments[0].text == "you have 20 new and Boston old ones."


def test_a_stand_in_is_none_of_the_sentence() -> None:
    document = open_document("we flew {when} to Boston with Tom", "text", "en", count_tokens, 100)
    assert document.segments[0].text == "we flew Japan to Boston with Tom."


def test_what_a_model_drops_is_tried_with_other_words() -> None:
    def no_boston(texts: Sequence[str]) -> list[str]:
        return [text.upper().replace("TOM", "Tom").replace("BOSTON", "") for text in texts]

    assert run("we gave {name} a book", translate=no_boston) == "WE GAVE {name} A BOOK"


def test_a_model_that_copies_nothing_translates_around() -> None:
    def deaf(texts: Sequence[str]) -> list[str]:
        return [" ".join(w.upper() for w in t.split() if w not in STAND_INS) for t in texts]

    assert run("we gave {name} to them, %s.", translate=deaf) == "WE GAVE {name} TO THEM, %s."


STAND_INS = {"Boston", "Boston.", "Boston,", "Tom", "Tom.", "Japan", "Japan."}


def test_more_placeholders_than_placeholder_words_split_the_sentence() -> None:
    text = " ".join(f"we {{x{index}}}" for index in range(30)) + " end"
    assert run(text) == text.replace("we", "WE").replace("end", "END")


def test_without_placeholder_words_sentences_are_split() -> None:
    document = open_document(
        "we gave {name} a book",
        "text",
        "en",
        count_tokens,
        100,
        placeholder_words=PlaceholderWords(()),
    )
    assert [segment.text for segment in document.segments] == ["we gave.", "a book."]
    assert document.rebuild(["WE GAVE.", "A BOOK."]) == "WE GAVE {name} A BOOK"


def test_placeholder_words_are_what_a_model_copies() -> None:
    def only_london(texts: list[str]) -> list[str]:
        return [t if "London" in t or "30" in t.split() else "x" for t in texts]

    assert choose_placeholder_words(only_london) == PlaceholderWords(("London",), ("30",))


def test_a_full_stop_is_lent_and_taken_back() -> None:
    document = open_document("my brother\nAre you here?", "text", "en", count_tokens, 100)
    assert [segment.text for segment in document.segments] == ["my brother.", "Are you here?"]
    assert document.rebuild(["mein Bruder.", "Bist du hier?"]) == "mein Bruder\nBist du hier?"


def test_a_model_that_knows_headings_gets_no_full_stop() -> None:
    text = "<p>my <b>brother</b></p><p>etc.</p>"
    document = open_document(text, "html", "en", count_tokens, 100, adds_stop=False)
    assert [segment.text for segment in document.segments] == ["my brother", "etc."]
    translated = ["mein Herr Bruder", "etc."]
    (repair,) = document.check(translated)
    assert repair.texts == ("brother",)
    translated[0] = repair.join(["Bruder."])
    assert document.rebuild(translated) == "<p>mein Herr <b>Bruder</b></p><p>etc.</p>"
    assert document.rebuild(["Herr.", "etc."]) == "<p><b>Herr.</b></p><p>etc.</p>"


def test_long_sentences_lose_nothing() -> None:
    text = "the dog, who is {age} years old, sleeps; " * 40 + "end."
    assert run(text, max_tokens=12) == text.upper().replace("{AGE}", "{age}")


def test_pairs_are_as_a_reader_sees_them() -> None:
    document = open_document("We saw {name}. It is.", "text", "en", count_tokens, 100)
    assert document.pairs(["Wir Boston.", "Es."]) == [
        ("We saw {name}.", "Wir {name}."),
        ("It is.", "Es."),
    ]
    with pytest.raises(ValueError, match="1 translations for 2 segments"):
        document.rebuild(["Wir."])


@pytest.mark.parametrize(
    "text",
    [
        "שלום {name}, מה שלומך?",
        "مرحبا https://a.b/c بالعالم",
        "犬は{name}が好きです。猫は好き。",
        "หมา {x} แมว",
    ],
)
def test_other_scripts_are_kept(text: str) -> None:
    assert source_of(text, "text") == text
    assert run(text) == text


def test_terms_are_enforced_whatever_the_model_says() -> None:
    glossary = Glossary({"dog": "Rüde", "fire dog": "Kaminbock", "API": "Schnittstelle"})
    assert run("the dog eats", glossary=glossary) == "THE Rüde EATS"
    assert run("Dog and DOG eat", glossary=glossary) == "Rüde AND RÜDE EAT"
    assert (
        run("the fire  dog eats an API", glossary=glossary) == "THE Kaminbock EATS AN Schnittstelle"
    )
    assert run("dogs and an api eat", glossary=glossary) == "DOGS AND AN API EAT"
    assert run("see dog.example.com", glossary=glossary) == "SEE dog.example.com"


def test_a_term_that_the_model_already_has_needs_no_repair() -> None:
    document = open_document(
        "the dog eats", "text", "en", count_tokens, 100, Glossary({"dog": "Hund"})
    )
    assert document.check(["der Hund frisst."]) == []
    assert document.check(["der Köter frisst."]) != []
    assert document.rebuild(["der Hund frisst."]) == "der Hund frisst"


MARKUP = (
    "<i>x</i>", "*x*", "**x** y", "_x_ ~~y~~", "[x](y)", "![x](y)", "`x`", "&amp;", "&#60; x",
    "x<!-- y -->", "x\\", "\\*x*", "# x", "- x", "1. x", "> x", "<https://x.example>", "===",
    "x | y",
)  # fmt: skip
RENDERERS: dict[Format, Callable[[str], str]] = {
    "html": lambda out: out,
    "markdown": MarkdownIt("commonmark").enable(["strikethrough", "table"]).render,
}


@pytest.mark.parametrize("value", MARKUP)
@pytest.mark.parametrize(
    "source", ["we eat a dog today", "dog and cat eat", "<b>we</b> eat a very old dog", "a dog"]
)
def test_terms_are_text_in_every_format(value: str, source: str) -> None:
    glossary = Glossary({"dog": value})
    assert value in run(source, glossary=glossary)
    for format, render in RENDERERS.items():
        before, after = (
            lxml.html.fragment_fromstring(render(text), create_parent=True)
            for text in (run(source, format), run(source, format, glossary=glossary))
        )
        assert [one.tag for one in after.iter()] == [one.tag for one in before.iter()], format
        assert value in after.text_content(), format


def test_a_term_is_text_in_a_cell_of_a_table() -> None:
    table = "| we see a dog | b |\n| --- | --- |\n| c | d |\n"
    out = run(table, "markdown", glossary=Glossary({"dog": "x | *y*"}))
    assert out.startswith("| WE SEE A x \\| \\*y\\* | B |\n")


def test_pairs_show_terms_as_they_are() -> None:
    document = open_document(
        "a dog eats", "html", "en", count_tokens, 100, Glossary({"dog": "<i>x</i>"})
    )
    for translation in ("a Boston eats", "dropped"):
        [(source, shown)] = document.pairs([translation])
        assert source == "a dog eats"
        assert "<i>x</i>" in shown


def test_a_term_that_only_begins_a_line_of_markdown_is_text() -> None:
    for value, written in (("#", "\\#"), ("+", "\\+"), ("-", "\\-"), ("1.", "1\\.")):
        out = run("dog eats it", "markdown", glossary=Glossary({"dog": value}))
        assert out == f"{written} EATS IT"


def test_terms_through_english_stay_as_they_are() -> None:
    value = "<i>x</i> & *y*"
    once = run("we see a dog", "html", glossary=Glossary({"dog": value}))
    assert run(once, "html", glossary=Glossary({value: value})) == once


def test_a_faulty_glossary_is_refused() -> None:
    for terms in ({"": "x"}, {"x": " "}, {"x" * 201: "y"}):
        with pytest.raises(GlossaryError):
            Glossary(terms)
    with pytest.raises(GlossaryError, match="at most"):
        Glossary({f"t{index}": "x" for index in range(1001)})


def test_a_sentence_that_comes_back_empty_stays() -> None:
    assert run("we go. they stay.", translate=lambda texts: ["" for _ in texts]) == (
        "we go. they stay."
    )


def test_the_fake_model_is_a_model() -> None:
    assert shout(["Tom sees a dog."]) == ["Tom SEES A DOG."]

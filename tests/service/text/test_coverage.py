"""What a model whose vocabulary has gaps is given, and what comes back."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from service.text.coverage import Coverage
from service.text.document import Document, Format, open_document
from service.text.glossary import NO_GLOSSARY, Glossary
from service.text.inline import InlineText
from service.text.placeholders import EN_DE, PlaceholderWords, choose_placeholder_words
from tests.service.small_vocabulary import SmallVocabularyEngine
from tests.service.text.engines import Translate, hostile, shout

ENGINE = SmallVocabularyEngine()
COVERAGE = Coverage.of(ENGINE)


def opened(
    text: str,
    format: Format = "text",
    glossary: Glossary = NO_GLOSSARY,
    words: PlaceholderWords = EN_DE,
) -> Document:
    return open_document(
        text, format, "en", ENGINE.count_tokens, 200, glossary, words, coverage=COVERAGE
    )


def sent(text: str, format: Format = "text", glossary: Glossary = NO_GLOSSARY) -> list[str]:
    """The sentences that the model is given, each of which it can read."""
    sentences = [segment.text for segment in opened(text, format, glossary).segments]
    assert [ENGINE.unknown_spans(sentence) for sentence in sentences] == [[]] * len(sentences)
    return sentences


def run(text: str, format: Format = "text", translate: Translate = shout) -> str:
    """A text through a model, repaired where need be; the model can read all that it is given."""
    document = opened(text, format)
    assert not any(segment.is_unread for segment in document.segments)
    translated = translate([segment.text for segment in document.segments])
    for repair in document.check(translated):
        assert not any(map(ENGINE.unknown_spans, repair.texts))
        translated[repair.segment] = repair.join(translate(repair.texts))
    return document.rebuild(translated)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it costs about €3 now", "it costs about 20 now."),
        ("it costs €1,234.56.", "it costs 20."),
        ("it costs 3,50 € or € 5 now", "it costs 20 or 5 now."),
        ("it costs 3 €/day and -£5", "it costs Boston and -20."),
        ("a €3 million house", "a 20 million house."),
        ("we saw Müller's house", "we saw Boston's house."),
        ("we saw Jürgen Müller’s house", "we saw Boston's house."),
        ("we saw Jürgen Boston, Tom", "we saw Boston, Tom."),
        ("we saw Jürgen Boston's house", "we saw Tom Boston's house."),
        ("we saw Jürgen Boston and Köln Street", "we saw Boston and Tom Street."),
        ("Jürgen I see, maïs Boston", "Tom I see, Japan Boston."),
        ("in Müller-Lüdenscheidt, and Köln.", "in Boston, and Tom."),
        ("we (Müller) saw “Köln”!", 'we (Boston) saw "Tom"!'),
        ("the maïs friend", "the Boston friend."),
        ("中国 means here", "Boston means here."),
        ("it means 中国人, here", "it means Boston, here."),
        ("he wrote Привет как дела to me", "he wrote Boston to me."),
        ("Nguyễn has it", "Boston has it."),
        ("see #tag, @user, C# and foo^bar", "see Boston, Tom, Japan and London."),
        ("use x\\y or 5×3 or ½ now", "use Boston or 20 or 5 now."),
        ("hello 😀 friend", "hello friend."),
        ("• first item • second item", "first item second item."),
        ("¿we? see `this`", "see this."),
        ("if a < 5 then b", "if a Boston 5 then b."),
        ("it is done (•) now", "it is done now."),
        ("see <3 €", "see 20."),
        ("x\u0302 is here", "Boston is here."),
        ("ไทยก็ is here", "Boston is here."),
        ("wait… ＡＢＣ is ﬁne", "wait… ＡＢＣ is ﬁne."),  # its normalisation reads them
        ("a house\u00a0of\u2009a street", "a house of a street."),
        ("house\u00adwife", "housewife."),
    ],
)
def test_unknown_text_is_protected_as_a_whole(text: str, expected: str) -> None:
    assert sent(text)[-1] == expected
    copied = run(text, translate=list)
    assert copied.split() == text.replace("\u00ad", "").split()


@pytest.mark.parametrize(
    "text", ["€3", "Müller", "Müller.", "中国", "Привет, как дела?", "😀", "• – €", "Größe: 5 €"]
)
def test_text_of_which_nothing_is_readable_is_kept(text: str) -> None:
    assert sent(text) == []
    assert run(text) == text


@pytest.mark.parametrize(
    ("text", "format", "expected"),
    [
        (
            "<p>M&uuml;ller said &ldquo;hello&rdquo; to <b>J<i>ü</i>rgen</b> for &euro;3.</p>",
            "html",
            "<p>M&uuml;ller SAID “HELLO” TO <b>J<i>ü</i>rgen</b> FOR &euro;3.</p>",
        ),
        ("<p>it costs <b>€3</b> &lt; 5</p>", "html", "<p>IT COSTS <b>€3</b> &lt; 5</p>"),
        ("<i>Müller and</i> we <a href='#ü'>saw</a>", "html",
         "<i>Müller AND</i> WE <a href='#ü'>SAW</a>"),
        ("# for *Müller*\n\n- it costs **€3** – now\n", "markdown",
         "# FOR *Müller*\n\n- IT COSTS **€3** – NOW\n"),
        ("| Müller | the house |\n| --- | --- |\n| € | `ü` |\n", "markdown",
         "| Müller | THE HOUSE |\n| --- | --- |\n| € | `ü` |\n"),
        ("we saw 中国\r\n\r\n  - and “Köln” then", "text",
         "WE SAW 中国\r\n\r\n  - AND “Köln” THEN"),
        ("hello 😀! we saw {x} 😀, then", "text", "HELLO 😀! WE SAW {x} 😀, THEN"),
    ],
)  # fmt: skip
def test_markup_stays_around_it(text: str, format: Format, expected: str) -> None:
    assert run(text, format) == expected


@pytest.mark.parametrize(
    ("text", "expected", "translated"),
    [
        ("Écoles are here", "écoles are here.", "ÉCOLES ARE HERE"),
        ("“École” and École", '"école" and Boston', "“ÉCOLE” AND École"),
        ("École! É", "é.", "ÉCOLE! É"),
        ("• École", "école.", "• ÉCOLE"),
        ("the CAFÉ École is here", "the café Boston is here.", "THE CAFÉ École IS HERE"),
        ("CAFÉ €3", "café 20", "CAFÉ €3"),
        ("THE CAFÉ", "the café.", "THE CAFÉ"),
        ("ÉÜ is here", "Boston is here.", "ÉÜ IS HERE"),
    ],
)
def test_a_capital_that_is_lacking_is_sent_as_a_small_letter(
    text: str, expected: str, translated: str
) -> None:
    """The vocabulary has é, but not É."""
    assert sent(text)[-1].rstrip(".") == expected.rstrip(".")
    assert run(text) == translated


def test_capitals_come_back() -> None:
    assert run("École of the house.", translate=lambda _: ["school of it."]) == "School of it."
    assert run("“École.”", translate=lambda _: ['"school."']) == "“School.”"
    assert run("CAFÉ HERE", translate=lambda _: ["coffee here."]) == "COFFEE HERE"
    assert run("the CAFÉ", translate=lambda _: ["coffee here."]) == "coffee here"


def test_a_first_word_too_long_for_the_model_stays_protected() -> None:
    text = f"É{'xq' * 30} is here"
    document = open_document(text, "text", "en", ENGINE.count_tokens, 20, coverage=COVERAGE)
    assert [segment.text for segment in document.segments] == ["Boston is here."]


def test_a_number_in_tags_is_sent_as_one() -> None:
    assert sent("<p>it costs <b>€3</b> now</p>", "html") == ["it costs 20 now."]


def test_a_term_that_is_unreadable_is_not_tried() -> None:
    glossary = Glossary({"café müller": "Kaffee", "house": "Haus"})
    assert sent("the café müller and a house", glossary=glossary) == ["the Boston and a house."]


def test_a_model_that_drops_and_invents_loses_nothing() -> None:
    kinds = ["€3", "Müller", "中国", "#tag", "x^2", "Привет"]
    generator = random.Random(3)
    for seed in range(300):
        words = [*generator.sample(kinds, 3), "we", "saw", "“the", "house”", "–", "here"]
        generator.shuffle(words)
        text = " ".join(words)
        translation = run(text, translate=hostile(seed))
        assert all(kind in translation for kind in kinds if kind in text), (text, translation)


def test_without_placeholder_words_the_sentence_is_split() -> None:
    document = opened("we saw Müller then", words=PlaceholderWords(()))
    assert [segment.text for segment in document.segments] == ["we saw.", "then."]
    assert document.rebuild(["WE SAW.", "THEN."]) == "WE SAW Müller THEN"


def test_what_the_model_could_not_be_given_is_told() -> None:
    document = opened("we saw {x} here", words=PlaceholderWords(("Zürich",)))
    assert [segment.is_unread for segment in document.segments] == [True]


def test_placeholder_words_are_in_the_vocabulary() -> None:
    class NoLatin:
        reads_all_text = False
        count_tokens = staticmethod(len)

        def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
            return [(at, at + 1) for at, c in enumerate(sentence) if c.isascii() and c.isalpha()]

    tried: list[str] = []

    def copy(texts: list[str]) -> Sequence[str]:
        tried.extend(texts)
        return texts

    words = choose_placeholder_words(copy, Coverage.of(NoLatin()))
    assert words.words
    assert all(map(str.isdigit, words.words))
    assert not set(words.words) & set(words.numbers)
    assert not any(map(str.isalpha, "".join(tried)))
    for coverage, counts in ((COVERAGE, (12, 5)), (None, (6, 3))):
        words = choose_placeholder_words(copy, coverage)
        assert (len(words.words), len(words.numbers)) == counts


def test_a_full_stop_that_is_unreadable_is_not_added() -> None:
    class NoStop:
        reads_all_text = False
        count_tokens = staticmethod(len)

        def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
            return [(at, at + 1) for at, c in enumerate(sentence) if c == "."]

    coverage = Coverage.of(NoStop())
    document = open_document("my brother", "text", "en", len, 100, coverage=coverage)
    assert [segment.text for segment in document.segments] == ["my brother"]


def test_an_engine_with_byte_fallback_has_no_gaps() -> None:
    class Complete:
        reads_all_text = True
        count_tokens = staticmethod(len)

        def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
            raise AssertionError("asked in vain")

    coverage = Coverage.of(Complete())
    assert coverage is not None
    assert coverage.reads("中 € Ü")
    assert coverage.protect(InlineText("中 € Ü")).elements == ()


def test_what_a_vocabulary_spells_in_bytes_is_sent_in_plain_characters() -> None:
    """A model has hardly seen such characters, though it can read them."""

    class Spelling:
        reads_all_text = True

        def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
            raise AssertionError("asked in vain")

        def count_tokens(self, sentence: str) -> int:
            return sum(1 if c in "“”…ß" else len(c.encode()) for c in sentence)

    coverage = Coverage.of(Spelling())
    assert coverage is not None
    assert coverage.simplify("ß “Wi‑Fi”…") == 'ß "Wi-Fi"…'
    assert coverage.restore("“Wi‑Fi”", "“Wi-Fi”") == "“Wi‑Fi”"
    assert coverage.simplify("PLEASE DO NOT") == "Please do not"
    assert coverage.restore("PLEASE DO NOT", "Bitte nicht") == "BITTE NICHT"

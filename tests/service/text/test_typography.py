"""Plain characters for typographic ones, and back."""

from __future__ import annotations

import string

import pytest

from service.text.coverage import Coverage
from service.text.document import Format, open_document
from service.text.final_marks import with_ellipses
from service.text.typography import NOTHING_REPLACED, Typography, with_final_marks
from tests.service.text.test_kept import ROTATED, rotating

ASCII = Typography.readable_by(str.isascii)


@pytest.mark.parametrize(
    ("text", "simplified"),
    [
        ("plain 'words' - all", "plain 'words' - all"),
        ("“a”, „b‟ and «c», « d »", '"a", "b" and "c", "d"'),
        ("‘a’ isn’t ‹b›", "'a' isn't 'b'"),
        ("1914–1918, Donau‑Main, −5", "1914-1918, Donau-Main, -5"),
        ("a—b, c — d", "a - b, c  -  d"),  # the sentence loses double spaces afterwards
        ("wait…", "wait..."),
        ("house\u00adwife\u200b", "housewife"),
        ("ﬁne eﬀort ＡＢＣ！", "fine effort ABC!"),
        ("é ü ½ € 中", "é ü ½ € 中"),
    ],
)
def test_plain_characters_are_sent(text: str, simplified: str) -> None:
    assert ASCII.simplify(text) == simplified


@pytest.mark.parametrize(
    ("source", "translation", "restored"),
    [
        ("“a” and “b”", '"A" "B"', "“A” “B”"),
        ("„a“ and \"b\"", '"A" "B"', "„A“ \"B\""),
        ("« a » is «b»", '"A" "B"', "« A » «B»"),
        ("“a”", "A", "A"),
        ("“a”", '"A" "B"', '"A" "B"'),
        ("“a”", "„A“", "„A“"),
        ('"a"', '"A"', '"A"'),
        ("‘a’ b", "'A' B", "‘A’ B"),
        ("‘a’ b", "A B'", "A B'"),
        ("it isn’t a’s", "c'est l'A", "c’est l’A"),
        ("it isn’t a's", "c'est l'A", "c'est l'A"),
        ("a – b — c - d", "A - B - C - D", "A – B — C - D"),
        ("a—b", "A - B", "A—B"),
        ("a — b — c", "A - B – C", "A – B – C"),
        ("a - b — c", "A - B – C", "A - B – C"),
        ("a—b", "A, B", "A, B"),
        ("— a", "- A", "— A"),
        ("1914–1918 x-y", "X-Y 1914-1918", "X-Y 1914–1918"),
        ("Donau–Main", "Danube-Main", "Danube–Main"),
        ("Donau–Main", "a Danube-Main-link", "a Danube-Main-link"),
        ("−5 or -6", "-5 o -6", "−5 o -6"),
        ("a… b...", "A... B...", "A… B..."),
        ("Donau–Main", "le-Donau-Main", "le-Donau–Main"),
        ("Mon.–Fri., 5–7", "Visite-nos Mon.-Fri., 5-7", "Visite-nos Mon.–Fri., 5–7"),
        ("a–b", "a-b a-b c-d", "a-b a-b c-d"),
        ("“1914–1918” isn’t… so", '"1914-1918" n\'est... pas', "“1914–1918” n’est… pas"),
    ],
)  # fmt: skip
def test_they_are_put_back_where_it_is_clear(source: str, translation: str, restored: str) -> None:
    assert ASCII.restore(source, translation) == restored


@pytest.mark.parametrize(
    ("source", "translation", "restored"),
    [
        ("Hello!!!", "Olá!", "Olá!!!"),
        ("“What???”", '"O quê??"', '"O quê???"'),
        ("Really?!", "Realmente?", "Realmente?!"),
        ("Hello!", "Olá!!", "Olá!!"),
        ("Hello!!!", "Olá", "Olá"),
        ("Hello!!", "Olá?", "Olá?"),
        ("Hello!!! You", "Olá! Tu!", "Olá! Tu!"),
        ("", "a!", "a!"),
    ],
)
def test_final_marks_are_as_many(source: str, translation: str, restored: str) -> None:
    assert with_final_marks(source, translation) == restored


@pytest.mark.parametrize(
    ("source", "translation", "restored"),
    [
        ("wait… «a» b", 'Aguarde... "A" B', 'Aguarde… "A" B'),
        ("wait… a...", "A... B...", "A… B..."),
        ("wait…", "Aguarde.", "Aguarde."),
        ("wait…", "A… B...", "A… B..."),
        ("wait...", "A...", "A..."),
    ],
)
def test_an_ellipsis_is_put_back_though_normalisation_reads_it(
    source: str, translation: str, restored: str
) -> None:
    for typography in (Typography.readable_by(lambda _: True), NOTHING_REPLACED):
        assert typography.restore(source, translation) == restored


def test_only_what_is_lacking_or_better_typed_is_replaced() -> None:
    readable = set(string.printable) | set("“”–«»‑")
    typography = Typography.readable_by(lambda text: set(text) <= readable)
    assert typography.simplify("“a” – «c»‑‘b’‐d") == "\"a\" - «c»‑'b'-d"
    assert typography.restore("«a» ‘b’", "'B' \"A\"") == '‘B’ "A"'
    assert typography.restore("“a” ‘b’", "'B' \"A\"") == "‘B’ “A”"


def test_what_is_better_typed_stays_where_that_cannot_be_read() -> None:
    typography = Typography.readable_by(lambda text: '"' not in text and "-" not in text)
    assert typography.simplify("“a” – b — ‘c’") == "“a” – b — 'c'"


def test_the_next_form_is_taken_where_the_first_is_lacking() -> None:
    typography = Typography.readable_by(lambda text: text.isascii() and '"' not in text)
    assert typography.simplify("“a” …") == "'a' ..."


def test_a_character_that_begins_words_only_is_replaced_everywhere() -> None:
    typography = Typography.readable_by(lambda text: text.isascii() or text == "“")
    assert typography.simplify("(“a”)") == '("a")'


class AsciiReader:
    """A vocabulary of ASCII."""

    reads_all_text = False

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at, c in enumerate(sentence) if not c.isascii()]

    def count_tokens(self, sentence: str) -> int:
        return len(sentence)


MARKED = {
    "double quotes": ("“we saw”", None),
    "low quotes": ("„we saw“", None),
    "guillemets": ("«we saw»", None),
    "spaced guillemets": ("« we saw »", None),
    "single quotes": ("‘we saw’", None),
    "single guillemets": ("‹we saw›", None),
    "apostrophe": ("it’s", None),
    "ellipsis": ("we saw… it", None),
    "dash between words": ("we saw – it", None),
    "long dash between words": ("we saw — it", None),
    "tight long dash": ("we saw—it", None),
    "range": ("we saw 10–20", None),
    "minus": ("we saw −5", None),
    "non-breaking hyphen": ("we self‑saw", None),
    "soft hyphen": ("we sa\u00adw", "we saw"),
    "zero-width space": ("we\u200b saw", "we saw"),
    "zero-width joiner": ("we sa\u200dw", "we saw"),
    "word joiner": ("we sa\u2060w", "we saw"),
    "mark of direction": ("we\u200e saw", "we saw"),
    "ligature": ("we ﬁt oﬃces", "we fit offices"),
    "full-width letters": ("ｗｅ ｓａｗ", "we saw"),
    "full-width digits": ("we saw ２０", "we saw 20"),
    "full-width mark": ("we saw！", "we saw!"),
}
"""Stretches of text, and what they read where that is not the same."""
AROUND = [("", ""), ("they said ", " there"), ("", ", and left."), ("they: ", "?"), ("(", ")")]


@pytest.mark.parametrize("format", ["text", "html", "markdown"])
@pytest.mark.parametrize("name", MARKED)
def test_typography_stays_around_what_is_translated(name: str, format: Format) -> None:
    """Of a model that reads ASCII alone, and one that reads all."""
    marked, plain = MARKED[name]
    wrong = {}
    for before, after in AROUND:
        for coverage in (Coverage.of(AsciiReader()), None):
            source = f"{before}{marked}{after}"
            document = open_document(source, format, "en", len, 200, coverage=coverage)
            assert coverage is None or all(one.text.isascii() for one in document.segments)
            outputs = rotating([one.text for one in document.segments])
            for repair in document.check(outputs):
                outputs[repair.segment] = repair.join(rotating(repair.texts))
            written = document.rebuild(outputs)
            expected = f"{before}{plain or marked}{after}".translate(ROTATED)
            if coverage is not None and written != expected:
                wrong[source] = written
            if coverage is None and written != source.translate(ROTATED):
                wrong[source] = written
    assert not wrong


@pytest.mark.parametrize(
    ("source", "translation", "written"),
    [
        ("is it…?", "ist es..?", "ist es...?"),
        ("well … so", "nun….. so", "nun... so"),
        ("...and so", "... und so", "...und so"),
        ("... and so", "... und so", "... und so"),
        ("so. and", "so.. und", "so.. und"),
    ],
)
def test_three_dots_are_three(source: str, translation: str, written: str) -> None:
    assert with_ellipses(translation, source) == written

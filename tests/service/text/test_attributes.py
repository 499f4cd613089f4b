"""Attributes of HTML that a reader sees are translated when asked, and nothing else of a tag is; so
are the texts of images and the titles of links in Markdown."""

from __future__ import annotations

import random
import re

import pytest

from service.text.document import Document, Format, open_document
from tests.service.text.engines import count_tokens, hostile
from tests.service.text.test_kept import ROTATED, rotating


def document_of(source: str, format: Format = "html") -> Document:
    return open_document(source, format, "en", count_tokens, 100, translate_attributes=True)


def translated(source: str, format: Format = "html") -> str:
    document = document_of(source, format)
    outputs = rotating([segment.text for segment in document.segments])
    for repair in document.check(outputs):
        outputs[repair.segment] = repair.join(rotating(repair.texts))
    return document.rebuild(outputs)


SHOWN = [
    "<img alt={} src=A.png>", "<a href=A title={}>B</a>", "<input placeholder={}>",
    "<button aria-label={}>B</button>", "<div aria-description={}></div>",
    "<meta name=description content={}>", '<META PROPERTY="og:title" CONTENT={} />',
    "<meta content={} name='twitter:description'>", "<input type=submit value={}>",
    "<optgroup label={}>", "<track label={}>", "<textarea placeholder={}>a b</textarea>",
    "<p>B <img alt={}> B</p>", "<p><b title={0}>B</b><i ALT = {0}>B</i></p>",
]  # fmt: skip
NOT_SHOWN = [
    "<img src={}>", "<a href={}>B</a>", "<p class={}>B</p>", "<input value={}>", "<p data-alt={}>",
    "<meta name=viewport content={}>", "<meta http-equiv=refresh content={}>", "<label for={}>",
    "<img translate=no alt={}>", "<div translate='no'><img alt={}></div>", "<!-- <img alt={}> -->",
    "<code><img alt={}></code>", "<script>var x = '<img alt={}>'</script>",
    "<svg><a title={}/></svg>",
]  # fmt: skip


@pytest.mark.parametrize("pattern", SHOWN)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_what_a_reader_sees_is_translated(pattern: str, quote: str) -> None:
    source = pattern.format(f"{quote}the dog, {{name}} &amp; it. we go{quote}")
    kept = translated(pattern.format(f"{quote}1{quote}"))
    expected = f"{quote}{'the dog'.translate(ROTATED)}, {{name}} &amp; "
    expected += f"{'it. we go'.translate(ROTATED)}{quote}"
    assert translated(source) == kept.replace(f"{quote}1{quote}", expected)


@pytest.mark.parametrize("pattern", NOT_SHOWN)
def test_what_no_reader_sees_is_kept(pattern: str) -> None:
    assert "'the dog'" in translated(pattern.format("'the dog'"))


def test_nothing_is_taken_out_unless_asked() -> None:
    source = "<img alt='the dog'>"
    assert not open_document(source, "html", "en", count_tokens, 100).segments
    assert [one.text for one in document_of(source).segments] == ["the dog."]


def test_a_text_with_such_numbers_of_its_own_is_left() -> None:
    source = "\ufdd07\ufdd1 <img alt='the dog'>"
    assert translated(source) == source


def test_a_translation_cannot_leave_its_attribute() -> None:
    document = document_of("<img alt='the dog'><img title=\"a cat\">")
    written = document.rebuild(["a' onload='b", 'c" onload="<d>'])
    assert written == ("<img alt='a&#x27; onload=&#x27;b'><img title=\"c&quot; onload=&quot;\">")


@pytest.mark.parametrize("seed", range(20))
def test_a_hostile_model_breaks_no_tag(seed: int) -> None:
    source = "<p title='the {name}'>we <img alt=\"a cat &amp; b\" src=x> go</p><img alt='it'>"
    document = document_of(source)
    translate = hostile(seed)
    outputs = translate([segment.text for segment in document.segments])
    for repair in document.check(outputs):
        outputs[repair.segment] = repair.join(translate(repair.texts))
    written = document.rebuild(outputs)
    assert re.search(r"""^<p title='[^'<>]*'>.*<img alt="[^"<>]*" src=x>""", written, re.DOTALL)
    assert not re.search("[\ufdd0\ufdd1]", written)


def test_pages_of_odd_parts_and_long_ones() -> None:
    generator = random.Random(1)
    parts = [
        "<img alt='",
        "the dog ",
        "'",
        '"',
        ">",
        "<p title=",
        " alt=",
        "</p>",
        "<!--",
        "\ufdd1",
    ]
    for _ in range(20):
        translated("".join(generator.choices(parts, k=400)))
    source = "<img alt='dog'>" * 2000
    assert translated(source) == source.replace("dog", "dog".translate(ROTATED))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("![the dog](A.png)", "![gur qbt](A.png)"),
        ('we ![the dog](A.png "it sits") go', 'jr ![gur qbt](A.png "vg fvgf") tb'),
        ("![the dog](<A b.png> 'it sits')", "![gur qbt](<A b.png> 'vg fvgf')"),
        ("[we](/x (it sits)) go", "[jr](/x (vg fvgf)) tb"),
        ('[we](/x "it \\"sits\\" here") go', '[jr](/x "vg \\"fvgf\\" urer") tb'),
        ("![the dog][A] go", "![gur qbt][A] tb"),
        ("![the dog][]\n\n[the dog]: A.png", "![gur qbt][the dog]\n\n[the dog]: A.png"),
        ('[A]: /x "it sits"', '[A]: /x "vg fvgf"'),
        ("[A]: /x 'it sits' \n", "[A]: /x 'vg fvgf' \n"),
        ("[![the dog](A.png)](/x)", "[![gur qbt](A.png)](/x)"),
        ("# we ![the *dog*](A.png)", "# jr ![gur *qbt*](A.png)"),
        ("| we |\n|---|\n| ![the dog](A.png) |", "| jr |\n|---|\n| ![gur qbt](A.png) |"),
        ("we <img alt='the dog' src=A> go", "jr <img alt='gur qbt' src=A> tb"),
        ("<p title='the dog'>we</p>", "<p title='gur qbt'>jr</p>"),
        ("`![the dog](A.png)` we", "`![the dog](A.png)` jr"),
        ("```\n![the dog](A.png)\n```", "```\n![the dog](A.png)\n```"),
        ("![](A.png) ![12](A.png) we", "![](A.png) ![12](A.png) jr"),
        ("> ![the dog](A.png)\n> we", "> ![gur qbt](A.png)\n> jr"),
    ],
)
def test_texts_of_images_and_titles_in_markdown(source: str, expected: str) -> None:
    assert translated(source, "markdown") == expected


def test_a_translation_cannot_leave_its_image() -> None:
    document = document_of('![the dog](A "a cat") [we](/x (it))', "markdown")
    sources = [segment.text for segment in document.segments]
    assert sources == ["we.", "the dog.", "a cat.", "it."]
    written = document.rebuild(["W", "d](x) [e]", 'c" \\ "d', "i) (j"])
    assert written == '![d\\](x) \\[e\\]](A "c\\" \\\\ \\"d") [W](/x (i\\) \\(j))'


def test_markdown_keeps_texts_of_images_unless_asked() -> None:
    source = '![the dog](A "a cat")'
    assert not open_document(source, "markdown", "en", count_tokens, 100).segments

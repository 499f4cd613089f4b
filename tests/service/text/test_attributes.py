"""Attributes of HTML that a reader sees are translated when asked, and nothing else of a tag is."""

from __future__ import annotations

import random
import re

import pytest

from service.text.document import Document, open_document
from tests.service.text.engines import count_tokens, hostile
from tests.service.text.test_kept import ROTATED, rotating


def document_of(source: str) -> Document:
    return open_document(source, "html", "en", count_tokens, 100, translate_attributes=True)


def translated(source: str) -> str:
    document = document_of(source)
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

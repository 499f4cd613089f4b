"""HTML and Markdown through a model: markup comes back as it was, in the right places."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from service.text.document import open_document
from service.text.patterns import INVENTED, PROTECTED, may_be_invented, may_be_protected
from tests.service.text.engines import run, source_of

HTML = """<!doctype html><html><head><title>My page</title><style>a > b { c: d }</style>
<script>if (a < b) { "</p>" }</script></head>
<body class='x > y'><!-- keep <b> this -->
<h1>big   dog</h1><p>One &amp; two&nbsp;</p>
<ul><li>a cat<li>a <b>red</b> bird</ul>
<pre>as  it <b>is</b></pre><p translate="no">not this</p><p>but <span class="a notranslate">not
that</span> here<br/>or there</p><![CDATA[ raw ]]><p>3 &gt; 2 &#62; 1</p></body></html>
"""
MARKDOWN = """---
title: kept
---
# my house #

we **like it** and [the dog](http://x.de/a_b "title"), who
is `old`.  
next line

> one quote
> goes on. then more

- [ ] a list
  goes on

| Head | B |
|------|:-:|
| cell | `c` |

```py
code here
```

    code too

<div>
a <b>block</b>
</div>

see ![alt](x.png) and [id] or [it][id][^1]

[id]: http://x "Y"
[^1]: the note
under
-----
***
"""


@pytest.mark.parametrize(("text", "format"), [(HTML, "html"), (MARKDOWN, "markdown")])
def test_nothing_is_lost_in_reading(text: str, format: str) -> None:
    assert source_of(text, format) == text
    assert source_of(text.replace("\n", "\r\n"), format) == text.replace("\n", "\r\n")


def test_html_is_translated_between_its_tags() -> None:
    expected = HTML
    for old, new in (
        ("My page", "My PAGE"), ("big   dog", "BIG DOG"), ("One &amp; two&", "One &amp; TWO&"),
        ("<li>a cat", "<li>A CAT"), ("a <b>red</b> bird", "A <b>RED</b> BIRD"), (">but ", ">BUT "),
        ("</span> here", "</span> HERE"), ("or there", "OR THERE"),
    ):  # fmt: skip
        assert old in expected
        expected = expected.replace(old, new)
    assert run(HTML, "html") == expected


def test_markdown_is_translated_between_its_marks() -> None:
    expected = MARKDOWN
    for old, new in (
        ("my house", "MY HOUSE"), ("we **like it** and [the dog]", "WE **LIKE IT** AND [THE DOG]"),
        (', who\nis `old`', ", WHO\nIS `old`"), ("next line", "NEXT LINE"),
        ("one quote\n> goes on. then more", "ONE QUOTE\n> GOES ON. THEN MORE"),
        ("a list\n  goes on", "A LIST\n  GOES ON"), ("| cell", "| CELL"),
        ("a <b>block</b>", "A <b>BLOCK</b>"),
        ("see ![alt](x.png) and [id] or [it][id]", "SEE ![alt](x.png) AND [ID][id] OR [IT][id]"),
        ("the note\nunder", "THE NOTE\nUNDER"),
    ):  # fmt: skip
        assert old in expected
        expected = expected.replace(old, new)
    assert run(MARKDOWN, "markdown") == expected


GERMAN = {
    "This is my brother and his wife.": "Das ist seine Frau und mein Bruder.",
    "my brother.": "Mein Bruder.",
    "his wife.": "seine Frau.",
    "I saw the big dog yesterday.": "Ich habe gestern den großen Hund gesehen.",
    "the big dog.": "Der große Hund.",
    "dog.": "Hund.",
    "You really should go.": "Du solltest unbedingt gehen.",
    "really.": "wirklich.",
}


def german(texts: Sequence[str]) -> list[str]:
    return [GERMAN.get(text, "???") for text in texts]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (
            'This is <b>my brother</b> and <a href="?a=1&amp;b">his wife</a>.',
            'Das ist <a href="?a=1&amp;b">seine Frau</a> und <b>mein Bruder</b>.',
        ),
        (
            "I saw <em>the big <b>dog</b></em> yesterday.",
            "Ich habe gestern <em>den großen <b>Hund</b></em> gesehen.",
        ),
        ("You <i>really</i> should go.", "Du <i>solltest</i> unbedingt gehen."),
        ("<b>You really should go.</b>", "<b>Du solltest unbedingt gehen.</b>"),
    ],
)
def test_tags_follow_their_words(source: str, target: str) -> None:
    assert run(source, "html", german) == target


def test_a_tag_over_two_sentences_keeps_its_ends() -> None:
    assert (
        run("<p>so <b>we go. They stay</b> there.</p>", "html")
        == "<p>SO <b>WE GO. They STAY</b> THERE.</p>"
    )


def test_pictures_and_placeholder_elements() -> None:
    assert run("<p><img src=a> we go</p>", "html") == "<p><img src=a> WE GO</p>"
    assert run('<p>we see <x id="1"/> here</p>', "html") == '<p>WE SEE <x id="1"/> HERE</p>'
    assert run('<p><x id="1"/>we<x id="2"/> go</p>', "html") == '<p><x id="1"/>WE<x id="2"/> GO</p>'


def test_a_word_that_a_tag_parts_stays_whole() -> None:
    assert run("we drink H<sub>2</sub>O here", "html") == "WE DRINK H<sub>2</sub>O HERE"


def test_output_is_escaped() -> None:
    def code(texts: Sequence[str]) -> list[str]:
        return ["if a < b & c: *d* [e] # f" for _ in texts]

    assert run("<p>so it is</p>", "html", code) == "<p>if a &lt; b &amp; c: *d* [e] # f</p>"
    assert run("so it is", "markdown", code) == r"if a < b & c: \*d\* \[e\] # f"
    assert run("so it is", "markdown", lambda texts: ["1. # x" for _ in texts]) == r"1\. # x"


def test_broken_html_is_kept() -> None:
    for text in (
        "a < b and <c",
        "</b>so <i>it <b>is</i> now</b>",
        "<p",
        "<!-- no end",
        "&bogus; &amp",
    ):
        assert source_of(text, "html") == text
        assert run(text, "html").count("<b>") == text.count("<b>")


@pytest.mark.parametrize(
    ("html", "translation", "expected"),
    [
        ("see <i>Tom…</i> now", "VEJA Tom... JA", "VEJA <i>Tom…</i> JA"),
        ("see <i>Tom!!!</i> now", "VEJA Tom!!! JA", "VEJA <i>Tom!!!</i> JA"),
        ("<i>“Tom,”</i> we see", "“Tom”, VEMOS", "<i>“Tom”,</i> VEMOS"),
        ("we see (<i>'Tom'</i>)", "VEMOS ('Tom')", "VEMOS (<i>'Tom'</i>)"),
        ("we see (<b>call()</b>)", "VEMOS (Boston)", "VEMOS (<b>call()</b>)"),
        ("<i>&ldquo;Tom&hellip;</i> now", "“Tom... JA", "<i>“Tom…</i> JA"),
        ("we “<i>Tom</i>” see", "VEMOS “Tom” JA", "VEMOS “<i>Tom</i>” JA"),
        ("<b>a <i>“Tom”</i></b> now", "A “Tom” JA", "<b>A <i>“Tom”</i></b> JA"),
        ("we <i>Tom'</i><b>'Anna</b>", "Tom'Anna", "<i>Tom'</i><b>Anna</b>"),
    ],
)
def test_tags_are_around_the_marks_of_their_span(
    html: str, translation: str, expected: str
) -> None:
    def translate(texts: Sequence[str]) -> list[str]:
        return [translation if len(text) > 6 else text.upper() for text in texts]

    assert run(html, "html", translate) == expected


def test_a_text_that_is_not_suspect_holds_nothing_protected() -> None:
    pieces = [
        "www", "www.", ".com", "de", ".", "-", "/", "a", "Ä", "()", "(", ")", " ", "1", "%", "{",
        "}", "_", "@", "#", "é", "①", "→", "http://", "$", "<b>", "x.py", "'", '"', "!", ",", "~",
        "[[", "]]", "\ufffc", "…", "\n", "ж", "²", "½", "12", "123-", "..", "--", "==", "+1",
        ":", ":)", ";)", "xD", "MM-", "«", "–", "s:", "C:", "\\", "HOME", "t(", "F5",
    ]  # fmt: skip
    chance = random.Random(5)
    harmless = 0
    for _ in range(20_000):
        text = "".join(chance.choices(pieces, k=chance.randint(1, 7)))
        if not may_be_invented(text):
            assert not INVENTED.search(text), text
        if not may_be_protected(text):
            harmless += 1
            assert not PROTECTED.search(text), text
    assert harmless > 500
    assert not may_be_protected("\"No,\" he said (quietly): it's Tom's well-known Äpfel, $5.")
    assert not may_be_protected("«Is it?» “He is – well — at home.” ‘Yes...’")


@pytest.mark.parametrize(
    ("source", "translation", "expected"),
    [
        ("it was <b>$5</b>", "es war US $ 5", "es war <b>US $ 5</b>"),
        ("it was <b>€5</b>", "es war € 5", "es war <b>€ 5</b>"),
        ("go!<i>— A dog</i>", "geh!— A dog", "geh!<i>— A dog</i>"),
    ],
)
def test_signs_and_dashes_stay_on_their_side_of_a_tag(
    source: str, translation: str, expected: str
) -> None:
    document = open_document(source, "html", "en", len, 100)
    assert document.rebuild([translation]) == expected

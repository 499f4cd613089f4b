"""Nothing protected is lost or doubled, whatever comes back from the model; time is linear."""

from __future__ import annotations

import random
import re
import time
import unicodedata
from collections import Counter

import pytest

from service.text.document import open_document
from service.text.glossary import Glossary
from service.text.html import HtmlToken, tokenize
from tests.service.text.engines import count_tokens, hostile, run, source_of

SENTENCE = "the dog sees a big house. She is here, and Tom's cat runs! What? (now) yes: no; 42 x"
WORDS = SENTENCE.split()
PIECES = [
    "{name}", "%s", "%1$d", "{{ x }}", '<x id="7"/>', "https://a.b/c?d=1", "bob@ex.org", "${y}",
    "{0}", "😀", "a_b_c", "$HOME", "%%",
]  # fmt: skip
INLINE = [
    "<br>", "<img src='a>b'>", "&amp;", "&nbsp;", "&copy;", "<code>x &lt; y</code>", "<!-- c -->",
    "{name}", "<p>hi</p>", "<x id='3'/>", "https://a.b/?x=1&amp;y=2",
]  # fmt: skip
MARKS = [
    "**bold words**", "*it*", "[a link](http://x.y/z)", "`code`", "![alt](i.png)", "[^1]",
    "~~old~~", "<b>tag</b>", "{name}", "%s",
]  # fmt: skip
UNITS = [
    "<", "{", "[", "a", "\n", "%", "<a ", "<a '", "<b>x", "<!--", "&", "<code>", "`", "``a", "*",
    "**a", "> ", "|a|b\n|-|-\n", "[a](", "![", "#", "a ", "A b. ", "@", "漢字。", "😀", "$",
    "{a} b ",
    "- ",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
def test_pieces_of_text_survive(seed: int) -> None:
    generator = random.Random(seed)
    words = generator.choices(WORDS, k=generator.randrange(1, 25))
    for piece in generator.sample(PIECES, generator.randrange(6)):
        words.insert(generator.randrange(len(words) + 1), piece)
    text = " ".join(words)
    glossary = Glossary({"dog": "Rüde", "big house": "Palast"}) if seed % 2 else Glossary()
    output = run(text, "text", hostile(seed), glossary)
    for piece in PIECES:
        assert output.count(piece) == text.count(piece), (piece, text, output)
    for _, _, term in glossary.find(text):
        assert term in output


def fragment(generator: random.Random, depth: int = 0) -> str:
    parts = []
    for _ in range(generator.randrange(1, 6)):
        kind = generator.random()
        if kind < 0.55 or depth > 3:
            parts.append(" ".join(generator.choices(WORDS, k=generator.randrange(1, 6))))
        elif kind < 0.8:
            name = generator.choice(["b", "i", "a", "span"])
            inside = fragment(generator, depth + 1)
            parts.append(f'<{name} id="{generator.randrange(999)}">{inside}</{name}>')
        else:
            parts.append(generator.choice(INLINE))
    return generator.choice(["", " ", " "]).join(parts)


def is_nested(tokens: list[HtmlToken]) -> bool:
    names = []
    for token in tokens:
        if token.kind == "open":
            names.append(token.name)
        elif token.kind == "close" and (not names or names.pop() != token.name):
            return False
    return not names


@pytest.mark.parametrize("seed", range(150))
def test_html_stays_well_formed(seed: int) -> None:
    text = fragment(random.Random(seed))
    output = run(text, "html", hostile(seed))
    before, after = list(tokenize(text)), list(tokenize(output))
    assert is_nested(before)
    assert is_nested(after), (text, output)
    assert Counter(t.raw for t in before if t.kind != "text") == Counter(
        t.raw for t in after if t.kind != "text"
    )
    for piece in ("{name}", "https://a.b/?x=1&amp;y=2", "&nbsp;", "&copy;"):
        assert output.count(piece) == text.count(piece), (piece, text, output)


@pytest.mark.parametrize("seed", range(150))
def test_marks_of_markdown_survive(seed: int) -> None:
    generator = random.Random(seed)
    words = generator.choices(WORDS, k=generator.randrange(1, 25))
    for piece in generator.sample(MARKS, generator.randrange(6)):
        words.insert(generator.randrange(len(words) + 1), piece)
    text = "- " + " ".join(words)
    output = run(text, "markdown", hostile(seed))
    assert output.startswith("- ")
    unescaped = re.sub(r"\\.", "", output)
    for mark in ("**", "](http://x.y/z)", "`code`", "![alt](i.png)", "[^1]", "~~", "<b>", "</b>"):
        assert unescaped.count(mark) == text.count(mark), (mark, text, output)


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("format", ["text", "html", "markdown"])
def test_any_characters_add_up(format: str) -> None:
    generator = random.Random(7)
    alphabet = [
        *"<>&{}[]()*_`|-#\n \\a!/\"'=\t:$@\u0301\ufffc😀ש漢", "b.", "Tom", "%s", "&amp;",
        "<b>", "</b>", "\r\n", "1. ", "---", "```", "> ", "~~", "<!--",
    ]  # fmt: skip
    for seed in range(300):
        text = "".join(generator.choices(alphabet, k=generator.randrange(60)))
        assert composed(source_of(text, format, 12)) == composed(text)
        assert composed(source_of(text, format, 12, wrapped=True)) == composed(text)
        run(text, format, hostile(seed), max_tokens=12)


@pytest.mark.parametrize("format", ["text", "html", "markdown"])
def test_time_is_bounded(format: str) -> None:
    """A quadratic reader would need minutes; sentences of any kind take well under a second."""
    for unit in UNITS:
        text = unit * (9_000 // len(unit))
        start = time.process_time()
        assert composed(source_of(text, format)) == composed(text)
        assert time.process_time() - start < 5, unit


def test_a_deep_nest_of_tags_is_not_translated_level_by_level() -> None:
    words = [f"{a}{b}" for a in "bdfgk" for b in "aeiou"]
    text = "".join(f"<b>{word} " for word in words) + "</b>" * len(words)
    document = open_document(text, "html", "en", count_tokens, 100)
    [repair] = document.check([" ".join(reversed(words))])
    assert sum(map(len, repair.texts)) < 8 * len(" ".join(words)), "half of all levels are 12 times"
    assert run(text, "html", lambda texts: [" ".join(reversed(one.split())) for one in texts])
    two = "<b>The dog <i>sees a cat</i></b> and runs."
    [repair] = open_document(two, "html", "en", count_tokens, 100).check(["Und er läuft."])
    assert {"The dog sees a cat", "sees a cat"} <= {one.rstrip(".") for one in repair.texts}

"""Blocks of Markdown and HTML: what is a unit of its own, and what is kept around it."""

from __future__ import annotations

import pytest

from service.text.document import Format, open_document
from tests.service.text.engines import count_tokens, run
from tests.service.text.test_kept import ROTATED, rotating

MARKDOWN: list[tuple[str, list[str]]] = [
    ("> [!NOTE]\n> the dog is big.", ["the dog is big."]),
    ("> [!WARNING] the title\n> the dog", ["the title", "the dog"]),
    (">> [!tip]-\n>>\n>> the dog", ["the dog"]),
    ("1. a cat\n   > [!NOTE]\n   > the dog", ["a cat", "the dog"]),
    (
        "the dog\n:   a big one.\n:   a hound\n\nthe cat\n: a pet",
        ["the dog", "a big one.", "a hound", "the cat", "a pet"],
    ),
    ("the dog\n\n:   a big one\n    on two lines", ["the dog", "a big one on two lines"]),
    ("the dog\nthe hound\n~ a big one", ["the dog", "the hound", "a big one"]),
    ("| the dog<br>the cat | a pet |\n|---|---|\n| c<br/>d | e |", ["the dog", "the cat", "a pet"]),
    ("{% if x %}\nthe dog\n{% else %}\nthe cat\n{% endif %}", ["the dog", "the cat"]),
    ("{{#if x}}\nthe dog\n{{/if}}\nthe cat", ["the dog", "the cat"]),
    ("{{< note >}}\nthe dog\n{{< /note >}}", ["the dog"]),
    ("<% if x %> <% y %>\nthe dog\n<% end %>", ["the dog"]),
    ('!!! note "the title"\n    the dog', ["the title", "the dog"]),
    ("??? tip\n    the dog", ["the dog"]),
    ("*[HTML]: the dog", ["the dog"]),
    ("[TOC]\n\nthe dog", ["the dog"]),
    ("+---+---+\n| A | B |\n+===+===+\n| C | D |\n+---+---+\nthe dog", ["the dog"]),
    ("the dog [!NOTE] is\nat 5: a cat", ["the dog [!NOTE] is at 5: a cat"]),
]
HTML: list[tuple[str, list[str]]] = [
    ("<select><option>the dog</option><option>a cat</option></select>", ["the dog", "a cat"]),
    ("<datalist><option>the dog<option>a cat</datalist>", ["the dog", "a cat"]),
    ("<label for=A>the dog</label><input id=A> <label>a cat</label>", ["the dog", "a cat"]),
    ("<button>the dog</button><button>a cat</button>", ["the dog", "a cat"]),
    ("<fieldset><legend>the dog</legend>a cat</fieldset>", ["the dog", "a cat"]),
    ("<details><summary>the dog</summary>a cat</details>", ["the dog", "a cat"]),
    ("<dl><dt>the dog<dd>a cat</dl>", ["the dog", "a cat"]),
    ("<video src=A>the dog</video><canvas>a cat</canvas>", ["the dog", "a cat"]),
    ("<object><param>the dog</object><noscript>a cat</noscript>", ["the dog", "a cat"]),
    ("<p>{% if x %}\nthe dog\n{% else %}\na cat\n{% endif %}</p>", ["the dog", "a cat"]),
]
CASES: list[tuple[Format, str, list[str]]] = [
    *(("markdown", source, units) for source, units in MARKDOWN),
    *(("html", source, units) for source, units in HTML),
]


@pytest.mark.parametrize(("format", "source", "units"), CASES)
def test_blocks_are_units_of_their_own(format: Format, source: str, units: list[str]) -> None:
    document = open_document(source, format, "en", count_tokens, 100, adds_stop=False)
    read = [segment.text for segment in document.segments]
    assert [text for text in read if text in units] == units
    layout = [part for part in document.layout if isinstance(part, str)]
    kept = "".join(layout)
    assert not any(unit in kept for unit in units)
    translated = run(source, format, rotating)
    rest = translated
    for part in layout:
        assert part in rest
        rest = rest[rest.index(part) + len(part) :]
    for unit in units:
        assert all(word.translate(ROTATED) in translated for word in unit.split() if word.islower())

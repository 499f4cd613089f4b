"""Plain text, Markdown and HTML files: their bytes, their encoding, their pieces."""

from __future__ import annotations

import pytest

from service.documents import FileError, kind_of, open_file
from service.documents.text import cut_up
from service.text.document import READERS

TEXT = "First line.\r\n\r\n  Grüße – second.\r\nThird.\n\n\n1234\n"


def translated(data: bytes, name: str, size: int = 10_000) -> bytes:
    file = open_file(data, kind_of(name, data), "de", "en", size)
    return file.rebuild([unit.text.upper() for unit in file.units])


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_encoding_and_line_endings_stay(codec: str) -> None:
    assert translated(TEXT.encode(codec), "a.txt") == TEXT.upper().encode(codec)


def test_text_in_an_old_encoding_becomes_utf8_when_the_translation_is_not_in_it() -> None:
    file = open_file("Grüße".encode("cp1252"), kind_of("a.txt", b""), "de", "ru")
    assert file.rebuild(["Привет"]) == "Привет".encode("utf-8-sig")
    file = open_file("Привет".encode("cp1251"), kind_of("a.txt", b""), "ru", "en")
    assert file.units[0].text == "Привет"


def test_html_says_its_encoding_and_takes_references() -> None:
    page = '<meta charset="iso-8859-1"><p>Grüße'.encode("latin-1")
    file = open_file(page, kind_of("a.HTM", page), "de", "ru")
    assert file.units[0].text.endswith("Grüße")
    assert file.rebuild(["<p>Привет"]).startswith(b"<p>&#1055;")


def test_text_without_a_letter_is_no_unit() -> None:
    data = b"12\n\n--\n" * 3
    assert not open_file(data, kind_of("a.txt", data), "en", "de").units
    assert translated(data, "a.txt") == data
    assert translated(b"", "a.txt") == b""


def test_plain_text_is_cut_at_the_best_places() -> None:
    assert cut_up("One two.\n\nThree\nfour. Five", "text", 15) == [
        "One two.\n\n",
        "Three\nfour. ",
        "Five",
    ]
    assert cut_up("a" * 7, "text", 3) == ["aaa", "aaa", "a"]
    assert cut_up("x\r\n" * 4, "text", 4) == ["x\r\n"] * 4


MARKDOWN = """# Title

A paragraph with **bold
words** in it. See [the end].

```python
code here

still code
```

- item

      not code

1. one
2. two

[the end]: https://example.org
"""
HTML = (
    "<!doctype html><body><h1>Title</h1>\n<p>One <b>two</b> three.</p><pre>x\n\ny</pre>"
    "<div translate=no><p>kept</p><p>kept</p></div><ul><li>a<li>b</ul><i>c<p>d</i>e</p>"
    "<script>if (a<b) x()</script><p>end"
)


@pytest.mark.parametrize(("text", "format"), [(MARKDOWN, "markdown"), (HTML, "html")])
@pytest.mark.parametrize("size", [1, 20, 40, 80, 150])
def test_markup_is_read_in_pieces_as_in_the_whole(text: str, format: str, size: int) -> None:
    pieces = cut_up(text, format, size)  # type: ignore[arg-type]
    assert "".join(pieces) == text
    blocks = [
        [
            item.inline
            for part in parts
            for item in READERS[format](part)
            if not isinstance(item, str)
        ]  # type: ignore[index]
        for parts in (pieces, [text])
    ]
    assert blocks[0] == blocks[1]


def test_long_markup_is_cut() -> None:
    html = "".join(f"<div><p>Paragraph {n} <b>x</b></p></div>\n" for n in range(300))
    assert max(map(len, cut_up(html, "html", 500))) <= 500
    markdown = "".join(f"## Part {n}\n\nSome *words* here.\n\n- item\n\n" for n in range(300))
    assert max(map(len, cut_up(markdown, "markdown", 500))) <= 500


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.exe", b"", "these are read: .txt"),
        ("a", b"", "no extension"),
        ("a.docm", b"", "macros"),
        ("a.doc", b"", "save it as .docx"),
        ("a.txt", b"%PDF-1.7", "a PDF"),
        ("a.txt", b"PK\x03\x04", "zip"),
        ("a.docx", b"hello", "not a .docx"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "encrypted"),
        ("a.txt", b"ab\0cd\0\0", "null characters"),
        ("a.txt", b"\xef\xbb\xbf\xff", "UTF-8"),
    ],
)
def test_what_is_refused(name: str, data: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        open_file(data, kind_of(name, data), "en", "de")

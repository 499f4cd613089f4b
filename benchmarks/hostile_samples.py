"""Files of every kind that cost the most that the limits allow, and some that are over one."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

MEGABYTE = 1_000_000
XLIFF_HEAD = (
    '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">'
    '<file source-language="en" original="a" datatype="plaintext"><body>'
)
XLIFF_TAIL = "</body></file></xliff>"
TMX_HEAD = '<tmx version="1.4"><header srclang="en"/><body>'
TMX_TAIL = "</body></tmx>"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
ODF = "urn:oasis:names:tc:opendocument:xmlns"
MANY = " ".join(f'a{number}=""' for number in range(250))
"""Attributes of an element, nearly as many as may be."""


@dataclass(frozen=True)
class Hostile:
    """A file: its name's extension, what is bad about it, and how it is made of some bytes."""

    extension: str
    what: str
    make: Callable[[int], bytes]


def repeated(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A file of so many bytes of one thing."""
    return lambda size: (before + item * max(1, size // len(item)) + after).encode()


def docx(paragraphs: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A Word document whose body has so many bytes of one thing."""

    def make(size: int) -> bytes:
        body = f"{paragraphs}{item * max(1, size // len(item))}{after}"
        types = (
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            f'<Override PartName="/word/document.xml" ContentType="{WORD_TYPE}"/></Types>'
        )
        document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        return _zipped({"[Content_Types].xml": types, "word/document.xml": document})

    return make


def odt(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """An OpenDocument text whose body has so many bytes of one thing."""

    def make(size: int) -> bytes:
        body = f"{before}{item * max(1, size // len(item))}{after}"
        content = (
            f'<office:document-content xmlns:office="{ODF}:office:1.0" xmlns:text="{ODF}:text:1.0">'
            f"<office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>"
        )
        return _zipped(
            {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content}
        )

    return make


def _zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return buffer.getvalue()


CUE = "1\n00:00:01,000 --> 00:00:02,000\n<i>a</i> {\\an8}b\n\n"
RUN = "<w:r><w:rPr><w:b/><w:i/></w:rPr><w:t>a</w:t></w:r><w:r><w:t>b</w:t></w:r>"
NESTED = 200

HOSTILE = (
    Hostile("txt", "one word", repeated("", "a")),
    Hostile("txt", "lines of a letter", repeated("", "a\n")),
    Hostile("txt", "many sentences", repeated("", "A. ")),
    Hostile("md", "brackets", repeated("", "[a](b *c* \n\n")),
    Hostile("md", "unclosed comments", repeated("", "<!-- a\n\n")),
    Hostile("md", "backticks", repeated("", "`a ``b \n\n")),
    Hostile("md", "a heading of spaces", repeated("# a", " ", "b")),
    Hostile("md", "links defined elsewhere", repeated("[a]: b\n\n", "[a] word\n\n")),
    Hostile("html", "unclosed tags", repeated("", "<b>a<p>")),
    Hostile("html", "tags around all", repeated("<b>", "<p>a</p>", "</b>")),
    Hostile("html", "angle brackets", repeated("a ", "<")),
    Hostile("html", "unclosed quotes", repeated("a ", '<a b="')),
    Hostile("srt", "cues of two letters", repeated("", CUE)),
    Hostile("srt", "one cue", repeated("1\n00:00:01,000 --> 00:00:02,000\n", "<i>a</i> b\n")),
    Hostile("vtt", "cues of two letters", repeated("WEBVTT\n\n", CUE)),
    Hostile("po", "messages of a letter", repeated("", 'msgid "{}"\nmsgstr ""\n\n'.format("a"))),
    Hostile("po", "strings of many lines", repeated('msgid ""\n', '"a"\n', 'msgstr ""\n')),
    Hostile(
        "tmx",
        "attributes",
        repeated(
            TMX_HEAD, f'<tu><tuv xml:lang="en"><seg>a<hi {MANY}>b</hi></seg></tuv></tu>', TMX_TAIL
        ),
    ),
    Hostile(
        "tmx",
        "units of a letter",
        repeated(TMX_HEAD, '<tu><tuv xml:lang="en"><seg>a</seg></tuv></tu>', TMX_TAIL),
    ),
    Hostile(
        "tmx",
        "inline elements",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>' + "<hi>a b</hi> c <ph/> " * 900 + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    Hostile(
        "tmx",
        "elements in each other",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>'
            + "<hi>a" * NESTED
            + "</hi>" * NESTED
            + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    Hostile(
        "tmx",
        "an element of 10,000 attributes",
        lambda size: (
            TMX_HEAD
            + '<tu><tuv xml:lang="en"><seg>a<hi '
            + " ".join(f'a{n}=""' for n in range(10_000))
            + ">b</hi></seg></tuv></tu>"
            + TMX_TAIL
        ).encode(),
    ),
    Hostile(
        "xliff",
        "attributes",
        repeated(
            XLIFF_HEAD,
            f'<trans-unit id="1"><source>a<g {MANY}>b</g></source></trans-unit>',
            XLIFF_TAIL,
        ),
    ),
    Hostile(
        "xliff",
        "units of a letter",
        repeated(XLIFF_HEAD, "<trans-unit><source>a</source></trans-unit>", XLIFF_TAIL),
    ),
    Hostile(
        "xliff",
        "namespaces",
        repeated(
            XLIFF_HEAD.replace(
                "<file ", "<file " + " ".join(f'xmlns:n{n}="u{n}"' for n in range(250)) + " "
            ),
            '<trans-unit><source>a<g n1:a="">b</g></source></trans-unit>',
            XLIFF_TAIL,
        ),
    ),
    Hostile("docx", "runs", docx("<w:p>", RUN * 300 + "</w:p><w:p>", "</w:p>")),
    Hostile("docx", "paragraphs of a letter", docx("", "<w:p><w:r><w:t>a</w:t></w:r></w:p>")),
    Hostile(
        "docx",
        "fields in each other",
        docx(
            "",
            "<w:p><w:r><w:t>a</w:t></w:r>"
            + '<w:r><w:fldChar w:fldCharType="begin"/></w:r>' * 290
            + "<w:hyperlink/>"
            + '<w:r><w:fldChar w:fldCharType="separate"/><w:fldChar w:fldCharType="end"/></w:r>'
            * 290
            + "</w:p>",
        ),
    ),
    Hostile(
        "docx",
        "tabs in a run",
        docx(
            "<w:p>",
            "<w:r><w:rPr><w:b/><w:i/></w:rPr><w:t>a</w:t>"
            + "<w:tab></w:tab>" * 3000
            + "</w:r></w:p><w:p>",
            "</w:p>",
        ),
    ),
    Hostile(
        "odt",
        "spans",
        odt("", "<text:p>" + '<text:span text:style-name="b">a</text:span>b' * 500 + "</text:p>"),
    ),
    Hostile("odt", "paragraphs of a letter", odt("", "<text:p>a</text:p>")),
    Hostile(
        "odt", "paragraphs in each other", odt("", "<text:p>a" * NESTED + "</text:p>" * NESTED)
    ),
)

"""Files that would cost more than they may are refused, and the error names the limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from lxml import etree

from benchmarks.hostile import HOSTILE_FILES, TMX_HEAD, TMX_TAIL, HostileFile, docx, odt
from service.documents import FileError, xml
from service.documents import docx as docx_module
from service.documents import xml as limits
from service.documents.base import MAX_MARKUP_CHARS, MAX_UNIT_CHARS
from service.documents.docx import DocxFile
from service.documents.odt import OdtFile
from service.documents.xml import read_xml, shell
from tests.service.documents.document_samples import opened, samples, shouted, texts

Wrap = Callable[[str], bytes]


def in_tmx(inline: str) -> bytes:
    return f'{TMX_HEAD}<tu><tuv xml:lang="en"><seg>a {inline}</seg></tuv></tu>{TMX_TAIL}'.encode()


def in_xliff(inline: str) -> bytes:
    head = '<xliff version="2.0" srcLang="en"><file id="f"><unit id="u"><segment><source>'
    return f"{head}a {inline}</source></segment></unit></file></xliff>".encode()


def in_docx(inline: str) -> bytes:
    return docx(f"<w:p><w:r><w:t>a</w:t></w:r>{inline}", "</w:p>")(1)


def in_odt(inline: str) -> bytes:
    return odt(f"<text:p>a {inline}", "</text:p>")(1)


WRAPS: dict[str, Wrap] = {"tmx": in_tmx, "xliff": in_xliff, "docx": in_docx, "odt": in_odt}
XML_KINDS = pytest.mark.parametrize("kind", WRAPS)


def attributes(count: int) -> str:
    return "<b " + " ".join(f'a{number}=""' for number in range(count)) + "/>"


def namespaces(count: int) -> str:
    declared = [f' xmlns:n{number}="u{number}"' for number in range(count)]
    return f"<b{''.join(declared[:128])}><b{''.join(declared[128:])}/></b>"


def nested(count: int) -> str:
    return "<b>" * count + "</b>" * count


@XML_KINDS
@pytest.mark.parametrize(
    ("make", "allowed", "message"),
    [
        (attributes, 256, "an element has more than 256 attributes"),
        (namespaces, 250, "more than 256 namespaces are declared"),
        (nested, 240, "elements nest deeper than 256"),
    ],
)
def test_xml_of_every_kind_is_within_bounds(
    kind: str, make: Callable[[int], str], allowed: int, message: str
) -> None:
    assert texts(opened(WRAPS[kind](make(allowed)), f"a.{kind}"))
    with pytest.raises(FileError, match=f"{message} .*; (remove|save)"):
        opened(WRAPS[kind](make(257)), f"a.{kind}")


@XML_KINDS
def test_elements_are_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ELEMENTS", 20)
    assert texts(opened(WRAPS[kind]("<b/>" * 10), f"a.{kind}"))
    with pytest.raises(FileError, match=r"there are more than 20 elements .*; part it"):
        opened(WRAPS[kind]("<b/>" * 20), f"a.{kind}")


def test_namespaces_count_where_they_are_in_scope_only() -> None:
    beside = '<b xmlns:n="u"/>' * 300
    assert texts(opened(in_tmx(beside), "a.tmx"))
    within = "".join(f'<b xmlns:n{number}="u">' for number in range(200)) + "</b>" * 200
    assert texts(opened(in_tmx(within), "a.tmx"))


def test_a_shell_has_the_attributes_and_the_namespaces_that_it_needs() -> None:
    root = read_xml(b'<r xmlns="u" xmlns:x="v" xmlns:y="w"><a k="1" x:l="2">text<b/></a></r>').root
    copied = shell(root[0])
    assert (copied.tag, dict(copied.attrib)) == ("{u}a", {"k": "1", "{v}l": "2"})
    assert copied.nsmap == {None: "u", "x": "v"}
    assert (len(copied), copied.text) == (0, None)
    root[0].addnext(copied)
    assert etree.tostring(copied, encoding="unicode").startswith("<a ")
    assert b'<a k="1" x:l="2"/></r>' in etree.tostring(root)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("tmx", "<tu><tuv xml:lang='en'><seg>b</seg></tuv></tu>"),
        ("xliff", "<segment><source>b</source></segment>"),
    ],
)
def test_units_in_a_unit_are_part_of_it(kind: str, text: str) -> None:
    """Else each would be written into all that are around it, and those into all around them."""
    data = WRAPS[kind](text)
    file = opened(data, f"a.{kind}")
    assert len(file.units) == 1
    assert shouted(file).count(b"<source>b" if kind == "xliff" else b"<seg>b") == 2


def test_fields_in_each_other() -> None:
    begin = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    end = '<w:r><w:fldChar w:fldCharType="separate"/><w:fldChar w:fldCharType="end"/></w:r>'
    assert texts(opened(in_docx(begin * 300 + end * 300), "a.docx"))
    with pytest.raises(FileError, match="nest deeper than 300; part it"):
        opened(in_docx(begin * 301 + end * 301), "a.docx")


def test_formats_that_a_translation_would_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx_module, "MAX_COPIED_CHARS", 2000)
    style = f'<w:r><w:rPr><w:rStyle w:val="{"s" * 100}"/></w:rPr>'
    assert texts(opened(in_docx(f"{style}<w:t>a</w:t></w:r>" * 30), "a.docx"))
    with pytest.raises(FileError, match="more than 2,000 characters of formats; simplify them"):
        opened(in_docx(f"{style}{'<w:tab/>' * 30}</w:r>"), "a.docx")


@pytest.mark.parametrize("kind", ["docx", "odt"])
def test_parts_of_a_zip_count_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples()[f"a.{kind}"]
    file = opened(data, f"a.{kind}")
    assert isinstance(file, DocxFile | OdtFile)
    assert len(file.parts) > 1
    size = sum(file.archive.members[part].file_size for part in file.parts)
    monkeypatch.setattr(xml, "MAX_XML", size)
    assert texts(opened(data, f"a.{kind}"))
    monkeypatch.setattr(xml, "MAX_XML", size - 1)
    with pytest.raises(FileError, match=r"the text of the file is larger than .*; part it"):
        opened(data, f"a.{kind}")


LONG = "word " * (MAX_UNIT_CHARS // 5)
LONG_PARAGRAPHS = {
    "a.html": f"<p>{LONG} more</p>",
    "a.md": f"{LONG} more\n",
    "a.srt": f"1\n00:00:01,000 --> 00:00:02,000\n{LONG} more\n",
    "a.po": f'msgid "{LONG} more"\nmsgstr ""\n',
    "a.tmx": in_tmx(LONG),
    "a.xliff": in_xliff(LONG),
    "a.docx": docx(f"<w:p><w:r><w:t>{LONG} more</w:t></w:r></w:p>", " ")(1),
    "a.odt": in_odt(LONG),
}


@pytest.mark.parametrize("name", LONG_PARAGRAPHS)
def test_a_paragraph_that_is_too_long(name: str) -> None:
    data = LONG_PARAGRAPHS[name]
    with pytest.raises(FileError, match=r"paragraph .* at most 20,000 are possible; part it"):
        opened(data if isinstance(data, bytes) else data.encode(), name)


def test_a_paragraph_with_too_large_a_picture() -> None:
    text = f'<p>A picture <img src="data:{"a" * MAX_MARKUP_CHARS}"></p>'
    with pytest.raises(FileError, match=r"with its markup, at most 1,000,000 .*; part it"):
        opened(text.encode(), "a.html")


def test_long_texts_without_paragraphs_are_cut() -> None:
    assert len(opened(LONG.encode() * 2, "a.txt").units) > 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", "<b>" + "<p>some words</p>" * 10_000 + "</b>"),
        ("a.md", "[a]: b\n\n" + "Some [a] words.\n\n" * 10_000),
    ],
)
def test_long_markup_is_cut_though_it_is_read_otherwise_then(name: str, text: str) -> None:
    file = opened(text.encode(), name)
    assert max(len(unit.text) for unit in file.units) <= 20_000
    assert file.rebuild(texts(file)).decode() == text


def test_what_is_long_but_has_no_words_is_kept() -> None:
    script = f"<script>{LONG} more</script>"
    picture = f'<p>A picture <img src="data:{"a" * MAX_UNIT_CHARS}"></p>'
    text = f"<p>Some words.</p>{script}{picture}<p>More words.</p>"
    file = opened(text.encode(), "a.html")
    expected = text.replace("Some words", "SOME WORDS").replace("More words", "MORE WORDS")
    expected = expected.replace("A picture", "A PICTURE")
    assert shouted(file).decode() == expected


SMALL = 50_000


@pytest.mark.parametrize(
    "hostile", HOSTILE_FILES, ids=lambda one: f"{one.extension} {one.description}"
)
def test_hostile_files_are_read_or_refused_soon(hostile: HostileFile) -> None:
    begin = time.process_time()
    with suppress(FileError):
        shouted(opened(hostile.make(SMALL), f"a.{hostile.extension}"))
    assert time.process_time() - begin < 5


def test_a_heading_of_spaces_takes_linear_time() -> None:
    begin = time.process_time()
    with pytest.raises(FileError, match="at most 20,000"):
        opened(b"# a" + b" " * 200_000 + b"b", "a.md")
    assert time.process_time() - begin < 5


def test_samples_are_far_from_every_limit() -> None:
    for name, data in samples().items():
        raw = data.encode() if isinstance(data, str) else data
        assert opened(raw, name).units, name

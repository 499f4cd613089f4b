"""Word and OpenDocument files: formats, notes, fields and frames, seen by other readers."""

from __future__ import annotations

import io
import zipfile
from collections import Counter

import docx
import pytest
from lxml import etree
from odf import teletype
from odf.opendocument import load
from odf.text import P

from service.documents import FileError
from tests.service.documents.document_samples import (
    open_document_text,
    opened,
    served,
    shouted,
    texts,
    with_part,
    word_document,
)
from tests.service.text.engines import hostile

WORD = word_document()
TEXT = open_document_text()
W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def part(data: bytes, name: str) -> etree._Element:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return etree.fromstring(zipped.read(name))


def test_paragraphs_are_sentences_with_as_few_tags_as_may_be() -> None:
    """What most of a paragraph is formatted as, is no tag; runs that look the same are one."""
    assert texts(opened(WORD, "a.docx")) == [
        "A title",
        'Plain and <span id="0">bold</span> text, ends.',
        'All bold<br id="0"/>here<br id="1"/><span id="2">Second &amp; &lt;line&gt;.</span>',
        "Cell one",
        "Cell two",
        'See <span id="0">the link</span> on page <ph id="1">7</ph> of this<bx id="2"/>.'
        '<bx id="3"/><span id="4"> Inserted words.</span>',
        'Go <span id="0">right there</span>, now.',
        '<bx id="0"/><bx id="1"/><bx id="2"/><span id="3">Chapter one<br id="4"/>'
        '<ph id="5">3</ph></span>',
        'Outside text<bx id="0"/>',
        "Box text",
        "Box text",
        '<span id="0"><span id="1">Control text</span></span><bx id="2"/> non‑break<bx id="3"/>',
        "Footer text",
        "Header text",
    ]


def test_word_keeps_its_formats() -> None:
    document = docx.Document(io.BytesIO(shouted(opened(WORD, "a.docx"))))
    paragraphs = document.paragraphs
    assert [(run.text, run.bold) for run in paragraphs[1].runs] == [
        ("PLAIN AND ", None),
        ("BOLD", True),
        (" TEXT, ENDS.", None),
    ]
    assert paragraphs[0].style.name == "Heading 1"
    assert paragraphs[2].text == "ALL BOLD\tHERE\nSECOND & <LINE>."
    assert paragraphs[4].text == "SEE THE LINK ON PAGE 7 OF THIS."
    assert paragraphs[4].alignment == docx.enum.text.WD_ALIGN_PARAGRAPH.CENTER
    assert paragraphs[4].hyperlinks[0].runs[0].style.name == "Default Paragraph Font"
    assert paragraphs[8].text == " NON-BREAK"
    assert [cell.text for cell in document.tables[0].rows[0].cells] == ["CELL ONE", "CELL TWO"]
    section = document.sections[0]
    assert section.header.paragraphs[0].text == "HEADER TEXT"
    assert section.footer.paragraphs[0].text == "FOOTER TEXT"


def test_deleted_text_and_fields_stay() -> None:
    root = part(shouted(opened(WORD, "a.docx")), "word/document.xml")
    deleted = root.find(f".//{W}del")
    assert "".join(deleted.itertext()) == "deleted words"
    assert "".join(root.find(f".//{W}ins").itertext()) == " INSERTED WORDS."
    field = [(el.tag, el.text) for el in root.iter(f"{W}instrText")]
    assert [text for _, text in field] == [
        " PAGE ",
        ' HYPERLINK "http://x" ',
        "TOC",
        "PAGEREF _T",
    ]
    boxes = ["".join(box.itertext()) for box in root.iter(f"{W}txbxContent")]
    assert boxes == ["BOX TEXT", "BOX TEXT"]


def test_a_word_has_one_format() -> None:
    """That of most of its letters, but for what is raised or lowered on purpose."""
    bold, low = "<w:rPr><w:b/></w:rPr>", '<w:rPr><w:vertAlign w:val="subscript"/></w:rPr>'

    def unit(*runs: tuple[str, str]) -> str:
        xml = "".join(
            f'<w:r>{format}<w:t xml:space="preserve">{text}</w:t></w:r>' for format, text in runs
        )
        return texts(opened(word_document(f"<w:p {{ns}}>{xml}</w:p>"), "a.docx"))[5]

    assert unit(("", "Take the un"), (bold, "likely"), ("", " one")) == (
        'Take the <span id="0">unlikely</span> one'
    )
    assert unit(("", "A b"), (bold, "i"), ("", "gge"), (bold, "r d"), ("", "og")) == "A bigger dog"
    assert unit(("", "Take some H"), (low, "2"), ("", "O now")) == (
        'Take some H<span id="0">2</span>O now'
    )


def elements(data: bytes, name: str, uncounted: set[str]) -> Counter[str]:
    tags = (etree.QName(element).localname for element in part(data, name).iter(etree.Element))
    return Counter(tag for tag in tags if tag not in uncounted)


@pytest.mark.parametrize(
    ("name", "data", "main", "uncounted"),
    [
        (
            "a.docx",
            WORD,
            "word/document.xml",
            {"r", "t", "rPr", "b", "rStyle", "noProof", "u", "proofErr", "noBreakHyphen"},
        ),
        ("a.odt", TEXT, "content.xml", {"span"}),
    ],
)
def test_no_element_is_lost_whatever_the_model_does(
    name: str, data: bytes, main: str, uncounted: set[str]
) -> None:
    """Runs come and go; links, notes, fields, breaks, frames and bookmarks are all there, once."""
    file = opened(data, name)
    before = elements(data, main, uncounted)
    for seed in range(15):
        assert elements(served(file, hostile(seed)), main, uncounted) == before


def test_open_document_paragraphs() -> None:
    """Styles that only note a language or an editing session are no tags."""
    assert texts(opened(TEXT, "a.odt")) == [
        "The title",
        'Plain <span id="0">bold</span> text &amp; <span id="1">a link</span> end<bx id="2"/>.'
        '<br id="3"/>After on page <ph id="4">3</ph> today.',
        "Note text.",
        "Cell text",
        'Before <bx id="0"/> after',
        "In the box",
    ]


def test_open_document_keeps_its_formats() -> None:
    out = shouted(opened(TEXT, "a.odt"))
    paragraphs = [teletype.extractText(one) for one in load(io.BytesIO(out)).getElementsByType(P)]
    assert paragraphs[0] == "PLAIN BOLD TEXT & A LINK END1NOTE TEXT..\tAFTER ON PAGE 3 TODAY."
    assert paragraphs[1:3] == ["NOTE TEXT.", "CELL TEXT"]
    with zipfile.ZipFile(io.BytesIO(out)) as zipped:
        first = zipped.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert out[30:38] == b"mimetype"
        assert out[38:].startswith(zipped.read("mimetype"))
        assert b'<text:span text:style-name="Bold">BOLD</text:span>' in zipped.read("content.xml")


def test_tracked_changes_and_comments_of_open_documents_stay() -> None:
    root = part(TEXT, "content.xml")
    text = root.find(".//{urn:oasis:names:tc:opendocument:xmlns:office:1.0}text")
    tracked = (
        '<text:tracked-changes xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">'
        "<text:changed-region><text:deletion><text:p>Deleted words</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>"
    )
    text.insert(0, etree.fromstring(tracked))
    file = opened(with_part(TEXT, "content.xml", etree.tostring(root)), "a.odt")
    assert len(file.units) == 6
    assert b"Deleted words" in etree.tostring(part(shouted(file), "content.xml"))


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


BOMB = b"<a>" + b" " * (40 << 20)


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (zip_of({"[Content_Types].xml": BOMB}), "a.docx", "suspiciously"),
        (zip_of({"[Content_Types].xml": BOMB}, zipfile.ZIP_STORED), "a.docx", "larger than 32 MB"),
        (zip_of({f"{n}": b"" for n in range(5001)}), "a.docx", "more than 5000 parts"),
        (zip_of({"../../etc/passwd": b""}), "a.odt", "unsafe name"),
        (zip_of({"/etc/passwd": b""}), "a.odt", "unsafe name"),
        (zip_of({"a": b"x"}, zipfile.ZIP_BZIP2), "a.odt", "unusual"),
        (zip_of({"a": b""}), "a.docx", "incomplete"),
        (zip_of({"a": b""}), "a.odt", "no content.xml"),
        (WORD[:-100], "a.docx", "damaged"),
        (with_part(WORD, "word/vbaProject.bin", b"x"), "a.docx", "macros"),
        (with_part(WORD, "word/document.xml", None), "a.docx", "incomplete"),
        (with_part(WORD, "word/document.xml", b"<a"), "a.docx", "XML cannot be read"),
        (with_part(WORD, "word/document.xml", b"<a/>"), "a.docx", "unknown part"),
        (with_part(TEXT, "mimetype", b"application/x-other"), "a.odt", "no OpenDocument text"),
        (
            with_part(TEXT, "META-INF/manifest.xml", b"<m><encryption-data/></m>"),
            "a.odt",
            "without a password",
        ),
    ],
)
def test_hostile_or_foreign_zips_are_refused(data: bytes, name: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        opened(data, name)


def test_two_members_of_one_name_and_encrypted_members_are_refused() -> None:
    doubled = zip_of({"a.xml": b"1", "b.xml": b"2"}).replace(b"b.xml", b"a.xml")
    with pytest.raises(FileError, match="same name"):
        opened(doubled, "a.docx")
    data = bytearray(zip_of({"a": b"x"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(FileError, match="encrypted"):
        opened(bytes(data), "a.docx")


XXE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LAUGHS = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
NESTED = b"<tmx>" + b"<a>" * 300 + b"</a>" * 300 + b"</tmx>"


@pytest.mark.parametrize("prologue", [XXE, LAUGHS])
@pytest.mark.parametrize("name", ["a.tmx", "a.xliff", "a.docx", "a.odt"])
def test_entities_are_refused_in_every_xml(prologue: bytes, name: str) -> None:
    xml = prologue + b"<tmx>&x;</tmx>"
    if name == "a.docx":
        xml = with_part(WORD, "word/document.xml", xml)
    if name == "a.odt":
        xml = with_part(TEXT, "content.xml", xml)
    with pytest.raises(FileError, match="declares entities"):
        opened(xml, name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NESTED, "deeper than 256"),
        (b'<!DOCTYPE tmx SYSTEM "file:///etc/passwd"><tmx>&x;</tmx>', "not defined"),
        (b"<tmx>", "line 1"),
        (b"<html/>", "not TMX"),
        (b"", "no element"),
        (b"<tmx>\xff</tmx>", "UTF-8"),
        (b'<?xml version="1.0" encoding="utf-7"?><tmx/>', "'utf-7', is not known"),
    ],
)
def test_other_bad_xml_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        opened(data, "a.tmx")

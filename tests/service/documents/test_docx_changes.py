"""Tracked changes in Word: words that are changed in part, and page numbers."""

from __future__ import annotations

import io
import re
import zipfile

import pytest
from lxml import etree

from tests.service.documents.document_samples import opened, word_document
from tests.service.text.engines import run
from tests.service.text.test_kept import ROTATED, rotating

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def paragraph(marked: str) -> str:
    """`a[-b-][+c+]`: text, deleted and inserted."""
    xml = ""
    for number, part in enumerate(re.split(r"(\[-.*?-\]|\[\+.*?\+\])", marked)):
        who = f'w:id="{number}" w:author="x" w:date="2026-01-01T00:00:00Z"'
        name = {"[-": "del", "[+": "ins"}.get(part[:2])
        kind = "delText" if name == "del" else "t"
        text = part[2:-2] if name else part
        tagged = f'<w:r><w:{kind} xml:space="preserve">{text}</w:{kind}></w:r>'
        xml += f"<w:{name} {who}>{tagged}</w:{name}>" if name else tagged if text else ""
    return f"<w:p {{ns}}>{xml}</w:p>"


def rotated_paragraph(marked: str) -> etree._Element:
    file = opened(word_document(paragraph(marked)), "a.docx")
    out = file.rebuild([run(unit.text, unit.format, rotating) for unit in file.units])
    with zipfile.ZipFile(io.BytesIO(out)) as zipped:
        root = etree.fromstring(zipped.read("word/document.xml"))
    return list(root.iter(f"{W}p"))[-1]


def marked_of(element: etree._Element) -> str:
    text = ""
    for child in element:
        name = etree.QName(child).localname
        inner = "".join(child.itertext())
        text += {"del": f"[-{inner}-]", "ins": f"[+{inner}+]"}.get(name, inner)
    return text


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("The col[-ou-][+o+]r is here.", "The [-colour-][+color+] is here."),
        ("The dog[+s+] is here.", "The [-dog-][+dogs+] is here."),
        ("The dog[-s-] is here.", "The [-dogs-][+dog+] is here."),
        ("The [-in-]visible dog", "The [-invisible-][+visible+] dog"),
        ("The d[-i-]og[+gy+] is", "The [-diog-][+doggy+] is"),
        ("The col[-ou-][+o big do+]r", "The [-colour-][+colo big dor+]"),
        ("The [+un+][-in-]seen dog", "The [-inseen-][+unseen+] dog"),
        ("The dog [-cat-][+mouse+] is", "The dog [-cat-][+mouse+] is"),
        ("The dog[- and cat-] is", "The dog[- and cat-] is"),
        ("The dog [+is +]here", "The dog [+is+] here"),
        ("d[-a-]g the c[+a+]t", "[-dag-][+dg+] the [-ct-][+cat+]"),
    ],
)
def test_a_word_changed_in_part_is_changed_as_a_whole(marked: str, expected: str) -> None:
    rotated = re.sub(
        r"(\[-.*?-\])|([^\W\d_]+)", lambda m: m[1] or m[2].translate(ROTATED), expected
    )
    assert marked_of(rotated_paragraph(marked)) == rotated


def test_a_change_made_beside_another_is_its_authors_with_an_id_of_its_own() -> None:
    one, other = (
        rotated_paragraph("The dog[+s+] is here.").find(f"{W}{name}") for name in ("del", "ins")
    )
    assert one.get(f"{W}author") == other.get(f"{W}author") == "x"
    assert one.get(f"{W}id") == "1000000001"
    assert other.get(f"{W}id") == "1"


def test_changes_of_more_than_text_stay_as_they_are() -> None:
    xml = (
        "<w:p {ns}><w:r><w:t>The do</w:t></w:r><w:ins w:id='1'><w:r><w:t>g</w:t><w:tab/></w:r>"
        "</w:ins><w:r><w:t>s</w:t></w:r></w:p>"
    )
    file = opened(word_document(xml), "a.docx")
    assert file.units[5].text == 'The do<span id="0">g<br id="1"/></span>s'


FIELD = (
    '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> {} </w:instrText></w:r><w:r>'
    '<w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>{}</w:t></w:r><w:r>'
    '<w:fldChar w:fldCharType="end"/></w:r>'
)
SIMPLE = '<w:fldSimple w:instr=" {} \\* Arabic "><w:r><w:t>{}</w:t></w:r></w:fldSimple>'


@pytest.mark.parametrize("form", [FIELD, SIMPLE])
def test_page_numbers_stay_in_order_whatever_the_model_does(form: str) -> None:
    xml = (
        f"<w:p {{ns}}><w:r><w:t>Page</w:t></w:r>{form.format('PAGE', 3)}<w:r><w:t>of</w:t></w:r>"
        f"{form.format('NUMPAGES', 7)}{form.format('REF x', 9)}</w:p>"
    )
    file = opened(word_document(xml), "a.docx")
    units = [unit.text for unit in file.units]
    words = re.findall("<ph.*?</ph>", units[5])
    assert len(words) == 3
    units[5] = f"{words[2]} Seite {words[1]} von {words[0]}"
    with zipfile.ZipFile(io.BytesIO(file.rebuild(units))) as zipped:
        root = etree.fromstring(zipped.read("word/document.xml"))
    last = list(root.iter(f"{W}p"))[-1]
    assert "".join(text.text for text in last.iter(f"{W}t")) == "9 Seite 3 von 7"

"""Small files of every kind, and translators that can be seen to have worked."""

from __future__ import annotations

import io
import re
import zipfile

import docx
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from odf import draw, table
from odf.opendocument import OpenDocumentText
from odf.style import Style, TextProperties
from odf.text import A, H, Note, NoteBody, NoteCitation, P, PageNumber, Span, Tab

from service.documents import OpenFile, kind_of, open_file
from tests.service.text.engines import Translate, run


def opened(data: bytes, name: str, source: str = "en", target: str = "de") -> OpenFile:
    return open_file(data, kind_of(name, data), source, target)


def texts(file: OpenFile) -> list[str]:
    return [unit.text for unit in file.units]


def shout(text: str) -> str:
    """Words in capitals, tags and entities as they are."""
    return re.sub(
        r"(<[^>]*>|&[#\w]+;|%\w)|([^\W\d_]+)", lambda match: match[1] or match[2].upper(), text
    )


def shouted(file: OpenFile) -> bytes:
    return file.rebuild([shout(text) for text in texts(file)])


def served(file: OpenFile, translate: Translate) -> bytes:
    """A file through the service's text handling, with a model of the tests."""
    return file.rebuild([run(unit.text, unit.format, translate) for unit in file.units])


SRT = """1
00:00:01,000 --> 00:00:04,000 X1:40 X2:600
{\\an8}<i>Hello my <b>dear</b>
friend, how are you?</i>

2
00:00:05,000 --> 00:00:06,000
- Hi there, Tom.
- <i>Bye</i> & go on with this
line of words.
3
00:00:07,000 --> 00:00:08,000
<font color="red">Oh oh

4
00:00:09,000 --> 00:00:10,000
123
""".replace("\n", "\r\n")

VTT = """WEBVTT - title here
Kind: captions

NOTE
a note --> 00:00

STYLE
::cue { color: red }

id-one
00:01.000 --> 00:04.000 line:0 align:start
<v Bob>Hello &amp; <c.x>welcome</c> to the
<00:00:02.000>show</v>
"""

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4">
  <header srclang="en-US" datatype="plaintext"/>
  <body>
    <tu tuid="1">
      <tuv xml:lang="EN-us">
        <seg>Say <bpt i="1">&lt;b&gt;</bpt>my <hi>dear</hi><ept i="1">&lt;/b&gt;</ept> now. \
<ph x="1">{0}</ph> is here.</seg>
      </tuv>
    </tu>
    <tu><note>n</note><tuv xml:lang="fr"><seg>Salut</seg></tuv><tuv xml:lang="en"><seg>Hi
there</seg></tuv><tuv xml:lang="de-DE"><seg>Alt <ph/> x</seg></tuv></tu>
  </body>
</tmx>
"""

XLIFF_1 = """<?xml version="1.0" encoding="utf-8"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2" xmlns:m="urn:m">
  <file original="a" source-language="en-US" datatype="plaintext">
    <body>
      <trans-unit id="1" m:k="v">
        <source>Click <g id="1">here <x id="2"/> now</g>, please. <bpt id="3">[b]</bpt>Bold\
<ept id="3">[/b]</ept></source>
        <note>kept</note>
      </trans-unit>
      <trans-unit id="2" translate="no"><source>No</source></trans-unit>
      <trans-unit id="3" approved="yes"><source>No</source><target>Nein</target></trans-unit>
      <trans-unit id="4"><source>A copy</source><target state="new">A copy</target>\
<alt-trans><source>q</source><target>w</target></alt-trans></trans-unit>
      <trans-unit id="5"><source>One. T<g id="9">w</g>o.</source>\
<seg-source><mrk mtype="seg" mid="0">One.\
</mrk> <mrk mtype="seg" mid="1">T<g id="9">w</g>o.</mrk></seg-source></trans-unit>
      <trans-unit id="6"><source>Done</source><target>Fertig</target></trans-unit>
    </body>
  </file>
</xliff>
"""

XLIFF_2 = """<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en">
<file id="f"><unit id="u"><originalData><data id="d1">x</data></originalData>
<segment><source>Say <pc id="1" dataRefStart="d1">hi <ph id="2"/></pc> <sc id="3"/>now\
<ec startRef="3"/> <mrk id="m" translate="no">Foo Bar</mrk>.</source></segment>
<ignorable><source> </source></ignorable>
<segment state="final"><source>Final</source><target>Fin</target></segment>
</unit><unit id="v" translate="no"><segment><source>Never</source></segment></unit></file></xliff>
"""

PO = r"""# Title
msgid ""
msgstr ""
"Project-Id-Version: x\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=3; plural=(n%10==1 ? 0 : n%10>=2 ? 1 : 2);\n"

# c
#. auto
#: a.c:1
#, c-format
#| msgid "old"
msgctxt "menu"
msgid "Hello %s, \"you\"\n"
msgstr ""

msgid ""
"A long text that goes on and on, over several lines and further on, "
"in the source.\n"
"Second line\ttab."
msgstr ""

#: b.c
msgid "%d file"
msgid_plural "%d files"
msgstr[0] ""
msgstr[1] ""
msgstr[2] ""

msgid   "done"
msgstr "fertig"

#, fuzzy
msgid "almost"
msgstr "beinahe"

#~ msgid "obsolete"
#~ msgstr ""
"""

WORD_PARAGRAPHS = (
    """<w:p {ns}><w:pPr><w:jc w:val="center"/></w:pPr>
<w:r><w:t xml:space="preserve">See </w:t></w:r><w:proofErr w:type="spellStart"/>
<w:hyperlink r:id="rId9"><w:r><w:rPr><w:rStyle w:val="Hyperlink"/></w:rPr><w:t>the li</w:t></w:r>
<w:r><w:rPr><w:rStyle w:val="Hyperlink"/><w:noProof/></w:rPr><w:t>nk</w:t></w:r></w:hyperlink>
<w:r><w:t xml:space="preserve"> on page </w:t></w:r>
<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>
<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>7</w:t></w:r>
<w:r><w:fldChar w:fldCharType="end"/></w:r><w:r><w:t xml:space="preserve"> of this</w:t></w:r>
<w:r><w:footnoteReference w:id="2"/></w:r><w:r><w:t>.</w:t></w:r>
<w:del w:id="1" w:author="x"><w:r><w:delText>deleted words</w:delText></w:r></w:del>
<w:ins w:id="2" w:author="x"><w:r><w:t xml:space="preserve"> Inserted words.</w:t></w:r></w:ins>
</w:p>""",
    """<w:p {ns}><w:r><w:t xml:space="preserve">Go </w:t></w:r>
<w:r><w:fldChar w:fldCharType="begin"/></w:r>
<w:r><w:instrText> HYPERLINK "http://x" </w:instrText></w:r>
<w:r><w:fldChar w:fldCharType="separate"/></w:r>
<w:r><w:rPr><w:u w:val="single"/></w:rPr><w:t>right there</w:t></w:r>
<w:r><w:fldChar w:fldCharType="end"/></w:r><w:r><w:t>, now.</w:t></w:r></w:p>""",
    """<w:p {ns}><w:r><w:fldChar w:fldCharType="begin"/></w:r>
<w:r><w:instrText>TOC</w:instrText></w:r><w:r><w:fldChar w:fldCharType="separate"/></w:r>
<w:hyperlink w:anchor="_T"><w:r><w:t>Chapter one</w:t></w:r><w:r><w:tab/></w:r>
<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>PAGEREF _T</w:instrText></w:r>
<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>3</w:t></w:r>
<w:r><w:fldChar w:fldCharType="end"/></w:r></w:hyperlink></w:p>""",
    """<w:p {ns}><w:r><w:t>Outside text</w:t></w:r><w:r><mc:AlternateContent>
<mc:Choice Requires="wps"><w:drawing><wps:txbx><w:txbxContent><w:p><w:r><w:t>Box text</w:t></w:r>
</w:p></w:txbxContent></wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox>
<w:txbxContent><w:p><w:r><w:t>Box text</w:t></w:r></w:p></w:txbxContent></v:textbox></w:pict>
</mc:Fallback></mc:AlternateContent></w:r></w:p>""",
    """<w:p {ns}><w:sdt><w:sdtPr><w:id w:val="5"/></w:sdtPr><w:sdtContent>
<w:r><w:t>Control text</w:t></w:r></w:sdtContent></w:sdt><w:bookmarkStart w:id="3" w:name="b"/>
<w:r><w:t xml:space="preserve"> non</w:t></w:r><w:r><w:noBreakHyphen/><w:t>break</w:t></w:r>
<w:bookmarkEnd w:id="3"/></w:p>""",
)
WORD_NAMESPACES = (
    nsdecls("w", "r", "wp", "a")
    + ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
)


def word_document(*paragraphs: str) -> bytes:
    """A document by python-docx: headings, formats, a table, a header, a footer, and paragraphs
    as XML."""
    document = docx.Document()
    document.add_heading("A title", 1)
    paragraph = document.add_paragraph("Plain and ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" te")
    paragraph.add_run("xt, ends.")
    paragraph = document.add_paragraph()
    paragraph.add_run("All bold\there").bold = True
    paragraph.add_run().add_break()
    paragraph.add_run("Second & <line>.")
    document.add_paragraph("123")
    cells = document.add_table(1, 2)
    cells.cell(0, 0).text, cells.cell(0, 1).text = "Cell one", "Cell two"
    document.sections[0].header.paragraphs[0].text = "Header text"
    document.sections[0].footer.paragraphs[0].text = "Footer text"
    for xml in paragraphs or WORD_PARAGRAPHS:
        compact = xml.replace("\n", "").format(ns=WORD_NAMESPACES)
        document.element.body.insert(len(document.element.body) - 1, parse_xml(compact))
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def open_document_text() -> bytes:
    """A document by odfpy: a heading, formats, a link, a note, a field, a table, a frame."""
    document = OpenDocumentText()
    bold = Style(name="Bold", family="text")
    bold.addElement(TextProperties(fontweight="bold"))
    unseen = Style(name="T1", family="text")
    unseen.addElement(TextProperties(country="US", language="en"))
    document.automaticstyles.addElement(bold)
    document.automaticstyles.addElement(unseen)
    document.text.addElement(H(outlinelevel=1, text="The title"))
    paragraph = P(text="Plain ")
    for part in (Span(stylename=bold, text="bo"), Span(stylename=bold, text="ld")):
        paragraph.addElement(part)
    paragraph.addText(" te")
    paragraph.addElement(Span(stylename=unseen, text="xt"))
    paragraph.addText(" & ")
    paragraph.addElement(A(href="http://x", text="a link"))
    paragraph.addText(" end")
    note, body = Note(id="1", noteclass="footnote"), NoteBody()
    body.addElement(P(text="Note text."))
    note.addElement(NoteCitation(text="1"))
    note.addElement(body)
    paragraph.addElement(note)
    paragraph.addText(".")
    paragraph.addElement(Tab())
    paragraph.addText("After on page ")
    paragraph.addElement(PageNumber(text="3"))
    paragraph.addText(" today.")
    document.text.addElement(paragraph)
    grid, row, cell = table.Table(), table.TableRow(), table.TableCell()
    cell.addElement(P(text="Cell text"))
    row.addElement(cell)
    grid.addElement(row)
    document.text.addElement(grid)
    framed, frame, box = P(text="Before "), draw.Frame(width="2cm", height="1cm"), draw.TextBox()
    box.addElement(P(text="In the box"))
    frame.addElement(box)
    framed.addElement(frame)
    framed.addText(" after")
    document.text.addElement(framed)
    buffer = io.BytesIO()
    document.write(buffer)
    return buffer.getvalue()


def with_part(data: bytes, name: str, content: bytes | None) -> bytes:
    """The zip with another content for a member, or without it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as zipped, zipfile.ZipFile(buffer, "w") as new:
        for member in zipped.namelist():
            if member != name:
                new.writestr(member, zipped.read(member))
        if content is not None:
            new.writestr(name, content)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """A file of every kind, by its name."""
    return {
        "a.txt": b"Hello world.\n\n\tSecond paragraph here.\r\n",
        "a.md": b"# Title\n\nSome **bold** text.\n\n```\ncode\n```\n",
        "a.html": b"<!doctype html><p>Some <b>bold</b> text &amp; more.</p><pre>x</pre>\n",
        "a.srt": SRT.encode("utf-8-sig"),
        "a.vtt": VTT.encode(),
        "a.tmx": TMX.encode(),
        "a.xliff": XLIFF_1.encode(),
        "b.xlf": XLIFF_2.encode(),
        "a.po": PO.encode(),
        "a.docx": word_document(),
        "a.odt": open_document_text(),
    }

"""What a person has translated is translated anew where that is asked for, and only there."""

from __future__ import annotations

import polib
import pytest

from service.documents import OpenFile, kind_of, open_file
from tests.service.documents.document_samples import shouted

TMX = """<tmx version="1.4"><header srclang="en"/><body>
<tu tuid="1"><tuv xml:lang="en"><seg>We saw it</seg></tuv>
<tuv xml:lang="de" creationid="ANN" changeid="BOB" changedate="20260101T000000Z" usagecount="2"
><prop type="x-ConfirmationLevel">Approved</prop><note>n</note><seg>Ja</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>7</seg></tuv><tuv xml:lang="de"><seg>sieben</seg></tuv></tu>
</body></tmx>"""
UNITS = """<trans-unit id="1"><source>We saw it</source>\
<target state="translated" phase-name="p">Ja</target></trans-unit>\
<trans-unit id="2" approved="yes"><source>We left</source><target>Gut</target></trans-unit>\
<trans-unit id="3"><source>We sat</source><target state="final">Aus</target></trans-unit>\
<trans-unit id="4" translate="no"><source>We ran</source><target>Lief</target></trans-unit>\
<trans-unit id="5"><source>One. Two.</source><seg-source><mrk mtype="seg" mid="0">One.</mrk> \
<mrk mtype="seg" mid="1">Two.</mrk></seg-source><target><mrk mtype="seg" mid="0">Eins.</mrk> \
<mrk mtype="seg" mid="1"/></target></trans-unit>"""
XLIFF_1 = f"""<xliff version="1.2"><file source-language="en" target-language="de" original="a" \
datatype="x"><body>{UNITS}</body></file></xliff>"""
XLIFF_2 = """<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" \
trgLang="de"><file id="f"><unit id="u"><segment state="reviewed" subState="x:y"><source>We saw it\
</source><target>Ja</target></segment><segment id="s" state="final"><source>We left</source>\
<target>Gut</target></segment></unit></file></xliff>"""
PO = r"""msgid ""
msgstr ""
"Language: de\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Content-Transfer-Encoding: 8bit\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

# by Ann
#, fuzzy
#| msgid "We see it"
msgid "We saw it"
msgstr "Wir sehen es"

#, c-format
msgid "%d dog"
msgid_plural "%d dogs"
msgstr[0] "%d Hund"
msgstr[1] "%d Hunde"

#, c-format
msgid "of %s"
msgstr "von %s"

#~ msgid "gone"
#~ msgstr "weg"
"""


def replacing(text: str, name: str) -> OpenFile:
    data = text.encode()
    return open_file(data, kind_of(name, data), "en", "de", replace=True)


@pytest.mark.parametrize(("text", "name"), [(TMX, "a.tmx"), (XLIFF_2, "a.xlf"), (PO, "a.po")])
def test_what_is_translated_stays_unless_asked(text: str, name: str) -> None:
    data = text.encode()
    assert not open_file(data, kind_of(name, data), "en", "de").units


def test_a_variant_of_tmx_is_replaced_and_claims_no_person() -> None:
    out = shouted(replacing(TMX, "a.tmx")).decode()
    assert '<tuv xml:lang="de"><note>n</note><seg>WE SAW IT</seg></tuv>' in out
    assert out.count("<tuv") == 4
    assert "<seg>sieben</seg>" in out


def test_targets_of_xliff_are_replaced_but_for_approved_ones() -> None:
    file = replacing(XLIFF_1, "a.xliff")
    out = shouted(file).decode()
    state = 'state="needs-review-translation" state-qualifier="leveraged-mt"'
    assert f"<target {state}>WE SAW IT</target>" in out
    assert (
        f'<target {state}><mrk mtype="seg" mid="0">ONE.</mrk> <mrk mtype="seg" mid="1">TWO.' in out
    )
    for kept in (
        "<target>Gut</target>",
        '<target state="final">Aus</target>',
        "<target>Lief</target>",
    ):
        assert kept in out
    warnings = file.warnings(["x"] * len(file.units))
    assert [(one.place, one.code) for one in warnings] == [
        ("2", "not_translated"),
        ("3", "not_translated"),
    ]
    file = replacing(XLIFF_2, "a.xlf")
    out = shouted(file).decode()
    assert 'state="translated" subState="quickstudy:machine"' in out
    assert "<target>WE SAW IT</target>" in out
    assert "<target>Gut</target>" in out
    assert [one.place for one in file.warnings(["x"])] == ["u/s"]


def test_messages_of_gettext_are_replaced_and_fuzzy() -> None:
    file = replacing(PO, "a.po")
    out = file.rebuild(["WE SAW IT", "%d DOG", "%d DOGS", "OF"]).decode()
    catalogue = polib.pofile(out)
    first, plural, lost, _ = catalogue
    assert (first.msgstr, first.fuzzy, first.previous_msgid) == ("WE SAW IT", True, None)
    assert first.tcomment == "by Ann"
    assert (plural.msgstr_plural, plural.fuzzy) == ({0: "%d DOG", 1: "%d DOGS"}, True)
    assert (lost.msgstr, lost.fuzzy) == ("von %s", False), "a translation without %s is not taken"
    assert out.endswith('#~ msgstr "weg"\n')
    assert len(file.warnings(["WE SAW IT", "%d DOG", "%d DOGS", "OF"])) == 1

"""TMX, XLIFF and gettext catalogues: what is filled, and what is left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

import polib
import pytest
from lxml import etree

from service.documents import FileError
from tests.service.documents.document_samples import (
    PO,
    TMX,
    XLIFF_1,
    XLIFF_2,
    opened,
    served,
    shouted,
    texts,
)
from tests.service.text.engines import hostile


def test_tmx_gets_a_variant_beside_the_source() -> None:
    """What a person wrote stays."""
    file = opened(TMX.encode(), "a.tmx")
    assert texts(file) == [
        'Say <span id="0">my <span id="1">dear</span></span> now. <x id="2"/> is here.'
    ]
    new = """
      <tuv xml:lang="de">
        <seg>SAY <bpt i="1">&lt;b&gt;</bpt>MY <hi>DEAR</hi><ept i="1">&lt;/b&gt;</ept> NOW. \
<ph x="1">{0}</ph> IS HERE.</seg>
      </tuv>"""
    expected = TMX.replace("\n    </tu>", f"{new}\n    </tu>", 1)
    assert shouted(file).decode() == expected


def memory(*variants: str, srclang: str = "en") -> bytes:
    units = "".join(f"<tu>{variant}</tu>" for variant in variants)
    return f'<tmx version="1.4"><header srclang="{srclang}"/><body>{units}</body></tmx>'.encode()


SOURCE = '<tuv xml:lang="en"><seg>We saw it</seg></tuv>'


@pytest.mark.parametrize("segment", ["<seg/>", "<seg> </seg>", '<seg><ph x="1">{0}</ph></seg>', ""])
def test_an_empty_variant_is_filled_and_claims_nothing(segment: str) -> None:
    """Whoever made the empty one has not made the translation."""
    claims = 'creationid="ANN" changeid="ANN" changedate="20260101T000000Z" usagecount="3"'
    data = memory(f'{SOURCE}<tuv xml:lang="de-DE" datatype="x" {claims}>{segment}</tuv>')
    expected = memory(f'{SOURCE}<tuv xml:lang="de-DE" datatype="x"><seg>WE SAW IT</seg></tuv>')
    assert shouted(opened(data, "a.tmx")) == expected


def test_a_variant_of_another_region_is_another_translation() -> None:
    given = '<tuv xml:lang="pt-PT"><seg>Vimos</seg></tuv>'
    data = memory(SOURCE + given)
    assert not opened(data, "a.tmx", target="pt").units
    assert shouted(opened(data, "a.tmx", target="pt-BR")) == memory(
        f'{SOURCE}<tuv xml:lang="pt-BR"><seg>WE SAW IT</seg></tuv>{given}'
    )


def test_any_language_but_the_target_may_be_the_source_where_the_file_says_so() -> None:
    data = memory(f'<tuv xml:lang="de"><seg/></tuv>{SOURCE}', srclang="*all*")
    expected = memory(f'<tuv xml:lang="de"><seg>WE SAW IT</seg></tuv>{SOURCE}', srclang="*all*")
    assert shouted(opened(data, "a.tmx", "auto")) == expected


def test_the_filled_one_of_two_variants_counts() -> None:
    data = memory(f'{SOURCE}<tuv xml:lang="de"/><tuv xml:lang="de-AT"><seg>Ja</seg></tuv>')
    assert not opened(data, "a.tmx").units


def test_icu_choices_and_text_in_codes_of_tmx() -> None:
    choice = "{n, plural, one {a dog} other {dogs}}"
    data = memory(
        f'<tuv xml:lang="en"><seg>{choice}</seg></tuv>',
        f'<tuv xml:lang="en"><seg>{choice} {choice}</seg></tuv>',
        '<tuv xml:lang="en"><seg>We <ph>x<sub>alt</sub></ph></seg></tuv>',
    )
    file = opened(data, "a.tmx")
    assert b"<seg>{n, plural, one {A DOG} other {DOGS}}</seg>" in shouted(file)
    assert [one.place for one in file.warnings([])] == ["unit 2", "unit 3"]


def test_tmx_without_the_source_language_is_refused() -> None:
    with pytest.raises(FileError, match="nothing in 'es', only in: EN-us, de-DE, en, fr"):
        opened(TMX.encode(), "a.tmx", "es")
    assert len(opened(TMX.encode(), "a.tmx", "fr", "es").units) == 1
    assert len(opened(TMX.encode(), "a.tmx", "auto").units) == 1


def test_xliff_1_gets_targets_where_there_are_none() -> None:
    file = opened(XLIFF_1.encode(), "a.xliff")
    assert texts(file) == [
        'Click <span id="0">here <x id="1"/> now</span>, please. <span id="2">Bold</span>',
        "A copy",
        "One.",
        'T<span id="0">w</span>o.',
    ]
    state = 'state="needs-review-translation" state-qualifier="leveraged-mt"'
    new = f"""
        <target {state}>CLICK <g id="1">HERE <x id="2"/> NOW</g>, PLEASE. <bpt id="3">[b]</bpt>BOLD\
<ept id="3">[/b]</ept></target>"""
    segments = f"""<target {state}><mrk mtype="seg" mid="0">ONE.</mrk> <mrk mtype="seg" mid="1">T\
<g id="9">W</g>O.</mrk></target>"""
    expected = XLIFF_1.replace("\n        <note>", f"{new}\n        <note>")
    expected = expected.replace('<target state="new">A copy<', f"<target {state}>A COPY<")
    expected = expected.replace("</seg-source>", f"</seg-source>{segments}")
    expected = expected.replace('"plaintext">', '"plaintext" target-language="de">')
    assert canonical(shouted(file)) == canonical(expected.encode())


def test_xliff_2_gets_targets_where_there_are_none() -> None:
    file = opened(XLIFF_2.encode(), "a.xlf")
    assert texts(file) == [
        'Say <span id="0">hi <x id="1"/></span> <span id="2">now</span> <ph id="3">Foo Bar</ph>.'
    ]
    new = """<target>SAY <pc id="1" dataRefStart="d1">HI <ph id="2"/></pc> <sc id="3"/>NOW\
<ec startRef="3"/> <mrk id="m" translate="no">Foo Bar</mrk>.</target>"""
    expected = XLIFF_2.replace(".</source></segment>", f".</source>{new}</segment>", 1)
    expected = expected.replace(
        "<segment>", '<segment state="translated" subState="quickstudy:machine">', 1
    )
    expected = expected.replace('srcLang="en"', 'srcLang="en" trgLang="de"')
    assert canonical(shouted(file)) == canonical(expected.encode())


def canonical(data: bytes) -> bytes:
    return etree.tostring(etree.fromstring(data), method="c14n")


@pytest.mark.parametrize(("name", "data"), [("a.xliff", XLIFF_1), ("a.xlf", XLIFF_2)])
def test_xliff_for_other_languages_is_refused(name: str, data: str) -> None:
    with pytest.raises(FileError, match="choose 'en' as its source"):
        opened(data.encode(), name, "fr")
    for said in ('source-language="en-US"', 'srcLang="en"'):
        data = data.replace(said, said + f' {"target-language" if "-" in said else "trgLang"}="es"')
    with pytest.raises(FileError, match="choose 'es' as target"):
        opened(data.encode(), name)
    assert opened(data.encode(), name, "auto", "es").units


@pytest.mark.parametrize(("name", "data"), [("a.xliff", XLIFF_1), ("a.xlf", XLIFF_2)])
def test_inline_codes_survive_any_model(name: str, data: str) -> None:
    """Each target has the codes of its source, once each."""
    file = opened(data.encode(), name)
    for seed in range(20):
        root = etree.fromstring(served(file, hostile(seed)))
        for source in root.iter("{*}source"):
            target = source.getparent().find("{*}target")
            if target is not None and target.get("state") != "new":
                assert codes_of(target) == codes_of(source)


def codes_of(element: etree._Element) -> list[tuple[str, str]]:
    return sorted(
        (etree.QName(code).localname, code.get("id", ""))
        for code in element.iterdescendants()
        if code.get("mtype") != "seg"
    )


def test_the_encoding_and_line_endings_of_xml_stay() -> None:
    data = TMX.replace("UTF-8", "ISO-8859-1").replace("Salut", "Tschüß").replace("\n", "\r\n")
    file = opened(data.encode("latin-1"), "a.tmx")
    out = file.rebuild(["Grüße €"])
    assert b"<seg>Gr\xfc\xdfe &#8364;<bpt" in out
    assert b"Tsch\xfc\xdf" in out
    assert out.count(b"\n") == out.count(b"\r\n")
    assert out.startswith(data[: data.index("<tmx")].encode())


def test_po_gets_its_empty_strings_and_no_other_line_changes() -> None:
    file = opened(PO.encode(), "a.po")
    assert texts(file) == [
        'Hello %s, "you"\n',
        "A long text that goes on and on, over several lines and further on, in the source.\n"
        "Second line\ttab.",
        "%d file",
        "%d files",
    ]
    out = shouted(file).decode()
    kept = [line for line in PO.splitlines() if line not in ('msgstr ""', "#, c-format")]
    lines = iter(out.splitlines())
    assert all(any(line == one for one in lines) for line in kept if not line.startswith("msgstr["))
    entries = polib.pofile(out)
    assert [(entry.msgstr, entry.flags) for entry in entries][:2] == [
        ('HELLO %s, "YOU"\n', ["fuzzy", "c-format"]),
        (texts(file)[1].upper(), ["fuzzy"]),
    ]
    assert entries[2].msgstr_plural == {0: "%d FILE", 1: "%d FILES", 2: "%d FILES"}
    assert (entries[3].msgstr, entries[3].flags) == ("fertig", [])
    assert (entries[4].msgstr, entries[5].msgstr) == ("beinahe", "")


def test_po_becomes_utf8_when_its_encoding_has_not_the_characters() -> None:
    data = PO.replace("UTF-8", "ISO-8859-1").replace("fertig", "grün").encode("latin-1")
    out = opened(data, "a.po").rebuild(["Привет %s\n", "a", "b", "c"]).decode("utf-8")
    assert "charset=UTF-8" in out
    assert "grün" in out
    assert polib.pofile(out)[0].msgstr == "Привет %s\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('msgid "a"\nmsgid "b"\nmsgstr ""\n', "before line 2"),
        ('msgid "a"\nhello\n', "line 2 is none"),
        ('msgid "a"\nmsgstr ""\nmsgstr[0] ""\n', "has both msgstr and"),
        ('"lost"\n', "line 1 goes on"),
        ('msgid "a"\nmsgstr ""\nmsgstr ""\n', "line 3 has msgstr again"),
        ('msgid "a"b"\nmsgstr ""\n', "line 1 is none"),
    ],
)
def test_a_broken_catalogue_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        opened(text.encode(), "a.po")


@pytest.mark.skipif(which("msgfmt") is None, reason="gettext is not installed")
def test_gettext_finds_no_fault(tmp_path: Path) -> None:
    """`msgfmt --check` with the machine's translations taken as reviewed."""
    path = tmp_path / "a.po"
    path.write_bytes(shouted(opened(PO.encode(), "a.po")).replace(b"fuzzy, ", b""))
    command = ["msgfmt", "--check-format", "-o", tmp_path / "a.mo", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

"""What holds for files of every kind."""

from __future__ import annotations

import copy
import html
import io
import random
import re
import zipfile

import lxml.html
import polib
import pytest
from lxml import etree
from markdown_it import MarkdownIt

from service.documents import FILE_KINDS, READERS, FileError, kind_of, open_file
from service.text.glossary import Glossary
from tests.service.documents.document_samples import (
    opened,
    samples,
    served,
    shouted,
    texts,
    with_part,
)
from tests.service.text.engines import hostile, run, shout
from tests.service.text.test_kept import ROTATED, rotating

SAMPLES = samples()
NAMES = list(SAMPLES)
MONOLINGUAL = [name for name in NAMES if name.rsplit(".")[-1] not in ("tmx", "xliff", "xlf", "po")]


def contents(data: bytes) -> object:
    """A zip's members, or the bytes."""
    if not data.startswith(b"PK"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return [(name, zipped.read(name)) for name in zipped.namelist()]


def test_every_kind_has_a_reader_and_a_sample() -> None:
    assert {kind.extension for kind in FILE_KINDS.values()} == set(READERS)
    assert {FILE_KINDS[name.split(".")[1]].extension for name in NAMES} == set(READERS)


@pytest.mark.parametrize("name", MONOLINGUAL)
def test_what_is_not_changed_comes_back_byte_for_byte(name: str) -> None:
    file = opened(SAMPLES[name], name)
    assert file.units
    assert contents(file.rebuild(texts(file))) == contents(SAMPLES[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_can_be_rebuilt_again_and_read_again(name: str) -> None:
    file = opened(SAMPLES[name], name)
    assert shouted(file) == shouted(file)
    assert list(opened(SAMPLES[name], name).units) == list(file.units)
    again = opened(shouted(file), name)
    if name in MONOLINGUAL:
        assert len(again.units) == len(file.units)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_translations_is_checked(name: str) -> None:
    file = opened(SAMPLES[name], name)
    with pytest.raises(ValueError, match="translations for"):
        file.rebuild([*texts(file), "one more"])


@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_model_does_the_file_opens_again(name: str) -> None:
    """Whatever a model drops, doubles or invents, what comes out can be read."""
    file = opened(SAMPLES[name], name)
    served(file, shout)
    for seed in range(6):
        opened(served(file, hostile(seed)), name)


@pytest.mark.parametrize("name", NAMES)
def test_broken_translations_make_a_file_that_opens(name: str) -> None:
    """What the service never gives: empty, cut, doubled, crossed, with controls in it."""
    file = opened(SAMPLES[name], name)
    for spoil in (
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text + text,
        lambda text: text[::-1],
        lambda text: "\x00\x0b<\ud800&\ufffe" + text,
        lambda text: '</span><span id="0"><span id="7"/><ph id="1">',
    ):
        opened(file.rebuild([spoil(text) for text in texts(file)]), name)


TERM = "<i>x</i> & *y*"
WORDS = ("text", "hello", "my", "title", "hi", "copy", "paragraph")
JOINED = TERM.replace("<", "<\u2060")


def text_of(data: bytes, name: str) -> str:
    """What a reader of a file sees, by other libraries than ours."""
    kind = name.rsplit(".")[-1]
    if kind in ("docx", "odt"):
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            data = zipped.read(MAIN_PARTS[name])
    if kind == "po":
        return "".join(entry.msgstr for entry in polib.pofile(data.decode()))
    if kind == "md":
        data = MarkdownIt("commonmark").render(data.decode()).encode()
    if kind == "vtt":
        return html.unescape(re.sub("<[^>]*>", "", data.decode()))
    if kind in ("txt", "srt"):
        return data.decode("utf-8-sig")
    tree = lxml.html.fromstring(data) if kind in ("md", "html") else etree.fromstring(data)
    assert "i" not in {etree.QName(one).localname for one in tree.iter(etree.Element)}
    return "".join(str(part) for part in tree.itertext())


@pytest.mark.parametrize("name", NAMES)
def test_terms_of_a_glossary_are_text_in_every_kind(name: str) -> None:
    file = opened(SAMPLES[name], name)
    glossary = Glossary(dict.fromkeys(WORDS, TERM))
    out = file.rebuild([run(unit.text, unit.format, glossary=glossary) for unit in file.units])
    seen = re.sub(r"\s+", " ", text_of(out, name))
    assert (JOINED if name.endswith("srt") else TERM) in seen
    assert len(opened(out, name).units) == len(file.units) or name not in MONOLINGUAL


def mutants(data: bytes, seed: int) -> bytes:
    """The file with some bytes changed, cut out or doubled."""
    generator = random.Random(seed)
    changed = bytearray(data)
    for _ in range(generator.randrange(1, 6)):
        at = generator.randrange(len(changed) + 1)
        length = generator.choice((1, 1, 2, 8, 40))
        match generator.randrange(4):
            case 0:
                changed[at : at + length] = generator.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                other = generator.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + length]
    return bytes(changed)


@pytest.mark.parametrize("name", NAMES)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    """Only FileError comes out of files that are damaged."""
    kind = kind_of(name, SAMPLES[name])
    refused = 0
    for seed in range(60):
        data = mutants(SAMPLES[name], seed)
        try:
            shouted(open_file(data, kind, "en", "de", 50))
        except FileError:
            refused += 1
    assert refused < 60 or kind.zipped


MAIN_PARTS = {"a.docx": "word/document.xml", "a.odt": "content.xml"}


def reshaped(xml: bytes, seed: int) -> bytes:
    """XML with elements removed, doubled, moved, renamed and emptied; it is well formed."""
    generator = random.Random(seed)
    root = etree.fromstring(xml)
    elements = list(root.iterdescendants(etree.Element))
    for _ in range(generator.randrange(1, 12)):
        one, other = generator.choice(elements), generator.choice(elements)
        match generator.randrange(6):
            case 0 if one.getparent() is not None:
                one.getparent().remove(one)
            case 1:
                other.append(copy.deepcopy(one))
            case 2 if one not in other.iterancestors() and one is not other:
                other.insert(0, one)
            case 3:
                one.tag = other.tag
            case 4:
                one.attrib.clear()
            case 5:
                one.text = one.tail = "some words"
    return etree.tostring(root)


@pytest.mark.parametrize("name", ["a.docx", "a.odt", "a.tmx", "a.xliff", "b.xlf"])
def test_reshaped_xml_is_read_or_refused(name: str) -> None:
    """Elements in unlikely places, also within zips, where changed bytes do not reach."""
    kind = kind_of(name, SAMPLES[name])
    read = 0
    for seed in range(40):
        if kind.zipped:
            with zipfile.ZipFile(io.BytesIO(SAMPLES[name])) as zipped:
                xml = zipped.read(MAIN_PARTS[name])
            data = with_part(SAMPLES[name], MAIN_PARTS[name], reshaped(xml, seed))
        else:
            data = reshaped(SAMPLES[name], seed)
        try:
            shouted(open_file(data, kind, "en", "de"))
            read += 1
        except FileError:
            continue
    assert read > 10


MARKED = {
    "a.xliff": (
        '<xliff version="1.2"><file source-language="en" target-language="de" original="a" '
        'datatype="x"><body><trans-unit id="1"><source>{}</source></trans-unit></body></file>'
        "</xliff>",
        '<g id="1">',
        "</g>",
    ),
    "b.xlf": (
        '<xliff version="2.0" srcLang="en" trgLang="de"><file id="f"><unit id="u"><segment>'
        "<source>{}</source></segment></unit></file></xliff>",
        '<pc id="1">',
        "</pc>",
    ),
    "a.tmx": (
        '<tmx version="1.4"><header srclang="en"/><body><tu><tuv xml:lang="en"><seg>{}</seg></tuv>'
        "</tu></body></tmx>",
        "<hi>",
        "</hi>",
    ),
    "a.srt": ("1\n00:00:01,000 --> 00:00:04,000\n{}\n", "<i>", "</i>"),
    "a.vtt": ("WEBVTT\n\n00:01.000 --> 00:04.000\n{}\n", "<c.loud>", "</c>"),
}
"""Files of one sentence, and a tag."""


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("final", [".", "!", "?", "...", ".)"])
def test_the_final_mark_stays_on_its_side_of_a_code(name: str, final: str) -> None:
    before, start, end = MARKED[name]
    for source in (
        f"this is {start}very big{final}{end}",
        f"this is {start}very big{end}{final}",
        f"we saw it. this is {start}very big{final}{end} they slept.",
    ):
        expected = re.sub(
            r"<[^>]*>|(\w+)", lambda m: m[1].translate(ROTATED) if m[1] else m[0], source
        )
        out = served(opened(before.format(source).encode(), name), rotating).decode()
        assert " ".join(expected.split()) in " ".join(out.split())

"""Keys of menus and buttons in messages."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import pytest

from service.documents import READERS
from service.text.accelerators import put_back, put_in, take_out
from tests.service.text.engines import run


@pytest.mark.parametrize(
    ("message", "text", "translation", "expected"),
    [
        ("_Save", "Save", "Salvar", "_Salvar"),
        ("&Open file…", "Open file…", "Abrir arquivo…", "&Abrir arquivo…"),
        ("Save _As", "Save As", "Salvar como", "Salvar _como"),
        ("E_xit", "Exit", "Sair", "_Sair"),
        ("Ex&it now", "Exit now", "Ir agora", "&Ir agora"),
        ("_Save &As…", "Save As…", "Salvar como…", "_Salvar &como…"),
        ("_Find {name}", "Find {name}", "{name} achar", "{name} _achar"),
        ("_Find %(name)s", "Find %(name)s", "%(name)s achar", "%(name)s _achar"),
        ("_Go", "Go", "行", "_行"),
        ("_Go", "Go", "42", "42"),
        ("C_olour", "Colour", "Die Farbe", "_Die Farbe"),
        ("C_olour", "Colour", "Die Organe", "Die _Organe"),
        ("Sa~ve", "Save", "Salvar", "~Salvar"),
        ("~File", "File", "Arquivo", "~Arquivo"),
        ("Propert&ies", "Properties", "Propriedades", "&Propriedades"),
        ("Cu&t", "Cut", "Recortar tudo", "Recortar &tudo"),
        ("&Find", "Find", "P & F", "P & F"),
        ("&Open\tCtrl+D", "Open\tCtrl+D", "Datei\tCtrl+D", "&Datei\tCtrl+D"),
        ("&Open\tCtrl+O", "Open\tCtrl+O", "Datei\tCtrl+O", "&Datei\tCtrl+O"),
    ],
)
def test_keys_are_put_before_a_letter_of_the_translation(
    message: str, text: str, translation: str, expected: str
) -> None:
    without, accelerators = take_out(message)
    assert without == text
    assert put_back(without, accelerators) == message
    assert put_in(translation, accelerators) == expected


@pytest.mark.parametrize(
    "message",
    [
        "about ~5", "~/notes", "Black & white", "It is the _name of it.", "Snake_case",
        "R&D costs", "snake_case", "Save & exit", "a &amp; b", "&lt;b", "_one_ word", "&A and &B",
        "__init__", "https://a.example/?x&y", "{_x} is", "Smith&Sons",
        "see __NAME__", "_Go\non", "_" + "long " * 20,
    ],
)  # fmt: skip
def test_other_marks_stay(message: str) -> None:
    assert take_out(message) == (message, ())
    assert put_in("x", ()) == "x"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("_Open", "_BCRA"),
        ("&Save as", "&FNIR nf"),
        ("Sa~ve", "~FNIR"),
        ("&Open the dog\tCtrl+O", "&BCRA gur qbt\tCtrl+O"),
        ("Open\tCtrl+Shift+O", "BCRA\tCtrl+Shift+O"),
        ("_Open {name}…", "_BCRA {name}…"),
        ("the dog (&S)", "gur qbt (&S)"),
        ("R&D and Q&A", "E&Q naq D&N"),
        ("dogs & cats", "qbtf & pngf"),
        ("- _Open\n- _Close\n", "- _BCRA\n- _PYBFR\n"),
        ("&Save. &Open", "&FNIR. &BCRA"),
        ("Save. &Open", "FNIR. &BCRA"),
        ("42 _犬", "42 _犬"),
        ("_犬", "_犬"),
        ("_{name}", "_{name}"),
    ],
)
def test_labels_of_a_text_keep_their_keys(label: str, expected: str) -> None:
    def rotating(texts: Sequence[str]) -> list[str]:
        return [codecs.encode(text, "rot13") for text in texts]

    assert run(label, translate=rotating).lower() == expected.lower()


def test_a_repaired_label_keeps_its_key() -> None:
    def careless(texts: Sequence[str]) -> list[str]:
        return [text.replace("Boston", "").upper() for text in texts]

    translated = run("_Open the {name}", translate=careless)
    assert translated.startswith("_OPEN")
    assert "{name}" in translated


def test_a_catalogue_gets_its_keys_back() -> None:
    data = b'msgid "_Save &As"\nmsgstr ""\n\nmsgid "R&D"\nmsgstr ""\n'
    catalogue = READERS["po"](data, "en", "pt", 1000)
    assert [unit.text for unit in catalogue.units] == ["Save As", "R&D"]
    assert catalogue.rebuild(["Salvar como", "I&D"]).endswith(
        b'#, fuzzy\nmsgid "_Save &As"\nmsgstr "_Salvar &como"\n\n'
        b'#, fuzzy\nmsgid "R&D"\nmsgstr "I&D"\n'
    )

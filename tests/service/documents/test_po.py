"""Catalogues as programmers and gettext write them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from shutil import which

import polib
import pytest

from service.documents import UnitWarning
from service.documents.formats import SYNTAXES, fitted
from tests.service.documents.document_samples import opened
from tests.service.text.engines import run
from tests.service.text.test_kept import rotated, rotating

HEADER = (
    'msgid ""\nmsgstr ""\n"Language: de\\n"\n"MIME-Version: 1.0\\n"\n'
    '"Content-Type: text/plain; charset=UTF-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n'
    '"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
)
TEMPLATE = (
    '#, fuzzy\nmsgid ""\nmsgstr ""\n"Project-Id-Version: P\\n"\n"Language: \\n"\n'
    '"Content-Type: text/plain; charset=CHARSET\\n"\n"Content-Transfer-Encoding: ENCODING\\n"\n'
    '"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\\n"\n\n'
)
needs_gettext = pytest.mark.skipif(which("msgfmt") is None, reason="gettext is not installed")
Translate = Callable[[Sequence[str]], list[str]]


def filled(
    body: str, header: str = HEADER, target: str = "de", translate: Translate = rotating
) -> tuple[str, list[UnitWarning]]:
    file = opened((header + body).encode(), "a.po", target=target)
    translations = [run(unit.text, unit.format, translate) for unit in file.units]
    return file.rebuild(translations).decode(), list(file.warnings(translations))


def check(catalogue: str) -> None:
    """`msgfmt --check` with the machine's translations taken as reviewed."""
    reviewed = catalogue.replace("#, fuzzy, ", "#, ").replace("#, fuzzy\n", "")
    command = ["msgfmt", "--check", "--output-file=/dev/null", "-"]
    checked = subprocess.run(command, input=reviewed.encode(), capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


def test_flags_of_an_obsolete_entry_are_its_own() -> None:
    body = (
        '#, fuzzy\n#~ msgid "old"\n#~ msgstr "alt"\n\nmsgid "The dog"\nmsgstr ""\n'
        '#, fuzzy\n#~ msgid "x"\n#~ msgstr ""\nmsgid "The cat"\nmsgstr ""\n'
    )
    out, _ = filled(body)
    expected = body.replace(
        'msgid "The dog"\nmsgstr ""', '#, fuzzy\nmsgid "The dog"\nmsgstr "Gur qbt"'
    )
    expected = expected.replace(
        'msgid "The cat"\nmsgstr ""', '#, fuzzy\nmsgid "The cat"\nmsgstr "Gur png"'
    )
    assert out == HEADER + expected


def test_flags_may_stand_on_several_lines() -> None:
    out, _ = filled('#, fuzzy\n#, c-format\nmsgid "%d dogs"\nmsgstr ""\n')
    assert out == HEADER + '#, fuzzy\n#, c-format\nmsgid "%d dogs"\nmsgstr "%d qbtf"\n'


@pytest.mark.parametrize(
    "text", ["\n\nThe dog\n\n", "The dog\n", "\nThe dog", "The dog\n\nThe cat\n\n\n", "\tThe dog"]
)
def test_breaks_around_a_message_are_those_of_its_source(text: str) -> None:
    entry = polib.POEntry(msgid=text, msgstr="")
    out, _ = filled(f"{entry}\n")
    assert polib.pofile(out)[0].msgstr == rotated(text)


def test_strings_may_stand_on_the_line_after_their_keyword_or_beside_each_other() -> None:
    body = (
        'msgid\n"The dog"\nmsgstr\n""\n\nmsgid "The " "cat"\nmsgstr ""\n\n'
        'msgid "a dog"\nmsgid_plural "dogs"\nmsgstr [0]\n""\nmsgstr[ 1 ] ""\n'
    )
    out, _ = filled(body)
    assert 'msgid\n"The dog"\nmsgstr "Gur qbt"\n' in out
    assert 'msgid "The " "cat"\nmsgstr "Gur png"\n' in out
    assert 'msgstr[0] "n qbt"\nmsgstr[1] "qbtf"\n' in out


FORMATS = {
    "c-format": [
        "%dpx wide, %dh %dm long", "%'d files of %-*d", "%<PRIu64> bytes, 100%% sure",
        "%5.2f%s: %ld dogs", "%2$s of %1$s", "it is %s", "size % d", "a %c, a %%d, a %.*f",
    ],
    "objc-format": ["%@ is %1.2f big"],
    "python-format": ["%(name)s has %(n)d dogs", "%s of %d", "%(pct).1f%% done"],
    "python-brace-format": [
        "we saw {name!r:>10} and {other.x[y]}", "{} or {} there", "{0:.2f} of {1}",
        "{{kept}} {x} dogs", "{curly braces} here",
    ],
    "perl-brace-format": ["{name} is here"],
    "php-format": ["%1$s and %2$'*10s there", "%05.1f is big"],
    "csharp-format": ["{0,-10:F2} dogs {{x}}"],
    "java-printf-format": ["%1$tY is %,d"],
    "qt-format": ["%1 of %L2, %n"],
    "kde-format": ["%1 of %2"],
    "sh-format": ["the $name and ${other}s"],
    "lua-format": ["%q and %s"],
    "object-pascal-format": ["%0:s and %1:d"],
    "boost-format": ["%1% and %|2$d|"],
}  # fmt: skip


@pytest.mark.parametrize("flag", FORMATS)
def test_placeholders_by_the_flags_of_an_entry_stay(flag: str) -> None:
    body = "".join(f'#, {flag}\nmsgid "{text}"\nmsgstr ""\n\n' for text in FORMATS[flag])
    out, warnings = filled(body)
    assert not warnings
    syntax = SYNTAXES[flag]
    for text, entry in zip(FORMATS[flag], polib.pofile(out), strict=True):
        assert fitted(text, entry.msgstr, syntax) == entry.msgstr
        letters = [c for c in entry.msgstr if c.isalpha()]
        assert letters != [c for c in text if c.isalpha()], "the words are translated"
    if which("msgfmt"):
        check(out)


@pytest.mark.parametrize(
    ("flag", "source", "translation", "expected"),
    [
        ("c-format", "%d of %s", "%s von %d", "%2$s von %1$d"),
        ("python-format", "%d of %s", "%s von %d", None),
        ("python-format", "%(a)s %(b)s", "%(b)s %(a)s", "%(b)s %(a)s"),
        ("python-brace-format", "{} of {:d}", "{:d} von {}", "{1:d} von {0}"),
        ("python-brace-format", "{a}", "{a} }", None),
        ("c-format", "a %d", "b % %d", None),
        ("c-format", "%*d of %s", "%s von %*d", None),
        ("c-format", "%d", "%d %d", None),
        ("c-format", "%d", "eins", None),
        ("object-pascal-format", "%d of %s", "%s von %d", "%1:s von %0:d"),
    ],
)
def test_a_translation_is_held_to_the_format_of_its_source(
    flag: str, source: str, translation: str, expected: str | None
) -> None:
    assert fitted(source, translation, SYNTAXES[flag]) == expected


def test_a_translation_that_programs_would_break_on_is_not_written() -> None:
    body = '#, c-format\nmsgid "%d dogs, 50% of all"\nmsgstr ""\n\nmsgid "a dog"\nmsgstr ""\n'
    out, (warning,) = filled(body)
    assert '#, c-format\nmsgid "%d dogs, 50% of all"\nmsgstr ""\n' in out
    assert 'msgstr "n qbt"' in out
    assert (warning.code, warning.place) == ("not_translated", "line 10")


def test_icu_choices_are_translated_by_branch_or_left() -> None:
    one = "{n, plural, one {# dog} other {# dogs}}"
    out, (warning,) = filled(f'msgid "{one}"\nmsgstr ""\n\nmsgid "{one} {one}"\nmsgstr ""\n')
    first, other = polib.pofile(out)
    assert first.msgstr == "{n, plural, one {# qbt} other {# qbtf}}"
    assert other.msgstr == ""
    assert other.flags == []
    assert warning.place == "line 12"


PLURAL = '#, c-format\nmsgid "One dog"\nmsgid_plural "%d dogs"\nmsgstr[0] ""\nmsgstr[1] ""\n'


@pytest.mark.parametrize(
    ("target", "forms"),
    [
        ("de", ["Bar qbt", "%d qbtf"]),
        ("ja", ["%d qbtf"]),
        ("pl", ["Bar qbt", "%d qbtf", "%d qbtf"]),
        ("ru", ["%d qbtf"] * 3),
        ("pt-BR", ["Bar qbt", "%d qbtf"]),
    ],
)
def test_a_template_gets_a_header_and_the_plural_forms_of_its_language(
    target: str, forms: list[str]
) -> None:
    out, _ = filled(PLURAL, TEMPLATE, target)
    catalogue = polib.pofile(out)
    assert list(catalogue[0].msgstr_plural.values()) == forms
    assert catalogue.metadata["Project-Id-Version"] == "P"
    assert catalogue.metadata["Language"] == target.replace("-", "_")
    assert catalogue.metadata["Content-Type"] == "text/plain; charset=UTF-8"
    assert catalogue.metadata["Plural-Forms"].startswith(f"nplurals={len(forms)};")
    if which("msgfmt"):
        check(out)


def test_headers_are_completed_only() -> None:
    """A full one stays byte for byte; a catalogue without one gets one; an unknown language no
    plural forms."""
    body = 'msgid "The dog"\nmsgstr ""\n'
    out, _ = filled(body)
    assert out.startswith(HEADER)
    out, _ = filled(body, "")
    assert out.startswith('msgid ""\nmsgstr ""\n"Language: de\\n"\n')
    assert out.endswith('\n\n#, fuzzy\nmsgid "The dog"\nmsgstr "Gur qbt"\n')
    out, _ = filled(PLURAL, HEADER.replace("2; plural=(n != 1)", "2; plural=n>1"), "xx")
    assert "plural=n>1" in out
    done = 'msgid ""\nmsgstr ""\n"Language: \\n"\n\nmsgid "The dog"\nmsgstr "Der Hund"\n'
    assert filled("", done)[0] == done


def test_forms_that_a_person_has_filled_stay() -> None:
    body = PLURAL.replace('[0] ""', '[0] "Ein Hund"')
    out, _ = filled(body)
    assert out == HEADER + body.replace("#, c", "#, fuzzy, c").replace('[1] ""', '[1] "%d qbtf"')


@needs_gettext
def test_gettext_itself_takes_what_any_case_of_the_table_becomes() -> None:
    entries = [
        f'#, {flag}\nmsgid "{number} {text}"\nmsgstr ""\n\n'
        for flag, texts in FORMATS.items()
        for number, text in enumerate(texts)
    ]
    check(filled("".join(entries))[0])

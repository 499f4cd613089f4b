"""XLIFF in which people have worked: what is filled, kept, and told of."""

from __future__ import annotations

import pytest

from service.documents import UnitWarning
from tests.service.documents.document_samples import opened
from tests.service.text.engines import run
from tests.service.text.test_kept import rotating

PARTS = (
    '<source>We saw it. They slept.</source><seg-source><mrk mtype="seg" mid="1">We saw it.</mrk> '
    '<mrk mtype="seg" mid="2">They slept.</mrk></seg-source>'
)
MACHINE = ' state="needs-review-translation" state-qualifier="leveraged-mt"'


def first(units: str) -> tuple[str, list[UnitWarning]]:
    """The units of an XLIFF 1.2 file, rotated, and the warnings."""
    return _rotated(
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a" '
        'source-language="en" target-language="de" datatype="plaintext"><body>',
        units,
        "</body></file></xliff>",
    )


def second(units: str) -> tuple[str, list[UnitWarning]]:
    """The same of XLIFF 2."""
    return _rotated(
        '<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" '
        'xmlns:slr="urn:oasis:names:tc:xliff:sizerestriction:2.0" '
        'version="2.1" srcLang="en" trgLang="de"><file id="f">',
        units,
        "</file></xliff>",
    )


def _rotated(before: str, units: str, after: str) -> tuple[str, list[UnitWarning]]:
    file = opened(f"{before}{units}{after}".encode(), "a.xlf")
    translations = [run(unit.text, unit.format, rotating) for unit in file.units]
    written = file.rebuild(translations).decode()
    start = written.index(before[-12:]) + len(before[-12:])
    return written[start : -len(after)], list(file.warnings(translations))


def unit(content: str, attributes: str = "") -> str:
    return f'<trans-unit id="1"{attributes}>{content}</trans-unit>'


@pytest.mark.parametrize(
    "target",
    ['<x id="1"/>', '<g id="1"> </g>', '<mrk mtype="seg" mid="0"/>', '<ph id="1">&lt;br&gt;</ph>'],
)
def test_a_target_of_codes_and_marks_alone_is_empty(target: str) -> None:
    out, _ = first(unit(f"<source>We saw it</source><target>{target}</target>"))
    assert out == unit(f"<source>We saw it</source><target{MACHINE}>Jr fnj vg</target>")
    out, _ = second(
        '<unit id="u"><segment><source>We</source><target><ph id="1"/></target></segment></unit>'
    )
    assert "<target>Jr</target>" in out


def test_empty_parts_are_filled_and_a_persons_parts_stay() -> None:
    for given, kept, state in (
        ('<mrk mtype="seg" mid="1"/> <mrk mtype="seg" mid="2"/>', "Jr fnj vg.", MACHINE),
        (
            '<mrk mtype="seg" mid="1">Wir <g id="9">sahen</g> es.</mrk> <mrk mtype="seg" mid="2"/>',
            'Wir <g id="9">sahen</g> es.',
            ' state="needs-review-translation"',
        ),
        (
            '<mrk mtype="seg" mid="1">Wir sahen es.</mrk>',
            "Wir sahen es.",
            ' state="needs-review-translation"',
        ),
    ):
        out, warnings = first(unit(f"{PARTS}<target>{given}</target>"))
        assert out == unit(
            f'{PARTS}<target{state}><mrk mtype="seg" mid="1">{kept}</mrk> '
            '<mrk mtype="seg" mid="2">Gurl fyrcg.</mrk></target>'
        )
        assert not warnings


def test_parts_that_do_not_match_are_left_and_told_of() -> None:
    given = unit(
        f'{PARTS}<target><mrk mtype="seg" mid="1">Wir</mrk> und <mrk mtype="seg" mid="7"/></target>'
    )
    out, (warning,) = first(given)
    assert out == given
    assert (warning.place, warning.code) == ("1", "not_translated")
    assert "other parts than its source" in warning.message


def test_only_copies_and_what_says_so_are_replaced() -> None:
    def target(state: str, text: str, more: str = "") -> str:
        return unit(f'<source>We saw it</source><target state="{state}">{text}</target>', more)

    for state, text in (
        ("new", "We saw it"),
        ("initial", "We saw it"),
        ("needs-translation", "Alt"),
    ):
        out, warnings = first(target(state, text))
        assert ">Jr fnj vg</target>" in out
        assert not warnings
    for given in (target("new", "Wir sahen"), target("new", "", ' approved="yes"')):
        out, (warning,) = first(given)
        assert out.replace('<target state="new"/>', '<target state="new"></target>') == given
        assert warning.code == "not_translated"
    assert first(target("translated", "Wir sahen")) == (target("translated", "Wir sahen"), [])


def test_a_filled_target_claims_no_persons_phase() -> None:
    out, _ = first(unit('<source>We</source><target phase-name="review" state="final"/>'))
    assert out == unit(f"<source>We</source><target{MACHINE}>Jr</target>")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            '{VAR, plural, =1 {one dog} other {<x id="I"/> dogs}}',
            '{VAR, plural, =1 {bar qbt} other {<x id="I"/> qbtf}}',
        ),
        (
            "{g, select, male {he is here} other {{n, plural, =0 {nobody} other {# people}}}}",
            "{g, select, male {ur vf urer} other {{n, plural, =0 {abobql} other {# crbcyr}}}}",
        ),
        (
            "We have {n, plural, offset:1 one {# dog} other {{n} dogs}} here.",
            "{n, plural, offset:1 one {Jr unir # qbt urer.} other {Jr unir {n} qbtf urer.}}",
        ),
        ("{n, plural, other {they''re # dogs}}", "{n, plural, other {gurl''er # qbtf}}"),
        (
            '<g id="1">{n, plural, other {# dogs}}</g> ',
            '<g id="1">{n, plural, other {# qbtf}}</g> ',
        ),
        ("Hello {name}, {n, number} dogs", "Uryyb {name}, {n, number} qbtf"),
    ],
)
def test_the_branches_of_icu_messages_are_translated(message: str, expected: str) -> None:
    out, warnings = first(unit(f"<source>{message}</source>"))
    assert out == unit(f"<source>{message}</source><target{MACHINE}>{expected}</target>")
    assert not warnings


@pytest.mark.parametrize(
    "message",
    [
        "{n, plural, one {a dog} other {dogs}} and {m, plural, one {a cat} other {cats}}",
        "{n, plural, one {'{'a'}'} other {dogs}}",
        "{n, plural, one {a dog other {dogs}}",
        '<x id="1"/> has {n, plural, one {a dog} other {dogs}}',
    ],
)
def test_other_icu_messages_are_left_unmarked_and_told_of(message: str) -> None:
    given = unit(f"<source>{message}</source>")
    out, (warning,) = first(given)
    assert out == given
    assert "ICU choices" in warning.message
    source = f"<source>{message.replace('x id', 'ph id')}</source>"
    of_two = f'<unit id="u"><segment id="s">{source}</segment></unit>'
    out, (warning,) = second(of_two)
    assert out == of_two
    assert warning.place == "u/s"


def test_kept_spans_are_kept_within_and_across_codes_and_segments() -> None:
    start, end = '<sm id="m" translate="no"/>', '<em startRef="m"/>'
    for sources, targets in (
        ([f"We {start}Foo Bar{end} there."], [f"Jr {start}Foo Bar{end} gurer."]),
        ([f"We {start}Foo Bar. ", f"Baz{end} is."], [f"Jr {start}Foo Bar. ", f"Baz{end} vf."]),
    ):
        segments = "".join(f"<segment><source>{source}</source></segment>" for source in sources)
        out, _ = second(f'<unit id="u">{segments}</unit>')
        assert [one.split("</target>")[0] for one in out.split("<target>")[1:]] == targets
    crossing = f'We {start}Foo <pc id="1">Bar{end} there</pc>.'
    out, _ = second(f'<unit id="u"><segment><source>{crossing}</source></segment></unit>')
    target = out.split("<target>")[1]
    assert "Foo <pc" in target
    assert ">Bar<" in target
    assert "gurer" in target
    out, _ = first(unit('<source>We <mrk mtype="x-its-translate-no">saw</mrk> it</source>'))
    assert 'Jr <mrk mtype="x-its-translate-no">saw</mrk> vg' in out


def test_what_is_too_long_for_its_place_is_told_of() -> None:
    source = "<source>We saw it</source>"
    for attributes, message in (
        (' maxwidth="8" size-unit="char"', "9 characters, at most 8 are allowed"),
        (' maxbytes="8"', "9 bytes, at most 8 are allowed"),
        (' maxwidth="9" size-unit="char"', None),
    ):
        for given in (unit(source, attributes), f"<group{attributes}>{unit(source)}</group>"):
            _, warnings = first(given)
            assert [(one.code, one.message) for one in warnings] == (
                [("too_long_for_place", message)] if message else []
            )
    _, (warning,) = second(
        f'<unit id="u" slr:sizeRestriction="0,8"><segment>{source}</segment></unit>'
    )
    assert warning == UnitWarning("u", "too_long_for_place", "9 characters, at most 8 are allowed")


def test_a_place_in_pixels_is_told_of_where_the_text_gets_longer() -> None:
    xliff = (
        '<xliff version="1.2"><file source-language="en" target-language="de" original="a" '
        'datatype="x"><body><trans-unit id="1" maxwidth="60"><source>We</source></trans-unit>'
        "</body></file></xliff>"
    )
    file = opened(xliff.encode(), "a.xliff")
    assert not file.warnings(["Ja"])
    (warning,) = file.warnings(["Jawohl"])
    assert "60 pixel" in warning.message


def test_text_within_codes_is_told_of() -> None:
    _, (warning,) = first(unit('<source>We <ph id="1">x<sub>alt text</sub></ph></source>'))
    assert "<sub>" in warning.message

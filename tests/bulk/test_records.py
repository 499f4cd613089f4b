"""Texts in lines and in fields of JSON, by hand."""

from __future__ import annotations

import json

import pytest

from quickstudy.bulk.records import LINES, JsonLines, TextLines, read_record
from quickstudy.errors import QuickstudyError


def test_a_line_is_its_text() -> None:
    record = TextLines().parse(" a line ", "x: line 1")
    assert record.text == " a line "
    assert TextLines().render(record, "eine Zeile") == "eine Zeile"


def test_a_line_keeps_its_end() -> None:
    lines = LINES.findall("a\r\nb\n\nc\rd")
    assert lines == ["a\r\n", "b\n", "\n", "c\r", "d"]
    records = [read_record(TextLines(), line, "x") for line in lines]
    assert [one.text for one in records] == ["a", "b", "", "c", "d"]
    assert [one.end for one in records] == ["\r\n", "\n", "\n", "\r", "\n"]


@pytest.mark.parametrize(
    ("line", "text", "written"),
    [
        (
            '{"id": 7, "text": "dog", "n": null}',
            "dog",
            {"id": 7, "text": "dog", "n": None, "t": "DOG"},
        ),
        ('{"text": "ä\\nb"}', "ä\nb", {"text": "ä\nb", "t": "Ä\nB"}),
        ('{"text": null}', None, {"text": None, "t": None}),
        ('{"text": "a", "odd": "\\ud800"}', "a", {"text": "a", "odd": "\ud800", "t": "A"}),
    ],
)
def test_other_fields_are_kept(line: str, text: str | None, written: dict[str, object]) -> None:
    lines = JsonLines("text", "t")
    record = lines.parse(line, "x")
    assert record.text == text
    rendered = lines.render(record, (text or "").upper())
    assert "\n" not in rendered
    rendered.encode("utf-8")
    assert json.loads(rendered) == written
    assert list(json.loads(rendered)) == list(written)


def test_a_field_may_be_replaced() -> None:
    lines = JsonLines("text", "text")
    record = lines.parse('{"text": "dog", "id": 1}', "x")
    assert json.loads(lines.render(record, "Hund")) == {"text": "Hund", "id": 1}


def test_a_blank_line_stays() -> None:
    lines = JsonLines("text", "t")
    record = lines.parse("  ", "x")
    assert record.text is None
    assert lines.render(record, "anything") == "  "


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "x: line 3 is not JSON"),
        ("[" * 100_000, "x: line 3 is not JSON"),
        ("[1]", "no field 'text' (it is no object)"),
        ('{"a": 1, "b": 2}', "no field 'text' (a, b): name the text's by --field"),
        ('{"text": 5}', "of type int"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ('{"text": "a", "t": "b"}', "choose another --output-field"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, fault: str) -> None:
    with pytest.raises(QuickstudyError) as raised:
        JsonLines("text", "t").parse(line, "x: line 3")
    assert fault in str(raised.value)
    assert str(raised.value).startswith("x: line 3")

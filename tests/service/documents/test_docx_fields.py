"""Fields of a Word paragraph: which are one word, which a link, and which cannot be one piece."""

from __future__ import annotations

import pytest

from service.documents.docx_pieces import DocxPiece, PieceKind, resolve_fields
from tests.service.documents.document_samples import opened, shouted, texts, word_document

KINDS: dict[str, PieceKind] = {
    "<": "enter",
    ">": "leave",
    "B": "begin",
    "S": "separate",
    "E": "end",
    ".": "point",
}


def pieces(*short: str) -> list[DocxPiece]:
    """Of B code S E, < and > for a container's ends, a full stop, and words."""
    return [
        DocxPiece("code", text=one[1:])
        if one.startswith("=")
        else DocxPiece(KINDS.get(one, "text"), text="" if one in KINDS else one)
        for one in short
    ]


def resolved(*short: str) -> list[tuple[str, str, int]]:
    """Kind, text and number of parts of each piece that comes out."""
    given = pieces(*short)
    found = resolve_fields(given)
    parts = [part for piece in found for part in (piece.parts or [piece])]
    assert [part.text for part in parts] == [piece.text for piece in given]
    return [(piece.kind, piece.text, len(piece.parts)) for piece in found]


def test_a_field_is_a_word_if_it_shows_one() -> None:
    assert resolved("a", "B", "=PAGE", "S", "7", "E", "b") == [
        ("text", "a", 0),
        ("word", "7", 5),
        ("text", "b", 0),
    ]
    assert resolved("B", "=XE", "S", " ", "E") == [("point", " ", 5)]
    assert resolved("B", "=XE", "E", "b") == [("point", "", 3), ("text", "b", 0)]
    assert resolved("B", "=XE", "hidden", "E") == [("point", "", 4)]


def test_a_field_within_a_field_belongs_to_it() -> None:
    inner = ("B", "=PAGE", "S", "7", "E")
    assert resolved("B", "=IF", *inner, "S", "x", "E") == [("word", "x", 10)]
    assert resolved("B", "=IF", "S", "x", *inner, "E") == [("word", "x7", 10)]


def test_the_text_of_a_link_is_translated() -> None:
    assert resolved("B", '=HYPERLINK "x"', "S", "there", "E", "b") == [
        ("enter", "", 3),
        ("text", "there", 0),
        ("leave", "", 1),
        ("text", "b", 0),
    ]
    assert resolved("B", "=HYPERLINK x", "S", "on ", "B", "=PAGE", "S", "7", "E", "E") == [
        ("enter", "", 3),
        ("text", "on ", 0),
        ("word", "7", 5),
        ("leave", "", 1),
    ]


def test_a_field_that_crosses_a_container_is_no_piece() -> None:
    """What begins inside of a link and ends outside, or the other way round, stays where it is."""
    assert resolved("<", "B", "=PAGE", "S", "7", ">", "b", "E") == [
        ("enter", "", 0),
        ("point", "", 0),
        ("point", "PAGE", 0),
        ("point", "", 0),
        ("text", "7", 0),
        ("leave", "", 0),
        ("text", "b", 0),
        ("point", "", 0),
    ]
    kinds = [kind for kind, _, _ in resolved("B", "=PAGE", "S", "<", "7", "E", ">", "b", "E")]
    assert kinds == [*["point"] * 3, "enter", "text", "point", "leave", "text", "point"]


def test_a_link_that_is_a_field_may_hold_a_container_but_not_cross_one() -> None:
    code = "=HYPERLINK x"
    assert [kind for kind, _, _ in resolved("B", code, "S", "a", "<", "b", ">", "E")] == (
        ["enter", "text", "enter", "text", "leave", "leave"]
    )
    assert [kind for kind, _, _ in resolved("B", code, "S", "<", "B", "B", ">", "a", "E")] == (
        ["enter", "enter", "point", "point", "leave", "text", "leave"]
    )
    for crossing in (("<", "B", code, "S", "a", ">", "E"), ("B", code, "S", "<", "a", "E", ">")):
        kinds = [kind for kind, _, _ in resolved(*crossing)]
        assert (kinds.count("enter"), kinds.count("leave"), kinds.count("point")) == (1, 1, 4)


def test_a_field_around_a_container_keeps_it() -> None:
    """A table of contents around its links, with a page number in one of them."""
    link = ("<", "one", "B", "=PAGEREF", "S", "3", "E", ">")
    assert resolved("B", "=TOC", "S", *link, "E", "b") == [
        ("point", "", 0),
        ("point", "TOC", 0),
        ("point", "", 0),
        ("enter", "", 0),
        ("text", "one", 0),
        ("word", "3", 5),
        ("leave", "", 0),
        ("point", "", 0),
        ("text", "b", 0),
    ]


def test_after_a_container_left_open_fields_are_found_again() -> None:
    assert resolved("B", "<", "B", "B", ">", "B", "S", "7", "E", "E")[-3:] == [
        ("leave", "", 0),
        ("word", "7", 4),
        ("point", "", 0),
    ]


@pytest.mark.parametrize("lone", ["E", "S", "B", "=PAGE"])
def test_a_part_without_its_field_is_a_point(lone: str) -> None:
    (text, point, more) = resolved("a", lone, "b")
    assert (text[:2], point[0], more[:2]) == (("text", "a"), "point", ("text", "b"))


FIELD = (
    '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>PAGE</w:instrText></w:r>'
    '<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>two</w:t></w:r>'
)
END = '<w:r><w:fldChar w:fldCharType="end"/></w:r><w:r><w:t> cats.</w:t></w:r>'


def test_a_document_with_a_field_that_crosses_a_link_comes_back_whole() -> None:
    document = word_document(
        f'<w:p {{ns}}><w:hyperlink w:anchor="a">{FIELD}</w:hyperlink>{END}</w:p>'
    )
    file = opened(document, "a.docx")
    unit = texts(file)[5]
    assert "two" in unit
    assert "cats." in unit
    assert "<ph" not in unit
    again = texts(opened(shouted(file), "a.docx"))[5]
    assert again == unit.replace("two", "TWO").replace("cats.", "CATS.")

"""Which stretches of a text a tokenizer reads as unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.runtime.bundle import Bundle
from export.runtime.engines import load_engine
from export.runtime.engines.unknown import WINDOW_CHARS, UnknownFinder
from tests.export import tiny
from tests.export.vocabulary import LETTERS, tokenizer_without_bytes


@pytest.fixture(scope="module")
def finder() -> UnknownFinder:
    return UnknownFinder(tokenizer_without_bytes())


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("", []),
        ("we saw the house.", []),
        ("about €3", ["€"]),
        ("Müller", ["ü"]),
        ("a 😀 and 中国 there", ["😀", "中国"]),
        ("<b> \\ ^ ~ `x`", ["<", ">", "\\", "^", "~", "`", "`"]),
        ("wait… now", []),  # normalised to three dots
        ("ﬁne ＡＢＣ", []),
        ("a ½ of it", ["½"]),  # 1⁄2, of which the middle is unknown
        ("x\u0302 and e\u0301", ["\u0302"]),  # the second composes to é
    ],
)
def test_spans_are_those_of_the_text_as_given(
    finder: UnknownFinder, text: str, unknown: list[str]
) -> None:
    assert [text[start:end] for start, end in finder.spans(text)] == unknown


def test_all_that_it_was_trained_with_is_readable(finder: UnknownFinder) -> None:
    assert finder.spans(" ".join(LETTERS)) == []
    assert not finder.reads_all_text


def test_without_normalisation_less_is_readable() -> None:
    finder = UnknownFinder(tokenizer_without_bytes("identity"))
    assert [start for start, _ in finder.spans("wait… ﬁne")] == [4, 6]


def test_long_texts_have_the_offsets_of_the_whole(finder: UnknownFinder) -> None:
    text = "the house of Müller " * WINDOW_CHARS
    assert len(text) > 10 * WINDOW_CHARS
    spans = finder.spans(text)
    assert len(spans) == WINDOW_CHARS
    assert {text[start:end] for start, end in spans} == {"ü"}
    assert len(finder.spans("ü" * (3 * WINDOW_CHARS))) == 3


def test_pieces_that_the_model_lacks_are_unknown() -> None:
    tokenizer = tokenizer_without_bytes()
    pieces = {tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())}
    text = "we saw the house"
    piece = max(tokenizer.encode(text, out_type=str), key=len)
    assert UnknownFinder(tokenizer, pieces).spans(text) == []
    (span,) = UnknownFinder(tokenizer, pieces - {piece}).spans(text)
    assert text[slice(*span)].strip() == piece.strip("▁")


def test_byte_fallback_reads_everything(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer_of(tiny.train_tokenizer(tmp_path / "tokenizer.model"))
    finder = UnknownFinder(tokenizer)
    assert finder.reads_all_text
    assert finder.spans("Müller 中国 😀 €3") == []
    pieces = {tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())}
    assert not UnknownFinder(tokenizer, pieces - {"<0x0A>"}).reads_all_text


def test_an_engine_says_what_it_cannot_read(pristine_bundle: Bundle) -> None:
    engine = load_engine(pristine_bundle)
    assert engine.reads_all_text
    assert engine.unknown_spans("中国") == []

"""Dashes between clauses survive a model that drops them."""

from __future__ import annotations

import re

import pytest

from service.text.dashes import lost_dashes, split_at_dashes
from service.text.document import Format
from service.text.inline import InlineText
from tests.service.text.engines import run
from tests.service.text.test_kept import ROTATED, rotating

DASHES = ("—", " — ", " – ", " - ", " ― ", "--", " -- ", " --- ", "⸺", " − ")


@pytest.mark.parametrize("dash", DASHES)
def test_dashes_part_clauses(dash: str) -> None:
    sentence = f"we saw it{dash}they left"
    parts = [part.text for part in split_at_dashes(InlineText(sentence))]
    assert parts == ["we saw it", dash, "they left"]
    assert lost_dashes(sentence, "we saw it, they left")
    assert not lost_dashes(sentence, "we saw it – they left")


@pytest.mark.parametrize("text", ["a well-known dog", "10–20 dogs", "-5", "the A–B line", "x-"])
def test_hyphens_and_ranges_do_not(text: str) -> None:
    assert [part.text for part in split_at_dashes(InlineText(text))] == [text]
    assert not lost_dashes(text, "")


def without_dashes(texts: list[str]) -> list[str]:
    """Rotates letters, and writes a comma for every dash between words."""
    return [re.sub(r"\s*(?:[—―⸺–−]|(?<=\s)-(?=\s)|--+)\s*", ", ", text) for text in rotating(texts)]


@pytest.mark.parametrize("dash", DASHES)
@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        ("text", "we saw it{}they left."),
        ("text", "“we saw it,” he said{}“they left?”"),
        ("text", "the dogs{}we saw them{}left."),
        ("html", "<p>the <b>dogs</b>{}we <i>saw</i> them.</p>"),
        ("html", "<p><a href='/x'>we saw it</a>{}https://a.example/b left.</p>"),
        ("markdown", "**dogs**{}what we saw"),
    ],
)
def test_lost_dashes_are_put_back(format: Format, pattern: str, dash: str) -> None:
    source = pattern.replace("{}", dash)
    expected = re.sub(
        r"<[^>]*>|https\S*|(\w+)", lambda m: m[1].translate(ROTATED) if m[1] else m[0], source
    )
    assert run(source, format, without_dashes) == expected


@pytest.mark.parametrize("final", ["—", "—”", "–", "―"])
def test_a_sentence_that_breaks_off_keeps_its_dash(final: str) -> None:
    def without(texts: list[str]) -> list[str]:
        return [re.sub(r"\s*[—―–-]\s*", "", text) for text in rotating(texts)]

    source = f"“but we{final}" if final.endswith("”") else f"but we{final}"
    assert run(source, translate=without) == source.translate(ROTATED)

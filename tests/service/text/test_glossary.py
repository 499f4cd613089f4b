"""Terms of a glossary: which counts where several would."""

from __future__ import annotations

import pytest

from service.text.glossary import Glossary, GlossaryError


def found(terms: dict[str, str], text: str) -> list[str]:
    return [target for _, _, target in Glossary(terms).find(text)]


def test_terms_that_differ_in_capitals_count_in_their_spelling() -> None:
    terms = {"cat": "Katze", "Cat": "Kater", "CAT": "Computertomografie"}
    assert found(terms, "cat Cat CAT cAt") == ["Katze", "Kater", "Computertomografie", "Katze"]
    assert found({"Polish": "Polnisch", "polish": "polieren"}, "Polish polish POLISH") == [
        "Polnisch",
        "polieren",
        "POLNISCH",
    ]


@pytest.mark.parametrize("other", ["a  cat", " a cat", "a cat\n"])
def test_a_term_with_two_translations_is_refused(other: str) -> None:
    with pytest.raises(GlossaryError, match="twice"):
        Glossary({"a cat": "eine Katze", other: "ein Kater"})
    assert found({"a cat": "eine Katze", other: "eine Katze"}, "a cat") == ["eine Katze"]

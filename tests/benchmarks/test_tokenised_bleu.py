"""BLEU as papers on Multi30k give it."""

import gzip
from pathlib import Path

import pytest

from benchmarks.quality import MosesText, read_test, tokenised_bleu
from training.config.recipe import RecipeError


def test_text_is_lower_cased_normalised_and_parted() -> None:
    assert MosesText("de")("Ein „Hund“ läuft.") == 'ein " hund " läuft .'


def test_case_and_quotation_marks_do_not_count() -> None:
    references = ["Ein „Hund“ läuft über die Wiese.", "Zwei Kinder spielen im Schnee."]
    hypotheses = ['ein "hund" läuft über die wiese.', "zwei Kinder spielen im schnee."]
    found = tokenised_bleu(hypotheses, references, "de")
    assert found["score"] == 100.0
    assert "case:lc|tok:sacremoses-" in found["signature"]


def test_sides_that_do_not_match_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "a.de").write_text("eins\n")
    with pytest.raises(RecipeError, match="has 2 lines"):
        read_test(tmp_path / "a.en.gz", tmp_path / "a.de")

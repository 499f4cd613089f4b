"""Quality on altered text: the same pairs before and after, kind by kind."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.altered_text import KINDS, altered, compare
from export.runtime.engines import TranslateOptions, Translation

PAIRS = [
    ("The committee from Lisbon wrote a long letter.", "O comité de Lisbon escreveu uma carta."),
    ("Every engineer in Porto knows the answer.", "Todos os engenheiros no Porto sabem."),
    ("No verb", "Nenhum verbo"),
]


class Copying:
    """Gives back its source; words in capitals come out as nothing."""

    def count_tokens(self, sentence: str) -> int:
        return 500 if "porto" in sentence.lower() else len(sentence.split())

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        return [Translation("" if text.isupper() else text, 1) for text in sentences]


def test_a_kind_alters_what_it_can() -> None:
    assert set(altered(PAIRS, "no_final_stop", 1)) == {0, 1}
    assert altered(PAIRS, "all_caps", 1)[2] == ("NO VERB", "NENHUM VERBO")
    assert set(altered(PAIRS, "joined", 1)) == {0, 1}
    assert altered(PAIRS, "typos", 1) == altered(PAIRS, "typos", 1)


def test_figures_are_of_the_same_pairs_before_and_after() -> None:
    results = compare({"copying": Copying()}, PAIRS)  # type: ignore[dict-item]
    assert set(results) <= set(KINDS)
    caps = results["all_caps"]
    assert isinstance(caps, dict)
    assert caps["sentences"] == 2  # one is too long for the model
    assert caps["copying"]["as_it_was"]["unchanged_percent"] == 100
    assert caps["copying"]["altered"] == {"BLEU": 0.0, "chrF2": 0.0, "unchanged_percent": 0.0}
    assert caps["copying"]["as_it_was"]["chrF2"] > 0

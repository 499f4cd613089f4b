"""Sources tagged with the form of address of their targets, so that one model writes both forms.

A tag in front of the source says which form the target has (Sennrich, Haddow & Birch 2016,
Controlling Politeness in Neural Machine Translation via Side Constraints). Sources whose target
addresses nobody get tags too, at random, so that a tag changes nothing there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random

from quickstudy.form_of_address import FORMALITY_OF, Formality
from training.config.recipe import FORMALITY_TAGS

Row = tuple[str, str | None]

TAGS: dict[Formality, str] = dict(zip(("formal", "informal"), FORMALITY_TAGS, strict=True))
"""Pieces in front of the source; the tokenizer must have them (`tokenizer.add`)."""
UNTAGGED = 0.1
"""Share of the pairs with an address whose source gets no tag."""
NEUTRAL: dict[Formality, float] = {"formal": 0.35, "informal": 0.15}
"""Share of the pairs without an address whose source gets a tag all the same."""


class FormalityTagger:
    """Tags the sources of a corpus, in its order, by seed; `counts` says how many of each form."""

    def __init__(self, trg_lang: str, seed: int) -> None:
        """Raises KeyError for a language whose address is not known."""
        self._formality_of = FORMALITY_OF[trg_lang.split("-")[0]]
        self._random = Random(seed)
        self.counts = {"formal": 0, "informal": 0, "none": 0}

    def batches(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Row]]:
        """The rows with tagged sources; those without a target stay as they are."""
        for batch in batches:
            yield [(src if trg is None else self._tagged(src, trg), trg) for src, trg in batch]

    def _tagged(self, src: str, trg: str) -> str:
        formality = self._formality_of(trg)
        self.counts[formality or "none"] += 1
        draw = self._random.random()
        if formality is None:
            if draw < NEUTRAL["formal"]:
                formality = "formal"
            elif draw < NEUTRAL["formal"] + NEUTRAL["informal"]:
                formality = "informal"
        elif draw < UNTAGGED:
            formality = None
        return src if formality is None else f"{TAGS[formality]} {src}"

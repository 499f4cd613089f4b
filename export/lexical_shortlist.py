"""A student's shortlist: the target pieces that each source piece may become.

They come from the run's translated text (IBM Model 1, `training/data/lexical_table.py`) and from
the lexicon of the model that the student started from, where it lends one. What the student learnt
to write in place of a whole phrase (*break a leg* → *boa sorte*) is no piece's translation: where
sentences of the text have a target piece that none of their source pieces lists, the rarest of
those lists it too, so that it costs few other sentences a candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from export.lent_lexicon import LentLexicon
from export.runtime.shortlist import Shortlist
from training.data.lexical_table import LexicalTable, Sentence

SHORTLIST_CANDIDATES = 50
"""Translations of a source piece in a shortlist."""
SHORTLIST_ALWAYS = 200
"""Frequent target pieces that any source may be translated to."""
LENT_CANDIDATES, LENT_PROBABLE = 3, 0.03
"""Those of a run's text, and how probable they are, of a source piece that a lent lexicon has."""
LENT_SEEN = 300
"""Of a source piece that so many of the run's sentences have, a lent lexicon's words stay that are
translations of some probability there."""
LENT_LEAST = 1e-5
"""That probability."""
UNCOVERED_SEEN = 3
"""Pairs that need a target piece which their sources do not list, before it is listed."""

Ids = NDArray[np.int64]
NONE: Ids = np.zeros(0, dtype=np.int64)


def lexical_shortlist(
    table: LexicalTable,
    text: Iterable[Sentence],
    source_pieces: Sequence[str],
    pieces: Sequence[str],
    lexicon: LentLexicon | None,
) -> Shortlist:
    """Each source piece's likely translations, by the table of a translated text and by a lent
    lexicon, itself where the target has the same piece, so that what was never seen can be copied,
    and what the text has beyond."""
    lent = {} if lexicon is None else _confirmed(lexicon, table)
    sure = dict(table.likely(LENT_CANDIDATES, LENT_PROBABLE)) if lent else {}
    likely = {
        index: sure.get(index, NONE) if index in lent else words
        for index, words in table.likely(SHORTLIST_CANDIDATES)
    }
    target_ids = {piece: index for index, piece in enumerate(pieces)}
    lists = [
        np.unique(
            np.concatenate(
                [
                    likely.get(index, NONE),
                    lent.get(index, NONE),
                    np.array([target_ids[piece]] if piece in target_ids else NONE),
                ]
            )
        )
        for index, piece in enumerate(source_pieces)
    ]
    always = table.frequent(SHORTLIST_ALWAYS)
    if lexicon is not None:
        always = np.union1d(always, lexicon.always)
    for index, words in _uncovered(text, lists, always, table.sentences).items():
        lists[index] = np.union1d(lists[index], words)
    return Shortlist.of(lists, always)


def _confirmed(lexicon: LentLexicon, table: LexicalTable) -> dict[int, Ids]:
    """The words of a lent lexicon, less those that the text speaks against: it has their source
    piece in LENT_SEEN sentences or more, and never as their translation."""
    possible = dict(table.likely(least=LENT_LEAST))
    known = np.flatnonzero(table.sentences >= LENT_SEEN)
    kept = dict(lexicon.lists)
    for piece in kept.keys() & set(known.tolist()):
        words = kept[piece]
        kept[piece] = words[np.isin(words, possible.get(piece, NONE))]
    return kept


def _uncovered(
    text: Iterable[Sentence], lists: Sequence[Ids], always: Ids, sentences: Ids
) -> dict[int, list[int]]:
    """Source piece → target pieces of its sentences that no piece of them lists, where it is their
    rarest piece in UNCOVERED_SEEN sentences or more. `sentences` counts those of each source
    piece."""
    common = set(always.tolist())
    listed = [set(words.tolist()) for words in lists]
    counts: dict[tuple[int, int], int] = {}
    for src, trg in text:
        sources = set(map(int, src))
        missing = set(map(int, trg)) - common
        missing.difference_update(*(listed[piece] for piece in sources))
        if missing and sources:
            rarest = min(sources, key=lambda piece: (_count(sentences, piece), piece))
            for word in missing:
                counts[rarest, word] = counts.get((rarest, word), 0) + 1
    found: dict[int, list[int]] = {}
    for (piece, word), count in counts.items():
        if count >= UNCOVERED_SEEN:
            found.setdefault(piece, []).append(word)
    return found


def _count(sentences: Ids, piece: int) -> int:
    return int(sentences[piece]) if piece < len(sentences) else 0

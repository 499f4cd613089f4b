"""New source sentences from a text's own word sequences, for the teacher to translate.

A student learns its teacher from the sources that the teacher has translated, and a small corpus
has few. Where there is no monolingual text of the same kind, these sentences stand in for it: each
is a walk through the text's word n-grams, so that it reads like the text where one looks at a few
words, and says something that the text does not say. Made sources that a teacher labels: He et al.
2022, "Generate, Annotate, and Learn"; here the generator is an n-gram model with interpolated
absolute discounting (Ney, Essen & Kneser 1994).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from quickstudy.progress import Ticker
from training.data.files import CorpusError, check_output, read_whole, write_lines

START, END = "<s>", "</s>"
TRIES = 20
"""Walks for each sentence wanted before it is said that the text has too few to give."""

Words = tuple[str, ...]


class NgramModel:
    """Counts of a text's word n-grams, to sample sentences from.

    `order` is the longest n-gram, in words. A walk goes on with the words that followed its last
    `order` − 1 words, and gives those up for fewer, one at a time, with the probability of
    interpolated absolute discounting, yet never for fewer than `overlap`: any `overlap` + 1 words
    in a row of a sentence, its start and end among them, stand so in the text.
    """

    def __init__(
        self, lines: Iterable[str], order: int = 4, overlap: int = 2, discount: float = 0.5
    ) -> None:
        if not 1 <= overlap < order:
            raise ValueError(f"overlap {overlap} must be from 1 to below the order, {order}")
        if not 0 < discount < 1:
            raise ValueError(f"discount {discount} must be above 0 and below 1")
        self.order, self.overlap, self.discount = order, overlap, discount
        self._followers: dict[Words, list[str]] = defaultdict(list)
        self._counts: Counter[Words] = Counter()
        for line in lines:
            words = self._framed(line.split())
            for end in range(order - 1, len(words)):
                for length in range(overlap, order):
                    context = words[end - length : end]
                    self._followers[context].append(words[end])
                    self._counts[(*context, words[end])] += 1

    def _framed(self, words: list[str]) -> Words:
        return (*[START] * (self.order - 1), *words, END)

    def _next(self, last: Words, generator: random.Random) -> str:
        """The word after a context of `order` − 1 words that a walk has come by."""
        word = END
        for length in range(self.order - 1, self.overlap - 1, -1):
            context = last[len(last) - length :]
            followers = self._followers.get(context)
            if followers is None:
                continue
            word = followers[int(generator.random() * len(followers))]
            count = self._counts[(*context, word)]
            # P(word) = (count − discount) / all; what the discounts leave goes to shorter contexts.
            if generator.random() * count >= self.discount:
                return word
        return word

    def walk(self, generator: random.Random, longest: int) -> str | None:
        """A sentence; None where it does not end within `longest` words."""
        words = self._framed([])[:-1]
        for _ in range(longest + 1):
            word = self._next(words[len(words) - self.order + 1 :], generator)
            if word == END:
                return " ".join(words[self.order - 1 :])
            words = (*words, word)
        return None


def recombine(
    lines: Collection[str],
    count: int,
    *,
    order: int = 4,
    overlap: int = 2,
    discount: float = 0.5,
    longest: int = 30,
    seed: int = 1,
    without: Collection[str] = (),
) -> Iterator[str]:
    """`count` different sentences that are neither lines of the text nor in `without`, such as the
    sources of a test set; each of at most `longest` words.

    The same arguments give the same sentences. Raises CorpusError where 20 walks for each sentence
    wanted do not find them all, as in a text whose words are not divided by spaces.
    """
    known = {" ".join(line.split()) for line in (*lines, *without)}
    model = NgramModel(dict.fromkeys(lines), order, overlap, discount)
    generator = random.Random(seed)
    found = 0
    for _ in range(TRIES * count):
        text = model.walk(generator, longest)
        if text is None or text in known:
            continue
        known.add(text)
        found += 1
        yield text
        if found == count:
            return
    raise CorpusError(
        f"the text gave {found:,} new sentences of the {count:,} wanted: ask for fewer, give more "
        f"text, or lower --overlap ({overlap}). Words must be divided by spaces"
    )


def recombine_files(
    texts: Sequence[Path], out: Path, count: int, without: Sequence[Path] = (), **options: int
) -> None:
    """Write `count` new sentences made of the lines of `texts` to `out`, one a line, packed where
    its name ends in .gz; none that stands in a file of `without`. `options` are those of
    `recombine`.

    Nothing is written where it fails. Raises CorpusError where a file cannot be read, or the text
    does not give as many.
    """
    check_output(out, (*texts, *without))
    lines, others = _lines(texts), _lines(without)
    with Ticker("recombine", count, "sentences") as tell:
        found = []
        for text in recombine(lines, count, without=others, **options):
            found.append(text)
            tell(len(found))
    write_lines(out, found)


def _lines(paths: Sequence[Path]) -> list[str]:
    """The lines of files that are UTF-8 and not empty."""
    return [line for path in paths for line in read_whole(path) if line.strip()]

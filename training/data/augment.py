"""Altered training pairs, so that a student copes with text unlike its corpus: capitals, typing
errors, addresses, placeholders, tags, quotation marks, several sentences in a line.

After the modifiers of OpusTrainer (Bogoychev et al. 2023, https://arxiv.org/abs/2311.14838), but
without word alignments: what goes into both sides takes the place of a token that stands in both.
Choices follow from the seed and a pair's number, whatever the batches and shards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from random import Random

import numpy as np

from training.config.recipe import AugmentConfig, CorpusConfig
from training.data.cleaning import bare, plain_characters
from training.data.shared_terms import (
    addition_to_copy,
    in_prose,
    pieces,
    shared_terms,
    term_to_copy,
    url,
)

MOST_KINDS = 3
"""Kinds that one pair gets at most: the first of those that were drawn."""
OUTSIDE = 0.5
"""Share of the pairs without a shared term that are altered at their ends instead."""
CASES = ("title_case", "all_caps", "lower_case")
KINDS = (
    *("joined", "copied", "no_final_stop", "swapped_terms", "tags", "quotes", "typos"),
    *CASES,
)
"""In the order in which a pair gets them; of `CASES` it gets one."""
SOURCE_ONLY = ("typos", "lower_case")

Pair = tuple[str, str]
Row = tuple[str, str | None]
Alteration = Callable[[str, str, Random], Pair | None]
"""(src, trg) altered, or None where the kind has nothing to alter."""


class Augmenter:
    """Alters the training pairs of a corpus, in their order; `counts` says how many, by kind.

    A pair is replaced by its altered form. Source text without a target stays as it is, and so does
    a pair whose altered form is longer than `clean.max_chars` or stands in held-out text.
    `held_out`: the keys of validation and test text.
    """

    def __init__(self, corpus: CorpusConfig, seed: int, held_out: set[str]) -> None:
        self._config = corpus.augment
        self._seed = seed
        self._max_chars = corpus.clean.max_chars
        self._held_out = held_out if corpus.clean.drop_overlap else set()
        self._random = Random()
        marks = KEYBOARD_MARKS if corpus.plain_source else MARKS
        self._alterations = ALTERATIONS | {
            "copied": partial(copied, plain=corpus.plain_source),
            "quotes": partial(quotes, marks=marks, exchange=not corpus.plain_source),
        }
        asked = [kind for kind in KINDS if getattr(self._config, kind)]
        self.counts = dict.fromkeys(["pairs", *asked], 0)

    def batches(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Row]]:
        """The rows altered, numbered from 0; the last of a batch waits for the next batch."""
        first, waiting = 0, list[Row]()
        for batch in batches:
            rows = [*waiting, *batch]
            ready = max(0, len(rows) - 1)
            yield self._altered(rows, first, ready)
            first, waiting = first + ready, rows[ready:]
        yield self._altered(waiting, first, len(waiting))

    def _altered(self, rows: Sequence[Row], first: int, count: int) -> list[Row]:
        """The first `count` rows altered; one behind them may be joined to the last."""
        altered = list(rows[:count])
        for place, kinds, seed in draws(self._config, self._seed, first, count):
            src, trg = rows[place]
            if trg is not None:
                self._random.seed(seed)
                following = rows[place + 1] if place + 1 < len(rows) else None
                altered[place] = self._alter((src, trg), kinds, following)
        return altered

    def _alter(self, pair: Pair, kinds: Sequence[str], following: Row | None) -> Pair:
        altered, done = pair, list[str]()
        for kind in kinds:
            if kind in SOURCE_ONLY and "copied" in done:
                continue
            if kind == "joined":
                result = joined(altered, following)
            else:
                result = self._alterations[kind](*altered, self._random)
            if result and result != altered and max(map(len, result)) <= self._max_chars:
                altered = result
                done.append(kind)
        if not done or any(bare(side) in self._held_out for side in altered):
            return pair
        for kind in ("pairs", *done):
            self.counts[kind] += 1
        return altered


# --- which pairs -------------------------------------------------------------------------------


def draws(
    config: AugmentConfig, seed: int, first: int, count: int
) -> Iterator[tuple[int, list[str], int]]:
    """(place, kinds, seed) of the pairs that are to be altered, of `count` from number `first` on.

    Each kind is drawn by itself; the kinds of case share a draw, since they exclude each other.
    """
    others = KINDS[: -len(CASES)]
    numbers = np.arange(first, first + count, dtype=np.uint64)
    random = _hashes(seed, numbers, len(others) + 2)
    uniform = (random[:, :-1] >> np.uint64(11)) * 2.0**-53
    rates = np.array([getattr(config, kind) for kind in others])
    cases = np.cumsum([getattr(config, kind) for kind in CASES])
    drawn = uniform[:, :-1] < rates
    case = np.searchsorted(cases, uniform[:, -1], side="right")
    for place in np.flatnonzero(drawn.any(axis=1) | (case < len(CASES))).tolist():
        kinds = [kind for kind, is_drawn in zip(others, drawn[place], strict=True) if is_drawn]
        kinds += CASES[case[place] : case[place] + 1]
        yield place, kinds[:MOST_KINDS], int(random[place, -1])


def _hashes(seed: int, numbers: np.ndarray, width: int) -> np.ndarray:
    """uint64 (numbers, width): SplitMix64 (Steele et al. 2014) of seed, number and column."""
    start = np.uint64(Random(f"augment {seed}").getrandbits(64))
    columns = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    state = start + numbers[:, None] * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(_mixed(state) + columns)


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


# --- sentences ---------------------------------------------------------------------------------


_CLOSING = "\"'”“’‘»«›‹)] "


def joined(pair: Pair, following: Row | None) -> Pair | None:
    """The pair with the one behind it, where both sides end as sentences do."""
    if following is None or following[1] is None:
        return None
    if any(side.rstrip(_CLOSING)[-1:] not in (".", "!", "?", "…") for side in pair):
        return None
    return f"{pair[0]} {following[0]}", f"{pair[1]} {following[1]}"


def copied(src: str, trg: str, random: Random, plain: bool = False) -> Pair | None:
    """The target on both sides; with `plain`, in plain characters, as sources are."""
    text = plain_characters(trg).strip() if plain else trg
    return (text, text) if text else None


def no_final_stop(src: str, trg: str, random: Random) -> Pair | None:
    """Without the `.` or `!` that ends both sides; an ellipsis stays."""
    if any(side[-1:] not in (".", "!") or side.endswith("..") for side in (src, trg)):
        return None
    src, trg = src[:-1].rstrip(), trg[:-1].rstrip()
    return (src, trg) if src and trg else None


_WORD_START = re.compile(r"(?<!\w)(?<!\w['’])[^\W\d_]")


def _titled(text: str) -> str:
    return _WORD_START.sub(lambda found: found[0].title(), text)


def title_case(src: str, trg: str, random: Random) -> Pair | None:
    """Every Word Of Both Sides With a Capital, whatever the language does in its own titles."""
    return in_prose(src, _titled), in_prose(trg, _titled)


def all_caps(src: str, trg: str, random: Random) -> Pair | None:
    """BOTH SIDES IN CAPITALS."""
    return in_prose(src, str.upper), in_prose(trg, str.upper)


def lower_case(src: str, trg: str, random: Random) -> Pair | None:
    """the source in small letters."""
    return in_prose(src, str.lower), trg


# --- shared terms ------------------------------------------------------------------------------


def swapped_terms(src: str, trg: str, random: Random) -> Pair | None:
    """With something to copy in place of a shared term, or before or behind some of the others."""
    if terms := shared_terms(src, trg):
        term, new = random.choice(terms), term_to_copy(random)
        return src.replace(term, new), trg.replace(term, new)
    if random.random() >= OUTSIDE:
        return None
    new = addition_to_copy(random)
    if random.random() < 0.3:
        return f"{new} {src}", f"{new} {trg}"
    return f"{src} {new}", f"{trg} {new}"


_CODE_TAGS = (("<code>", "</code>"), ("`", "`"), ("<kbd>", "</kbd>"))
_NAMES = ("b", "b", "i", "em", "strong", "u", "span", "small", "mark", "g", "1", "2", "0")


def _tag(random: Random) -> Pair:
    kind = random.random()
    if kind < 0.15:
        return f'<a href="{url(random)}">', "</a>"
    if kind < 0.25:
        return random.choice(
            (("**", "**"), ("*", "*"), ("__", "__"), ("~~", "~~"), ("[", f"]({url(random)})"))
        )
    name = random.choice(_NAMES)
    more = f' id="{random.randrange(10)}"' if kind < 0.4 and name.isalpha() else ""
    return f"<{name}{more}>", f"</{name}>"


def tags(src: str, trg: str, random: Random) -> Pair | None:
    """With a shared term inside a pair of inline tags, or some of the other sentences whole."""
    if terms := shared_terms(src, trg):
        before, behind = random.choice(_CODE_TAGS) if random.random() < 0.1 else _tag(random)
        return _wrapped(src, trg, random.choice(terms), before, behind)
    if random.random() >= OUTSIDE:
        return None
    before, behind = _tag(random)
    return f"{before}{src}{behind}", f"{before}{trg}{behind}"


def _wrapped(src: str, trg: str, term: str, before: str, behind: str) -> Pair:
    new = f"{before}{term}{behind}"
    return src.replace(term, new), trg.replace(term, new)


# --- typing ------------------------------------------------------------------------------------


KEYBOARD_MARKS = (('"', '"'), ("'", "'"))
MARKS = (
    *KEYBOARD_MARKS,
    *(("“", "”"), ("‘", "’"), ("„", "“"), ("‚", "‘"), ("„", "”"), ("”", "”")),
    *(("«", "»"), ("»", "«"), ("« ", " »"), ("‹", "›"), ("›", "‹")),
)
_QUOTED = re.compile("[\"“”„‟«»‹›]|(?<!\\w)['‘‚]")
_DASH = re.compile(" [-–—] ")
_DASHES = (" - ", " – ", " — ")
_ELLIPSIS = re.compile(r"(?<!\.)\.\.\.(?!\.)|…")
_ELLIPSES = ("...", "…")


def quotes(
    src: str,
    trg: str,
    random: Random,
    marks: Sequence[Pair] = MARKS,
    exchange: bool = True,
) -> Pair | None:
    """With the sentence or a shared term in the same quotation marks on both sides or, with
    `exchange`, with another dash or ellipsis where both sides have one."""
    if exchange and random.random() < OUTSIDE:
        for pattern, forms in ((_DASH, _DASHES), (_ELLIPSIS, _ELLIPSES)):
            former = pattern.findall(src)
            if len(former) == 1 and len(pattern.findall(trg)) == 1:
                new = random.choice([form for form in forms if form != former[0]])
                return pattern.sub(new, src), pattern.sub(new, trg)
    if _QUOTED.search(src) or _QUOTED.search(trg):
        return None
    before, behind = random.choice(marks)
    terms = shared_terms(src, trg)
    if terms and random.random() < 0.5:
        return _wrapped(src, trg, random.choice(terms), before, behind)
    return f"{before}{src}{behind}", f"{before}{trg}{behind}"


_LONG_WORD = re.compile(r"(?<![\w'’])[^\W\d_]{4,}(?!\w)")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Of each letter, those beside, above and below it on a QWERTY keyboard."""
    places = {key: (x, y) for y, row in enumerate(_ROWS) for x, key in enumerate(row)}
    return {
        key: "".join(
            other
            for other, (x, y) in places.items()
            if other != key and abs(x - at[0]) <= 1 and abs(y - at[1]) <= 1
        )
        for key, at in places.items()
    }


_KEYS = _neighbours()


def misspelt(word: str, random: Random) -> str:
    """The word with a letter left out, doubled, changed for a neighbour on the keyboard, or two
    exchanged; at least two letters."""
    at = random.randrange(len(word) - 1)
    before, letter, following, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    way = random.randrange(4)
    if way == 0 and letter != following:
        return before + following + letter + rest
    if way == 1 and letter.lower() in _KEYS:
        key = random.choice(_KEYS[letter.lower()])
        return before + (key.upper() if letter.isupper() else key) + following + rest
    if way == 2:
        return before + letter * 2 + following + rest
    return before + following + rest


def typos(src: str, trg: str, random: Random) -> Pair | None:
    """With one or two words of the source's prose misspelt, of four letters or more."""
    cut = pieces(src)
    words = [
        (place, found.start(), found.end())
        for place in range(0, len(cut), 2)
        for found in _LONG_WORD.finditer(cut[place])
    ]
    if not words:
        return None
    for place, start, end in sorted(
        random.sample(words, min(len(words), random.choice((1, 1, 2)))), reverse=True
    ):
        text = cut[place]
        cut[place] = text[:start] + misspelt(text[start:end], random) + text[end:]
    return "".join(cut), trg


ALTERATIONS: dict[str, Alteration] = {
    "no_final_stop": no_final_stop,
    "swapped_terms": swapped_terms,
    "tags": tags,
    "typos": typos,
    "title_case": title_case,
    "all_caps": all_caps,
    "lower_case": lower_case,
}

"""Which training pairs are dropped and why; and noise for studies of text complexity.

A new rule is one entry in `build_rules`. Rules look at one pair; duplicates need the whole corpus
and are found on disk, so memory stays flat.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from training.config.recipe import CleanConfig, CorpusConfig, NoiseKind
from training.data.readers import INVALID_UTF8, MALFORMED, CorpusError, RawPair

DUPLICATE = "duplicate"
LANGUAGE_CONFIDENCE = 0.5
"""Probability (0 to 1) from which the language identifier is believed against the recipe."""
MARKS_AT_ONCE = 1 << 20

# C0 and C1 controls that are not white space, and the noncharacters of the basic plane
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]")


@dataclass(frozen=True)
class Rule:
    """A reason to drop a pair; `drops(src, trg)` sees both sides normalised, `trg` None where the
    text has none."""

    name: str
    drops: Callable[[str, str | None], bool]


@dataclass(frozen=True)
class CleanPair:
    """A normalised pair, and the name of the rule that drops it, if any."""

    src: str
    trg: str | None
    dropped_by: str | None = None


def normalise(text: str) -> str:
    """Unicode NFC; white space of every kind becomes one space between words."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


_PLAIN = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‘’‚‛‹›ʼ′", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        **dict.fromkeys("\u2014\u2015", " - "),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", ""),
        "…": "...",
    }
)


def plain_characters(text: str) -> str:
    """Typographic quotes, dashes, ellipses and spaces as those of a keyboard; soft hyphens and
    spaces without width left out."""
    return text if text.isascii() else text.translate(_PLAIN)


class _Bare(dict[int, str | None]):
    """A translation table that keeps letters, marks and digits; filled as characters appear."""

    def __missing__(self, code: int) -> str | None:
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = chr(code) if kept else None
        return self[code]


_BARE = _Bare()


def bare(text: str) -> str:
    """What is left of a text for the overlap rule: case-folded, no punctuation, no spaces."""
    return text.casefold().translate(_BARE)


def held_out_keys(texts: Iterable[str]) -> set[str]:
    """The bare forms of validation and test text; text without a letter or digit has none."""
    return {bare(normalise(text)) for text in texts} - {""}


def build_rules(corpus: CorpusConfig, held_out: set[str]) -> list[Rule]:
    """The rules that a recipe asks for, in the order in which they are tried.

    `held_out`: the keys of validation and test text. Raises CorpusError where a language is to be
    checked that the identifier does not know.
    """
    config = corpus.clean
    rules = [
        Rule("empty", lambda src, trg: not src or trg == ""),
        Rule("too_long", lambda src, trg: max(len(src), len(trg or "")) > config.max_chars),
        Rule("length_ratio", lambda src, trg: _ratio_is_off(src, trg, config)),
    ]
    if config.drop_control:
        rules.append(Rule("control_characters", _has_control))
    if config.drop_equal:
        rules.append(Rule("equal_sides", lambda src, trg: src == trg))
    if config.drop_overlap:
        rules.append(
            Rule("overlap", lambda src, trg: bare(src) in held_out or bare(trg or "") in held_out)
        )
    if config.check_language:
        rules.append(Rule("wrong_language", _language_check(corpus)))
    return rules


def rule_names(corpus: CorpusConfig, rules: list[Rule]) -> list[str]:
    """Every name that may stand in the report, faults of the files first, duplicates last."""
    last = [DUPLICATE] if corpus.clean.drop_duplicates else []
    return [INVALID_UTF8, MALFORMED, *(rule.name for rule in rules), *last]


def clean(pair: RawPair, rules: list[Rule]) -> CleanPair:
    """Normalise a pair and try the rules; the first that drops it is named."""
    if pair.fault is not None:
        return CleanPair("", "", pair.fault)
    src = normalise(pair.src)
    trg = None if pair.trg is None else normalise(pair.trg)
    for rule in rules:
        if rule.drops(src, trg):
            return CleanPair(src, trg, rule.name)
    return CleanPair(src, trg)


def _ratio_is_off(src: str, trg: str | None, config: CleanConfig) -> bool:
    if trg is None:
        return False
    short, long = sorted((len(src), len(trg)))
    return long >= config.ratio_min_chars and long > config.max_ratio * short


def _has_control(src: str, trg: str | None) -> bool:
    return _CONTROL.search(src) is not None or _CONTROL.search(trg or "") is not None


# --- language ----------------------------------------------------------------------------------


@cache
def _identifier() -> Callable[[str], tuple[str, float]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify


@cache
def _known_languages() -> frozenset[str]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return frozenset(LanguageIdentifier.from_model_file(MODEL_FILE).labels)


def _language_check(corpus: CorpusConfig) -> Callable[[str, str | None], bool]:
    languages = [code.lower().partition("-")[0] for code in (corpus.src_lang, corpus.trg_lang)]
    for field, language in zip(("src_lang", "trg_lang"), languages, strict=True):
        if language not in _known_languages():
            raise CorpusError(
                f"corpus.clean.check_language: the identifier does not know {field} {language!r}; "
                f"set check_language to false"
            )
    identify = _identifier()

    def is_other(text: str, language: str) -> bool:
        if len(text) < corpus.clean.language_min_chars:
            return False
        found, probability = identify(text)
        return found != language and probability >= LANGUAGE_CONFIDENCE

    return lambda src, trg: (
        is_other(src, languages[0]) or (trg is not None and is_other(trg, languages[1]))
    )


# --- duplicates --------------------------------------------------------------------------------


class DuplicateFinder:
    """Finds every pair that an earlier one equals, with flat memory.

    Source text alone (a pair whose target is None) is a duplicate where earlier such text or, with
    `monolingual`, any pair at all has the same source: the teacher is asked a sentence once.

    Digests (BLAKE2b, 128 bits: a false hit among 10⁹ pairs has a chance of 10⁻²¹) go to `parts`
    files by their first byte; each file is then sorted alone. At 24 bytes a pair, 10⁹ pairs are
    24 GB on disk and 94 MB a file; `monolingual` doubles that.
    """

    _ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])

    def __init__(self, folder: Path, parts: int = 256, monolingual: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._monolingual = monolingual
        self._files = [folder / f"digests.{part}" for part in range(parts)]
        self._marks = folder / "duplicates"
        self._rows = 0

    def add(self, pairs: list[tuple[str, str | None]]) -> None:
        """The next pairs; rows are numbered from 0 in the order in which they are added."""
        numbers = np.arange(self._rows, self._rows + len(pairs))
        self._write([f"{src}\n{trg or ''}" for src, trg in pairs], numbers)
        self._rows += len(pairs)
        if self._monolingual:
            # Sorted before every row, a pair's source alone makes duplicates but is never one.
            sources = [f"{src}\n" for src, trg in pairs if trg is not None]
            self._write(sources, np.full(len(sources), -1))

    def _write(self, texts: list[str], numbers: np.ndarray) -> None:
        digests = b"".join(blake2b(text.encode(), digest_size=16).digest() for text in texts)
        rows = np.empty(len(texts), dtype=self._ROW)
        halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
        rows["row"] = numbers
        parts = (rows["high"] % len(self._files)).astype(np.int64)
        order = np.argsort(parts, kind="stable")
        ends = np.searchsorted(parts[order], np.arange(len(self._files)), side="right")
        for path, part in zip(self._files, np.split(rows[order], ends[:-1]), strict=True):
            if len(part):
                with path.open("ab") as file:
                    file.write(part.tobytes())

    def marks(self) -> np.ndarray:
        """bool (rows,), on disk: True where an earlier row holds the same pair."""
        if not self._rows:
            return np.zeros(0, dtype=bool)
        # Written before it is mapped: on a full disk a write raises, and a mapped page kills.
        with self._marks.open("wb") as file:
            for start in range(0, self._rows, MARKS_AT_ONCE):
                file.write(bytes(min(MARKS_AT_ONCE, self._rows - start)))
        marks = np.memmap(self._marks, dtype=bool, mode="r+", shape=(self._rows,))
        for path in self._files:
            if path.exists():
                rows = np.fromfile(path, dtype=self._ROW)
                rows = rows[np.lexsort((rows["row"], rows["low"], rows["high"]))]
                same = rows["high"][1:] == rows["high"][:-1]
                same &= rows["low"][1:] == rows["low"][:-1]
                repeated = rows["row"][1:][same]
                marks[repeated[repeated >= 0]] = True
        return marks


# --- noise -------------------------------------------------------------------------------------


def noisy(
    text: str,
    strength: float,
    generator: random.Random,
    kinds: Sequence[NoiseKind] = ("drop", "swap", "typo"),
) -> str:
    """The text with about `strength` (a share of 1) of its words disturbed, by each kind alike.

    A word is left out, changes places with the next one, has two neighbouring letters exchanged, or
    gives way to another word of the text. Never empty where the text is not.
    """
    words: list[str] = []
    postponed: str | None = None
    given = text.split(" ")
    for word in given:
        kind = generator.choice(kinds) if generator.random() < strength else None
        if kind == "swap" and postponed is None:
            postponed = word
            continue
        if kind == "replace":
            word = generator.choice(given)
        if kind != "drop":
            words.append(typo(word, generator) if kind == "typo" else word)
        if postponed is not None:
            words.append(postponed)
            postponed = None
    if postponed is not None:
        words.append(postponed)
    return " ".join(words) or text


def typo(word: str, generator: random.Random) -> str:
    """The word with two neighbouring characters exchanged; one of a single character stays."""
    if len(word) < 2:
        return word
    at = generator.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

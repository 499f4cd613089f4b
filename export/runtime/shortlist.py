"""A lexical shortlist: the words that a sentence may become, from the words that it has; no torch.

The output layer of a model with a large vocabulary is most of its work. Firefox's and Marian's
models come with a lexicon that lists, for each source word, the words it may become; only those and
the most frequent words are scored. Here the candidates are each sentence's own: a batch computes
their union, and a sentence chooses among its own, so that neighbours change nothing.

`shortlist.bin`, little endian: the magic `QSLIST3`, then four uint64 (source words U, target words
V, listed words, frequent words), the listed words, each plus V times the number of the source word
that lists it, by Elias and Fano (`elias_fano.py`), and the frequent words as uint32. Bundles of
former versions have three uint64 (source words + 1, listed words, frequent words), then offsets,
listed words and frequent words: as int64, int32 and int32 (`QSLIST1`), or as uint32, uint16 and
uint16 (`QSLIST2`).

Shapes: U source vocabulary, V target vocabulary, B batch, C candidates.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from export.runtime import elias_fano
from export.runtime.bundle import read_small
from export.runtime.manifest import BundleError

SHORTLIST_FILE = "shortlist.bin"
MAX_BYTES = 256 << 20
MAGIC = b"QSLIST3\n"
HEADER = struct.Struct("<4Q")
FORMER_LAYOUTS = {b"QSLIST1\n": ("<i8", "<i4"), b"QSLIST2\n": ("<u4", "<u2")}
"""Types of offsets and words by magic."""
MAGIC_SIZE = 8
FORMER_HEADER = struct.Struct("<3Q")
MULTIPLE = 8
"""Marian fills candidates up to a multiple of this, and what it fills up with can be chosen."""
EOS = 3
EXCLUDED = np.float32(-1e9)
"""Added to the logit of a candidate that is a neighbour's alone."""
CACHED_SOURCES = 256


@dataclass(frozen=True)
class Shortlist:
    """Words of source id s are `targets[offsets[s]:offsets[s + 1]]`, `always` those of all."""

    offsets: NDArray[np.int64]
    """[U + 1]"""
    targets: NDArray[np.int32]
    always: NDArray[np.int32]

    def __post_init__(self) -> None:
        always = np.union1d(self.always, [EOS]).astype(np.int32)
        object.__setattr__(self, "always", always)
        cached = lru_cache(CACHED_SOURCES)(self._candidates)
        object.__setattr__(self, "_cached", cached)

    @classmethod
    def of(cls, lists: Sequence[ArrayLike], always: ArrayLike) -> Shortlist:
        """A shortlist of the words listed for each source id, and those of all."""
        words = [np.sort(np.asarray(chosen, dtype=np.int32)) for chosen in lists]
        offsets = np.cumsum([0, *map(len, words)], dtype=np.int64)
        targets = np.concatenate([np.zeros(0, np.int32), *words])
        return cls(offsets, targets, np.asarray(always, dtype=np.int32))

    @cached_property
    def _end(self) -> int:
        """One more than the last word that is listed."""
        return 1 + int(max(self.targets.max(initial=0), self.always.max()))

    @property
    def source_vocab_size(self) -> int:
        return len(self.offsets) - 1

    def candidates(self, src: Sequence[int]) -> NDArray[np.int64]:
        """The sorted ids [C] that one sentence of these source ids may become, EOS among them."""
        return self._cached(tuple(sorted(set(src))))  # type: ignore[attr-defined]

    def _candidates(self, src: tuple[int, ...]) -> NDArray[np.int64]:
        is_candidate = np.zeros(self._end, dtype=bool)
        lists = [self.targets[self.offsets[word] : self.offsets[word + 1]] for word in src]
        is_candidate[np.concatenate([self.always, *lists])] = True
        words = np.flatnonzero(is_candidate)
        if missing := -len(words) % MULTIPLE:
            # The next words by frequency that are not there yet.
            first = int(self.always[-1]) + 1
            free = first + np.flatnonzero(~is_candidate[first : first + len(words) + missing])
            more = np.concatenate([free, np.arange(self._end, self._end + missing)])[:missing]
            words = np.sort(np.concatenate([words, more]))
        return words.astype(np.int64)

    def within(self, src: Sequence[int], vocab_size: int) -> NDArray[np.int64]:
        """The candidates of one sentence that lie in a vocabulary."""
        words = self.candidates(src)
        return words[words < vocab_size]

    def of_batch(
        self, sources: Sequence[Sequence[int]], vocab_size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The candidates [C] of a batch of source ids, and what is added to the logits [B, C] of
        each sentence, `EXCLUDED` for candidates that are not its own."""
        lists = [self.within(source, vocab_size) for source in sources]
        if len(lists) == 1:
            return lists[0], np.zeros((1, len(lists[0])), np.float32)
        is_candidate = np.zeros(vocab_size, dtype=bool)
        for words in lists:
            is_candidate[words] = True
        candidates = np.flatnonzero(is_candidate)
        place = np.cumsum(is_candidate) - 1
        mask = np.full((len(lists), len(candidates)), EXCLUDED, np.float32)
        for row, words in enumerate(lists):
            mask[row, place[words]] = 0
        return candidates, mask

    def to_bytes(self) -> bytes:
        """The content of `shortlist.bin`."""
        sources, words = self.source_vocab_size, self._end
        lists = np.repeat(np.arange(sources, dtype=np.int64), np.diff(self.offsets))
        listed = elias_fano.pack(lists * words + self.targets, sources * words)
        header = HEADER.pack(sources, words, len(self.targets), len(self.always))
        return b"".join([MAGIC, header, listed, self.always.astype("<u4").tobytes()])


def read_shortlist(path: Path, source_vocab_size: int, vocab_size: int) -> Shortlist:
    """Read `shortlist.bin`. Raises BundleError where it does not fit itself or the vocabularies."""
    try:
        data = read_small(path, MAX_BYTES)
        shortlist = _parse(data, source_vocab_size, vocab_size)
        _check(shortlist, source_vocab_size, vocab_size)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is no shortlist of this bundle ({error}): import or export it again"
        ) from error
    return shortlist


def _parse(data: bytes, source_vocab_size: int, vocab_size: int) -> Shortlist:
    if not data.startswith(MAGIC):
        return _parse_former(data)
    start = MAGIC_SIZE + HEADER.size
    if len(data) < start:
        raise ValueError(f"it has {len(data)} bytes, fewer than its header")
    sources, words, listed, always = HEADER.unpack_from(data, MAGIC_SIZE)
    _check_sources(sources, source_vocab_size)
    if words > vocab_size:
        raise ValueError(f"it lists words beyond the vocabulary of {vocab_size}")
    frequent = start + elias_fano.packed_size(listed, sources * words)
    if (needed := frequent + 4 * always) != len(data):
        raise ValueError(f"it has {len(data)} bytes and its header needs {needed}")
    numbers = elias_fano.unpack(data[start:frequent], listed, sources * words)
    return Shortlist(
        np.searchsorted(numbers, np.arange(sources + 1, dtype=np.int64) * words),
        (numbers % max(words, 1)).astype(np.int32),
        np.frombuffer(data, "<u4", always, frequent).astype(np.int64),
    )


def _parse_former(data: bytes) -> Shortlist:
    magic = data[:MAGIC_SIZE]
    start = MAGIC_SIZE + FORMER_HEADER.size
    if len(data) < start or magic not in FORMER_LAYOUTS:
        raise ValueError(f"it does not begin with {MAGIC!r}")
    offset, word = map(np.dtype, FORMER_LAYOUTS[magic])
    offsets, targets, always = FORMER_HEADER.unpack_from(data, MAGIC_SIZE)
    words = start + offset.itemsize * offsets
    needed = words + word.itemsize * (targets + always)
    if needed != len(data):
        raise ValueError(f"it has {len(data)} bytes and its header needs {needed}")
    return Shortlist(
        np.frombuffer(data, offset, offsets, start).astype(np.int64),
        np.frombuffer(data, word, targets, words).astype(np.int32),
        np.frombuffer(data, word, always, words + word.itemsize * targets).astype(np.int32),
    )


def _check_sources(found: int, source_vocab_size: int) -> None:
    if found != source_vocab_size:
        raise ValueError(f"it lists words for {found} source pieces, there are {source_vocab_size}")


def _check(shortlist: Shortlist, source_vocab_size: int, vocab_size: int) -> None:
    offsets = shortlist.offsets
    _check_sources(len(offsets) - 1, source_vocab_size)
    if offsets[0] != 0 or offsets[-1] != len(shortlist.targets) or (np.diff(offsets) < 0).any():
        raise ValueError("its offsets do not ascend from 0 to the number of words")
    for words in (shortlist.targets, shortlist.always):
        if len(words) and not 0 <= words.min() <= words.max() < vocab_size:
            raise ValueError(f"it lists words beyond the vocabulary of {vocab_size}")

"""Lexical shortlists: the target words that a source word may become.

Firefox, Bergamot and Marian score, for each batch, only the words that a statistical lexicon lists
for the source words, and the most frequent words. Their binary file (`BinaryShortlistGenerator` in
browsermt/marian-dev, src/data/shortlist.cpp), little-endian:

```
uint64 magic 0xF11A48D5013417F5, uint64 checksum of what follows
uint64 frequent words, uint64 words listed a source word
uint64 number of offsets (source vocabulary + 1), uint64 number of listed words
uint64 offsets…, uint32 listed words…
```

Shapes: U source vocabulary, V target vocabulary.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.pretrained.files import PretrainedError
from training.pretrained.vocabulary import EOS, Vocabulary

MAGIC = 0xF11A48D5013417F5
HEADER = struct.Struct("<6Q")
MULTIPLE = 8
"""Marian's products need a number of words that is a multiple of this."""


@dataclass(frozen=True)
class Lexicon:
    """The words that the sources may become, in our ids.

    Words of source id s are `targets[offsets[s]:offsets[s + 1]]`.
    """

    offsets: NDArray[np.int64]
    """[U + 1]"""
    targets: NDArray[np.int32]
    """[n], each list sorted"""
    always: NDArray[np.int32]
    """[k], the most frequent words and EOS, sorted"""
    fill: NDArray[np.int32]
    """[V − frequent words], all other words in the order in which Marian fills up with them"""

    def candidates(self, src: Sequence[int], with_source: bool = False) -> NDArray[np.int32]:
        """Sorted ids of the words that one source sentence may become, EOS among them.

        `src` are its ids, EOS last. Marian fills up to a multiple of eight, and with a vocabulary
        that both sides share it adds the source's own words: `with_source`. Marian asks for all
        sentences of a batch at once, which lets them change each other's translations; this asks
        for one.
        """
        lists = [self.targets[self.offsets[s] : self.offsets[s + 1]] for s in set(src)]
        own = np.asarray(src if with_source else [], dtype=np.int32)
        words = np.unique(np.concatenate([self.always, own, *lists]))
        missing = -len(words) % MULTIPLE
        if missing:
            following = self.fill[: len(words) + missing]
            extra = following[~np.isin(following, words)][:missing]
            words = np.sort(np.concatenate([words, extra]))
        return words


def read_lexicon(data: bytes, origin: str, source: Vocabulary, target: Vocabulary) -> Lexicon:
    """The lexicon in a binary file's bytes, in our ids.

    Raises PretrainedError where the file is none or does not fit the vocabularies.
    """
    first, offsets, words = _parse(data, origin)
    source_ids, target_ids = source.our_ids, target.our_ids
    if len(offsets) != len(source_ids) + 1:
        raise PretrainedError(
            f"{origin}: lists for {len(offsets) - 1} source words, the vocabulary has "
            f"{len(source_ids)}; take the lexicon of the same model"
        )
    if len(words) and int(words.max()) >= len(target_ids):
        raise PretrainedError(
            f"{origin}: lists word {words.max()}, the vocabulary has {len(target_ids)} words; take "
            "the lexicon of the same model"
        )
    listed = target_ids[words]
    owner = np.repeat(source_ids, np.diff(offsets))
    kept = (listed >= 0) & (owner >= 0)
    order = np.lexsort((listed[kept], owner[kept]))
    lengths = np.bincount(owner[kept], minlength=len(source))
    frequent, others = target_ids[:first], target_ids[first:]
    return Lexicon(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        targets=listed[kept][order].astype(np.int32),
        always=np.union1d(frequent[frequent >= 0], [EOS]).astype(np.int32),
        fill=others[others >= 0].astype(np.int32),
    )


def _parse(data: bytes, origin: str) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Number of frequent words, offsets and listed words, as the file has them."""
    if len(data) < HEADER.size:
        raise PretrainedError(f"{origin}: {len(data)} bytes, no binary lexicon")
    magic, _, first, _, offset_count, word_count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise PretrainedError(f"{origin}: no binary lexicon, it begins with {magic:#x}")
    needed = HEADER.size + 8 * offset_count + 4 * word_count
    if needed != len(data):
        raise PretrainedError(f"{origin}: {len(data)} bytes, but its header needs {needed}")
    if not offset_count:
        raise PretrainedError(f"{origin}: it has no offsets")
    raw = np.frombuffer(data, "<u8", offset_count, HEADER.size)
    if raw[0] != 0 or raw[-1] != word_count or (raw[1:] < raw[:-1]).any():
        raise PretrainedError(
            f"{origin}: damaged, its offsets do not ascend from 0 to {word_count}"
        )
    words = np.frombuffer(data, "<u4", word_count, HEADER.size + 8 * offset_count)
    return first, raw.astype(np.int64), words.astype(np.int64)

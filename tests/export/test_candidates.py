"""The shortlist of a bundle: each sentence's own candidates, and a file that is not trusted."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from export.runtime.manifest import BundleError
from export.runtime.shortlist import (
    EOS,
    EXCLUDED,
    FORMER_HEADER,
    FORMER_LAYOUTS,
    HEADER,
    MAGIC,
    Shortlist,
    read_shortlist,
)

SOURCES, TARGETS = 6, 40
LARGE, SMALL = sorted(FORMER_LAYOUTS)


def shortlist() -> Shortlist:
    """Source word 4 may become 20, 21 and 30, word 5 becomes 21 and 39, the others nothing."""
    offsets = np.array([0, 0, 0, 0, 0, 3, 5], np.int64)
    targets = np.array([20, 21, 30, 21, 39], np.int32)
    return Shortlist(offsets, targets, np.array([4, 5, 6], np.int32))


def test_candidates_are_the_words_of_a_sentence_and_the_frequent_ones() -> None:
    # 4, 5, 6 are frequent, 3 is EOS, 7 fills up to eight
    assert shortlist().candidates([4, EOS]).tolist() == [3, 4, 5, 6, 7, 20, 21, 30]
    assert shortlist().candidates([EOS]).tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert shortlist().candidates([5, 4, 4]).tolist() == [3, 4, 5, 6, 20, 21, 30, 39]


def test_what_fills_up_is_not_there_twice() -> None:
    offsets, targets = np.array([0, 1], np.int64), np.array([7], np.int32)
    words = Shortlist(offsets, targets, np.array([4, 5, 6], np.int32)).candidates([0])
    assert words.tolist() == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_batch_computes_the_union_and_hides_what_is_a_neighbours() -> None:
    words = shortlist()
    candidates, mask = words.of_batch([[4, EOS], [5, EOS]], TARGETS)
    assert candidates.tolist() == [3, 4, 5, 6, 7, 8, 20, 21, 30, 39]
    for row, source in enumerate(([4, EOS], [5, EOS])):
        own = candidates[mask[row] == 0]
        assert own.tolist() == words.candidates(source).tolist()
        assert (mask[row][~np.isin(candidates, own)] == EXCLUDED).all()


def test_candidates_beyond_the_vocabulary_are_left_out() -> None:
    candidates, mask = shortlist().of_batch([[EOS]], 8)
    assert candidates.max() < 8
    assert mask.shape == (1, len(candidates))


def former(magic: bytes) -> bytes:
    """The file of that shortlist in a layout of former versions."""
    words, (offset, word) = shortlist(), FORMER_LAYOUTS[magic]
    arrays = words.offsets.astype(offset), words.targets.astype(word), words.always.astype(word)
    counts = FORMER_HEADER.pack(*map(len, arrays))
    return b"".join([magic, counts, *(array.tobytes() for array in arrays)])


@pytest.mark.parametrize("data", [shortlist().to_bytes(), former(SMALL), former(LARGE)])
def test_the_file_is_read_as_it_was_written(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "shortlist.bin"
    path.write_bytes(data)
    read = read_shortlist(path, SOURCES, TARGETS)
    assert read.candidates([4, 5]).tolist() == shortlist().candidates([4, 5]).tolist()
    assert read.always.tolist() == [3, 4, 5, 6]
    assert read.targets.tolist() == shortlist().targets.tolist()
    assert read.offsets.tolist() == shortlist().offsets.tolist()


def test_a_file_of_many_words_takes_less_than_the_former_layouts(tmp_path: Path) -> None:
    chooser = np.random.default_rng(4)
    lists = [chooser.choice(20_000, chooser.integers(60), replace=False) for _ in range(2_000)]
    words = Shortlist.of(lists, range(4, 200))
    path = tmp_path / "shortlist.bin"
    path.write_bytes(words.to_bytes())
    read = read_shortlist(path, len(lists), 20_000)
    assert np.array_equal(read.targets, words.targets)
    assert np.array_equal(read.offsets, words.offsets)
    before = 4 * len(words.offsets) + 2 * len(words.targets)
    assert path.stat().st_size < 0.7 * before


def test_a_shortlist_that_lists_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shortlist.bin"
    path.write_bytes(Shortlist.of([[]] * SOURCES, [5]).to_bytes())
    read = read_shortlist(path, SOURCES, TARGETS)
    assert read.candidates([4])[:2].tolist() == [3, 5]
    assert not len(read.targets)


HEAD = len(MAGIC) + HEADER.size


def counts(sources: int = SOURCES, words: int = 40, listed: int = 5, always: int = 4) -> bytes:
    return MAGIC + HEADER.pack(sources, words, listed, always)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: b"", "does not begin"),
        (lambda d: d[:20], "fewer than its header"),
        (lambda d: d[:-1], "its header needs"),
        (lambda d: d + b"\0", "its header needs"),
        (lambda d: counts(listed=2**60) + d[HEAD:], "its header needs"),
        (lambda d: counts(always=2**62) + d[HEAD:], "its header needs"),
        (lambda d: counts(sources=2**40) + d[HEAD:], "source pieces, there are 6"),
        (lambda d: counts(words=2**40) + d[HEAD:], "beyond the vocabulary"),
        (lambda d: counts(words=2) + d[HEAD:], "header needs|ascend|holds"),
        (lambda d: d[:HEAD] + bytes(len(d) - HEAD), "it holds 0 numbers, not 5"),
        (lambda d: d[:-4] + struct.pack("<I", 40), "beyond"),
        (lambda d: former(SMALL)[:-1], "its header needs"),
        (
            lambda d: SMALL + struct.pack("<3Q", 2**60, 5, 3) + former(SMALL)[32:],
            "its header needs",
        ),
        (lambda d: former(SMALL).replace(struct.pack("<H", 39), struct.pack("<H", 40)), "beyond"),
        (lambda d: former(LARGE).replace(struct.pack("<i", 39), struct.pack("<i", -1)), "beyond"),
        (lambda d: former(SMALL)[:48] + struct.pack("<2I", 6, 5) + former(SMALL)[56:], "offsets"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "shortlist.bin"
    path.write_bytes(change(shortlist().to_bytes()))
    with pytest.raises(BundleError, match=message):
        read_shortlist(path, SOURCES, TARGETS)


def test_a_shortlist_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shortlist.bin"
    path.write_bytes(shortlist().to_bytes())
    with pytest.raises(BundleError, match="6 source pieces, there are 7"):
        read_shortlist(path, SOURCES + 1, TARGETS)


@pytest.mark.parametrize("data", [shortlist().to_bytes(), former(SMALL)], ids=["now", "former"])
def test_whatever_bytes_it_holds_it_is_refused_or_sound(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "shortlist.bin"
    generator = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        harmed = bytearray(data)
        harmed[generator.integers(len(data))] = generator.integers(256)
        path.write_bytes(harmed)
        try:
            words = read_shortlist(path, SOURCES, TARGETS)
        except BundleError:
            refused += 1
        else:
            candidates, _ = words.of_batch([[4, EOS], [5]], TARGETS)
            assert candidates.min() >= 0
            assert candidates.max() < TARGETS
    assert refused > 50

"""New sentences of old words: locally the text's, never one of its lines, repeatable."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path

import pytest

from training.data.readers import CorpusError
from training.data.synthetic import END, START, NgramModel, recombine, recombine_files


def lines_of(count: int = 300) -> list[str]:
    generator = random.Random(5)
    nouns = ["cat", "dog", "bird", "man", "child", "king", "cook", "judge", "guest", "thief"]
    verbs = ["sees", "likes", "knows"]
    return [
        f"the {generator.choice(nouns)} {generator.choice(verbs)} the {generator.choice(nouns)}"
        + generator.choice(["", " today", " and sings"])
        for _ in range(count)
    ]


def windows(line: str, size: int) -> set[tuple[str, ...]]:
    words = [START] * (size - 1) + line.split() + [END]
    return set(zip(*(words[at:] for at in range(size)), strict=False))


def test_every_few_words_stand_in_the_text() -> None:
    lines = lines_of()
    known = set().union(*(windows(line, 3) for line in lines))
    found = list(recombine(lines, 100, order=4, overlap=2))
    assert all(windows(line, 3) <= known for line in found)
    longer = set().union(*(windows(line, 4) for line in lines))
    assert not all(windows(line, 4) <= longer for line in found)  # something is recombined


def test_the_sentences_are_new_and_differ() -> None:
    lines = lines_of()
    first = list(recombine(lines, 60))
    without = first[:30]
    found = list(recombine(lines, 60, without=without))
    assert len(set(found)) == 60
    assert not {*lines, *without} & set(found)


def test_the_seed_alone_decides() -> None:
    lines = lines_of()
    assert list(recombine(lines, 40)) == list(recombine(lines, 40))
    assert list(recombine(lines, 40)) != list(recombine(lines, 40, seed=2))


def test_repeated_lines_count_once() -> None:
    lines = lines_of()
    assert list(recombine(lines * 3, 40)) == list(recombine(lines, 40))


def test_no_sentence_is_longer_than_asked_for() -> None:
    found = list(recombine(lines_of(), 40, longest=5))
    assert max(len(line.split()) for line in found) == 5


def test_walks_follow_interpolated_absolute_discounting() -> None:
    """P(w | x a) = (c − d) / n + d · kinds / n · P(w | a), by hand."""
    model = NgramModel(["x a b", "x a b", "x a c", "y a d"], order=3, overlap=1, discount=0.5)
    generator = random.Random(1)
    draws = 60_000
    counts = Counter(model._next(("x", "a"), generator) for _ in range(draws))
    expected = {
        "b": 1.5 / 3 + 1 / 3 * 2 / 4,
        "c": 0.5 / 3 + 1 / 3 * 1 / 4,
        "d": 1 / 3 * 1 / 4,
    }
    assert set(counts) == set(expected)
    for word, share in expected.items():
        assert counts[word] / draws == pytest.approx(share, abs=0.01)


def test_a_text_with_nothing_to_recombine_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"gave 0 new sentences of the 5 wanted: ask for fewer"):
        list(recombine(["one two three", "four five six"], 5))


@pytest.mark.parametrize("options", [{"order": 2, "overlap": 2}, {"overlap": 0}, {"discount": 1.0}])
def test_faulty_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"overlap|discount"):
        NgramModel([], **options)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    lines = lines_of()
    text, held_out = tmp_path / "text.en", tmp_path / "test.en"
    text.write_text("\n".join(lines) + "\n\n")
    expected = list(recombine(lines, 20))
    held_out.write_text(expected[0] + "\n")
    packed, plain = tmp_path / "new.en.gz", tmp_path / "new.en"
    recombine_files([text], packed, 20)
    assert gzip.decompress(packed.read_bytes()).decode().splitlines() == expected
    recombine_files([text], plain, 20, without=[held_out])
    found = plain.read_text().splitlines()
    assert len(found) == 20
    assert expected[0] not in found
    before = plain.read_bytes()
    text.write_text(lines[0] + "\n")
    with pytest.raises(CorpusError, match=r"gave 0 new sentences of the 20 wanted"):
        recombine_files([text], plain, 20)
    with pytest.raises(CorpusError, match=r"nowhere: cannot be read"):
        recombine_files([tmp_path / "nowhere"], plain, 20)
    assert plain.read_bytes() == before

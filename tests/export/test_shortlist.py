"""The lexical shortlist: IBM Model 1 by hand, the file, what it does to a translation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from export.ctranslate2 import write_vmap
from export.exporter import pieces_of
from export.lent_lexicon import LentLexicon
from export.lexical_shortlist import (
    LENT_SEEN,
    SHORTLIST_ALWAYS,
    UNCOVERED_SEEN,
    lexical_shortlist,
)
from export.runtime.bundle import Bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.shortlist import MULTIPLE, SHORTLIST_FILE, Shortlist, read_shortlist
from tests.export import tiny
from training.data.lexical_table import lexical_table


def as_dict(table) -> dict[tuple[int, int], float]:  # type: ignore[no-untyped-def]
    return {
        (int(src), int(trg)): float(p)
        for src, trg, p in zip(table.src, table.trg, table.probability, strict=True)
    }


def ids(*rows: tuple[list[int], list[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array(src), np.array(trg)) for src, trg in rows]


def test_ibm_model_1_by_hand() -> None:
    """One step from flat: "0 1 → 5 6", "0 → 5". Word 0 gets ½ + 1 of the 5s and ½ of the 6s."""
    once = as_dict(lexical_table(ids(([0, 1], [5, 6]), ([0], [5])), 10, iterations=1))
    assert once == pytest.approx(
        {(0, 5): 1.5 / 2, (0, 6): 0.5 / 2, (1, 5): 0.5, (1, 6): 0.5}, abs=1e-12
    )
    twice = as_dict(lexical_table(ids(([0, 1], [5, 6]), ([0], [5])), 10, iterations=2))
    five, six = 0.75 / 1.25 + 1, 0.25 / 0.75
    assert twice[0, 5] == pytest.approx(five / (five + six), abs=1e-12)


def test_it_finds_the_translations_and_sums_to_one() -> None:
    chooser = np.random.default_rng(3)
    rows = [chooser.choice(20, 6, replace=False) for _ in range(300)]
    table = lexical_table([(row, chooser.permutation(row) + 20) for row in rows], 40)
    found = as_dict(table)
    for word in range(20):
        best = max((p, trg) for (src, trg), p in found.items() if src == word)
        assert best[1] == word + 20
        assert sum(p for (src, _), p in found.items() if src == word) == pytest.approx(1)


def test_without_sentences_there_is_no_table() -> None:
    with pytest.raises(ValueError, match="no sentence"):
        lexical_table([], 10)


@pytest.mark.parametrize(
    ("fault", "message"), [(None, "run the `label` stage"), ("a shard is damaged", "is damaged")]
)
def test_an_export_says_why_there_is_no_table(
    tmp_path: Path, tokenizer_path: Path, fault: str | None, message: str
) -> None:
    def text() -> Iterator[tuple[list[int], list[int]]]:
        if fault is not None:
            raise ValueError(fault)
        yield from ()

    with pytest.raises(ValueError, match=message):
        tiny.make_bundle(
            tmp_path / "b", tokenizer_path, engines=["onnx-int8-shortlist"], translated_text=text
        )
    assert not (tmp_path / "b").exists()


def test_the_file_names_pieces(tmp_path: Path) -> None:
    table = lexical_table(ids(([0], [3]), ([0], [4]), ([0], [3]), ([1], [4])), 5)
    write_vmap(tmp_path / "vmap.txt", table, list("abcde"), candidates=1, always=1)
    assert (tmp_path / "vmap.txt").read_text() == "\td\na\td\nb\te\n"


def test_an_engine_writes_only_what_the_shortlist_allows(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    pieces = pieces_of(tokenizer_path)
    encode = tiny.tokenizer_of(tokenizer_path).encode
    rows = [(np.array(encode(text)), np.array(encode(text))) for text in tiny.sentences()]
    bundle = tiny.make_bundle(
        tmp_path / "b",
        tokenizer_path,
        engines=["ctranslate2-int8", "ctranslate2-int8-shortlist"],
        translated_text=lambda: rows,
    )
    free, short = (load_engine(bundle, engine.name) for engine in bundle.manifest.engines)
    assert bundle.manifest.engines[1].path == bundle.manifest.engines[0].path
    text = tiny.sentences()[:20]
    same = [
        a.text == b.text
        for a, b in zip(
            free.translate_batch(text, TranslateOptions()),
            short.translate_batch(text, TranslateOptions()),
            strict=True,
        )
    ]
    assert sum(same) >= 18
    allowed = lexical_table([(np.array([4]), np.array([5]))], len(pieces))
    write_vmap(bundle.path / "engines/ctranslate2-int8/vmap.txt", allowed, pieces, 5, 3)
    confined = load_engine(bundle, "ctranslate2-int8-shortlist")
    written = confined.translate_batch(text, TranslateOptions())
    assert all(len(set(one.text)) < 8 for one in written)


def test_a_sentence_chooses_among_the_translations_of_its_pieces_and_its_pieces(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    """The onnx engine: what was never seen in translated text can be copied all the same."""
    encode = tiny.tokenizer_of(tokenizer_path).encode
    text = tiny.sentences()
    rows = [(np.array(encode(line)), np.array(encode(line)[:1])) for line in text[:20]]
    bundle = tiny.make_bundle(
        tmp_path / "b",
        tokenizer_path,
        engines=["onnx-int8-shortlist"],
        translated_text=lambda: rows,
    )
    file = bundle.path / "engines/onnx-int8-shortlist" / SHORTLIST_FILE
    size = len(pieces_of(tokenizer_path))
    words = read_shortlist(file, size, size)
    seen = {int(piece) for _, trg in rows for piece in trg}
    for line in text[20:40]:
        candidates = set(words.candidates(encode(line)).tolist())
        assert set(encode(line)) <= candidates
        assert seen <= candidates
    short = load_engine(bundle, "onnx-int8-shortlist")
    alone = [short.translate_batch([line], TranslateOptions())[0].text for line in text[:20]]
    together = [one.text for one in short.translate_batch(text[:20], TranslateOptions())]
    assert alone == together


def written_lists(bundle: Bundle) -> tuple[Shortlist, list[set[int]]]:
    """A bundle's shortlist, and the words that it lists for each source piece."""
    size = bundle.manifest.vocab_size
    file = bundle.path / "engines/onnx-int8-shortlist" / SHORTLIST_FILE
    shortlist = read_shortlist(file, size, size)
    places = pairwise(shortlist.offsets.tolist())
    return shortlist, [set(shortlist.targets[start:end].tolist()) for start, end in places]


def test_a_lent_lexicon_joins_what_the_text_shows(tmp_path: Path, tokenizer_path: Path) -> None:
    """A pair that the text shows, one that the lexicon lists, and the frequent words of both."""
    bundle = tiny.make_bundle(
        tmp_path / "bundle",
        tokenizer_path,
        engines=["onnx-int8-shortlist"],
        translated_text=lambda: [([10], [20])] * 5,
        lexicon=LentLexicon({10: np.array([33]), 11: np.array([44])}, np.array([55])),
    )
    shortlist, lists = written_lists(bundle)
    assert lists[10] == {10, 20, 33}
    assert lists[11] == {11, 44}
    assert lists[12] == {12}
    assert 55 in shortlist.always


def test_a_lent_lexicon_loses_what_much_text_does_not_show(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    """Of a piece that many sentences have; what few have keeps its words."""
    much = [([10], [20]), ([10, 12], [21, 22])] * LENT_SEEN
    bundle = tiny.make_bundle(
        tmp_path / "bundle",
        tokenizer_path,
        engines=["onnx-int8-shortlist"],
        translated_text=lambda: [*much, ([11], [20])],
        lexicon=LentLexicon(
            {10: np.array([21, 33]), 11: np.array([44]), 12: np.array([44])}, np.array([55])
        ),
    )
    _, lists = written_lists(bundle)
    assert lists[10] == {10, 20, 21, 22}
    assert lists[11] == {11, 20, 44}
    assert lists[12] == {12, 21, 22}


def test_what_no_piece_lists_is_listed_by_the_rarest_of_the_sentence() -> None:
    """A phrase's words that are no translation of its pieces; less often it is a slip."""
    frequent = list(range(300, 300 + SHORTLIST_ALWAYS))
    much = [([10, 12], [20, 21])] * 300 + [([11], [20, 22])] * 80 + [([13], frequent)] * 50
    phrase, slip = [([10, 11, 12], [20, 21, 30])], [([10, 11], [20, 21, 31])]
    text = [*much, *phrase * UNCOVERED_SEEN, *slip * (UNCOVERED_SEEN - 1)]
    rows = [(np.array(src), np.array(trg)) for src, trg in text]
    pieces = [f"piece {number}" for number in range(600)]
    lexicon = LentLexicon({piece: np.array([20]) for piece in (10, 11, 12)}, np.array([21]))
    table = lexical_table(rows, len(pieces))
    words = lexical_shortlist(table, rows, pieces[:14], pieces, lexicon)
    starts = words.offsets.tolist()
    lists = [set(words.targets[start:end].tolist()) for start, end in pairwise(starts)]
    assert 30 in lists[11]
    assert 30 not in lists[10] | lists[12] | set(words.always.tolist())


def test_candidates_are_those_of_all_words_filled_up_by_frequency() -> None:
    """Also where the vocabulary that is listed ends before a multiple is reached."""
    chooser = np.random.default_rng(8)
    for _ in range(200):
        lists = [chooser.integers(0, 60, chooser.integers(8)) for _ in range(4)]
        always = chooser.integers(0, 20, chooser.integers(6))
        source = chooser.integers(0, 4, 3).tolist()
        expected = {3, *always.tolist()}.union(*(lists[word].tolist() for word in source))
        following = max({3, *always.tolist()}) + 1
        while len(expected) % MULTIPLE:
            expected.add(following)
            following += 1
        assert Shortlist.of(lists, always).candidates(source).tolist() == sorted(expected)

"""Beam search of the compiled engine: against NumPy, in batches, and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.runtime.native.library import MOST_BEAM, NativeModel, Translated
from export.runtime.native.weights import model_bytes
from tests.export.native_reference import EOS, Reference
from tests.export.test_native_kernels import KERNELS, LIMIT, OPTIONS, native_source, needs_library
from tests.export.test_onnx import VOCAB_SIZE, sources

pytestmark = needs_library
BEAM = 4


def model_of(folder: Path, kernel: str | None = None, **options: Any) -> NativeModel:
    return NativeModel(model_bytes(native_source(folder / "model", **options)), kernel=kernel)


def rank(one: Translated, length_penalty: float = 1.0) -> float:
    return one.score / (len(one.ids) + one.ended) ** length_penalty


Hypothesis = tuple[list[int], float, bool]


def check_alike(found: list[list[Translated]], expected: list[list[Hypothesis]]) -> None:
    """Most rows have the same best translation, and most translations of a row are the same: a
    value that lies half-way between two bytes may be rounded either way."""
    best = same = total = 0
    apart: list[float] = []
    for row, other in zip(found, expected, strict=True):
        assert len(row) == len(other)
        scores = {tuple(ids): score for ids, score, _ in other}
        best += row[0].ids == other[0][0]
        total += len(row)
        same += sum(tuple(one.ids) in scores for one in row)
        apart += [abs(one.score - scores.get(tuple(one.ids), one.score)) for one in row]
    assert best >= 0.85 * len(found)
    assert same >= 0.85 * total
    assert np.median(apart) < 1e-3


@pytest.mark.parametrize("options", [*OPTIONS[:4], *OPTIONS[-4:]], ids=str)
def test_it_finds_what_numpy_finds(tmp_path: Path, options: dict[str, Any]) -> None:
    source = native_source(tmp_path / "model", **options)
    rows, reference = sources(8), Reference(source)
    model = NativeModel(model_bytes(source))
    found = model.search(rows, [LIMIT] * 8, beam_size=BEAM, n_best=BEAM)
    check_alike(found, [reference.search(row, LIMIT, BEAM) for row in rows])
    greedy = model.translate(rows, [LIMIT] * 8)
    assert any(one.ids != best.ids for one, (best, *_) in zip(greedy, found, strict=True))


@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_length_penalties(tmp_path: Path, length_penalty: float) -> None:
    source = native_source(tmp_path / "model", eos=1.0)
    rows, reference = sources(8), Reference(source)
    found = NativeModel(model_bytes(source)).search(
        rows, [LIMIT] * 8, beam_size=BEAM, n_best=BEAM, length_penalty=length_penalty
    )
    check_alike(found, [reference.search(row, LIMIT, BEAM, length_penalty) for row in rows])
    for hypotheses in found:
        ranks = [rank(one, length_penalty) for one in hypotheses]
        assert ranks == sorted(ranks, reverse=True)
    assert len({len(one.ids) for hypotheses in found for one in hypotheses}) > 2


@pytest.mark.parametrize("options", [*OPTIONS[:4], {"shortlisted": True}], ids=str)
def test_kernels_and_batches_give_the_same_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    data = model_bytes(native_source(tmp_path / "model", eos=0.5, **options))
    rows, rng = sources(30), np.random.default_rng(7)
    limits = [4 + len(row) for row in rows]
    words = [
        np.union1d(rng.choice(np.arange(4, VOCAB_SIZE), 20, replace=False), [EOS]) for _ in rows
    ]
    listed = words if options.get("shortlisted") else [None] * len(rows)
    for beam_size in (2, 5, MOST_BEAM):
        asked: dict[str, Any] = {"beam_size": beam_size, "n_best": min(beam_size, 5)}
        models = [NativeModel(data, kernel=kernel) for kernel in KERNELS]
        together = words if options.get("shortlisted") else None
        whole = models[0].search(rows, limits, candidates=together, **asked)
        assert any(one.ended for found in whole for one in found)
        for model in models:
            assert model.search(rows, limits, candidates=together, **asked) == whole
            for row, limit, candidates, found in zip(rows, limits, listed, whole, strict=True):
                own = None if candidates is None else [candidates]
                assert model.search([row], [limit], candidates=own, **asked) == [found]


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_a_beam_of_one_is_greedy_decoding_and_fewer_are_the_first(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model, rows = model_of(tmp_path, **options), sources(9)
    limits = [LIMIT] * 9
    greedy = model.translate(rows, limits, scored=True)
    assert model.search(rows, limits, beam_size=1) == [[one] for one in greedy]
    all_of_them = model.search(rows, limits, beam_size=BEAM, n_best=BEAM)
    for n_best in (1, 2):
        some = model.search(rows, limits, beam_size=BEAM, n_best=n_best)
        assert some == [found[:n_best] for found in all_of_them]
    assert all(len({tuple(one.ids) for one in found}) == BEAM for found in all_of_them)


@pytest.mark.parametrize("kernel", KERNELS)
def test_over_candidates(tmp_path: Path, kernel: str) -> None:
    source = native_source(tmp_path / "model", shortlisted=True, norm="post", decoder_cell="ssru")
    rng, rows = np.random.default_rng(5), sources(8)
    candidates = [
        np.union1d(rng.choice(np.arange(4, VOCAB_SIZE), 3 + row, replace=False), [EOS])
        for row in range(8)
    ]
    model, reference = NativeModel(model_bytes(source), kernel=kernel), Reference(source)
    found = model.search(rows, [LIMIT] * 8, beam_size=BEAM, n_best=BEAM, candidates=candidates)
    expected = [
        reference.search(row, LIMIT, BEAM, candidates=words)
        for row, words in zip(rows, candidates, strict=True)
    ]
    check_alike(found, expected)


def test_fewer_translations_than_are_wanted(tmp_path: Path) -> None:
    """Of one word and `</s>`, within two tokens: the word, and the word twice."""
    model = model_of(tmp_path, shortlisted=True)
    words = [np.array([EOS, 9])]
    [found] = model.search([[4, EOS]], [2], beam_size=5, n_best=5, candidates=words)
    assert sorted(one.ids for one in found) == [[9], [9, 9]]
    assert {one.ended for one in found} == {True, False}
    [[alone]] = model.search([[4, EOS]], [1], beam_size=5, n_best=5, candidates=words)
    assert (alone.ids, alone.ended, alone.score) == ([9], False, 0.0)
    [[nothing]] = model.search([[4, EOS]], [3], beam_size=5, candidates=[np.array([EOS])])
    assert (nothing.ids, nothing.ended, nothing.score) == ([], True, 0.0)


def test_no_ngram_comes_twice_and_repetition_costs(tmp_path: Path) -> None:
    model, rows = model_of(tmp_path, eos=-9.0), sources(8)
    limits = [20] * 8

    def repeats(found: list[list[Translated]], n: int) -> int:
        grams = [
            [tuple(one.ids[at : at + n]) for at in range(len(one.ids) - n + 1)]
            for hypotheses in found
            for one in hypotheses
        ]
        return sum(len(own) - len(set(own)) for own in grams)

    plain = model.search(rows, limits, beam_size=BEAM, n_best=BEAM)
    assert repeats(plain, 2) > 0
    for n in (1, 2, 3):
        found = model.search(rows, limits, beam_size=BEAM, n_best=BEAM, no_repeat_ngram=n)
        assert repeats(found, n) == 0
    penalised = model.search(rows, limits, beam_size=BEAM, n_best=BEAM, repetition_penalty=5.0)
    assert repeats(penalised, 1) < repeats(plain, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 0},
        {"beam_size": -1},
        {"beam_size": MOST_BEAM + 1},
        {"beam_size": 3, "n_best": 4},
        {"beam_size": 3, "n_best": 0},
        {"beam_size": 3, "n_best": -1},
        {"beam_size": 3, "length_penalty": -1.0},
        {"beam_size": 3, "length_penalty": float("nan")},
    ],
    ids=str,
)
def test_impossible_calls_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    model = model_of(tmp_path)
    assert model.search([[4, 3]], [5], beam_size=MOST_BEAM, n_best=MOST_BEAM)
    with pytest.raises(ValueError, match="that the model does not have"):
        model.search([[4, 3]], [5], **options)


def test_a_call_has_a_bounded_number_of_hypotheses(tmp_path: Path) -> None:
    model, rows = model_of(tmp_path), [[4, 3]] * 257
    assert len(model.search(rows[:256], [2] * 256, beam_size=MOST_BEAM)) == 256
    with pytest.raises(ValueError, match="that the model does not have"):
        model.search(rows, [2] * 257, beam_size=MOST_BEAM)

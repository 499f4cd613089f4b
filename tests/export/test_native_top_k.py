"""Distributions along the compiled engine's translations: against NumPy, in batches, and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.native import to_native
from export.runtime.manifest import NATIVE_FILE
from export.runtime.native.library import NativeModel, TopK, Translated
from export.runtime.native.safetensors import read_native
from export.runtime.native.weights import model_bytes
from tests.export.native_reference import EOS, Reference
from tests.export.test_native_kernels import KERNELS, LIMIT, OPTIONS, native_source, needs_library
from tests.export.test_onnx import PIECES, VOCAB_SIZE, sources, tiny_model

pytestmark = needs_library
K = 5
SPECIAL = 3


def of(translated: Translated) -> TopK:
    assert translated.top_k is not None
    return translated.top_k


def same(one: TopK, other: TopK, positions: int | None = None) -> None:
    """Whether these distributions, or their first positions, are the same bytes."""
    for name in ("ids", "logp", "tail"):
        left, right = getattr(one, name)[:positions], getattr(other, name)[:positions]
        np.testing.assert_array_equal(left, right, err_msg=name)


def model_of(folder: Path, kernel: str | None = None, **options: Any) -> NativeModel:
    return NativeModel(model_bytes(native_source(folder / "model", **options)), kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", [*OPTIONS[:4], OPTIONS[-2]], ids=str)
def test_they_are_those_of_numpy(tmp_path: Path, kernel: str, options: dict[str, Any]) -> None:
    source = native_source(tmp_path / "model", **options)
    rows, reference = sources(9), Reference(source)
    model = NativeModel(model_bytes(source), kernel=kernel)
    errors: list[float] = []
    cut = 0
    for row, found in zip(rows, model.translate(rows, [LIMIT] * 9, top_k=K), strict=True):
        expected = reference.translate(row, LIMIT)[0]
        assert of(found).ids.shape == (len(found.ids) + 1, K)
        if found.ids != expected:
            continue  # a value that lies half-way between two bytes was rounded the other way
        cut += not found.ended
        for place, logp in enumerate(reference.logp):
            # Stable, so that the lower id comes first.
            best = np.argsort(-logp, kind="stable")[:K]
            ids, own = of(found).ids[place], of(found).logp[place]
            errors.append(float(np.abs(own - logp[ids]).max()))
            assert np.abs(np.sort(logp[ids]) - np.sort(logp[best])).max() < 0.2
            tail = 1 - np.exp(logp[best]).sum()
            assert abs(of(found).tail[place] - tail) < 0.05
    assert len(errors) > 40
    assert cut > 0
    assert np.median(errors) < 1e-4
    assert max(errors) < 0.2


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_words_sum_to_one_and_fewer_are_the_first_of_them(tmp_path: Path, kernel: str) -> None:
    model, rows = model_of(tmp_path, kernel), sources(6)
    limits = [LIMIT] * 6
    whole = model.translate(rows, limits, top_k=VOCAB_SIZE)
    few = model.translate(rows, limits, top_k=K)
    for one, other in zip(whole, few, strict=True):
        assert one.ids == other.ids
        ids, logp = of(one).ids, of(one).logp
        words = VOCAB_SIZE - SPECIAL
        assert (ids[:, words:] == 0).all()
        assert np.isneginf(logp[:, words:]).all()
        assert (np.sort(ids[:, :words], axis=1) == np.arange(SPECIAL, VOCAB_SIZE)).all()
        assert (np.diff(logp[:, :words], axis=1) <= 0).all()
        np.testing.assert_allclose(np.exp(logp).sum(1), 1, atol=1e-5)
        assert of(one).tail.max() < 1e-5
        np.testing.assert_array_equal(of(other).ids, ids[:, :K])
        np.testing.assert_array_equal(of(other).logp, logp[:, :K])
        np.testing.assert_allclose(of(other).tail, np.exp(logp[:, K:]).sum(1), atol=1e-5)


def test_of_equal_words_the_lower_id_comes_first(tmp_path: Path) -> None:
    network = tiny_model(width=32)
    alike = [9, 17, 30, 44]
    with torch.no_grad():
        network.embedding.weight[alike] = network.embedding.weight[9].clone() / 100
        network.output_bias[alike] = 9.0
    to_native(network, PIECES, tmp_path / "model")
    source = read_native(tmp_path / "model" / NATIVE_FILE, shortlisted=False)
    rows, firsts = sources(9), 0
    for kernel in KERNELS:
        model = NativeModel(model_bytes(source), kernel=kernel)
        for found in model.translate(rows, [LIMIT] * 9, top_k=K):
            for ids, logp in zip(of(found).ids, of(found).logp, strict=True):
                ties = np.flatnonzero(np.diff(logp) == 0)
                assert (ids[ties] < ids[ties + 1]).all()
                firsts += ids[0] == 9 and len(ties) == 3
    assert firsts


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_kernels_and_batches_give_the_same_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    data = model_bytes(native_source(tmp_path / "model", **options))
    rows = sources(40)
    limits = [4 + len(row) for row in rows]
    whole = NativeModel(data).translate(rows, limits, scored=True, top_k=K)
    plain = NativeModel(data).translate(rows, limits, scored=True)
    assert whole == plain, "distributions change neither translations nor scores"
    for kernel in KERNELS:
        model = NativeModel(data, kernel=kernel)
        together = model.translate(rows, limits, scored=True, top_k=K)
        for row, limit, one, other in zip(rows, limits, together, whole, strict=True):
            [alone] = model.translate([row], [limit], scored=True, top_k=K)
            assert alone == one == other
            same(of(alone), of(other))
            same(of(one), of(other))


@pytest.mark.parametrize("kernel", KERNELS)
def test_over_candidates(tmp_path: Path, kernel: str) -> None:
    source = native_source(tmp_path / "model", shortlisted=True, norm="post", decoder_cell="ssru")
    model = NativeModel(model_bytes(source), kernel=kernel)
    rng = np.random.default_rng(5)
    rows = sources(9)
    candidates = [
        np.union1d(rng.choice(np.arange(4, VOCAB_SIZE), 1 + row, replace=False), [EOS])
        for row in range(len(rows))
    ]
    reference = Reference(source)
    found = model.translate(rows, [LIMIT] * 9, candidates=candidates, top_k=K)
    for row, words, one in zip(rows, candidates, found, strict=True):
        reference.translate(row, LIMIT, words)
        kept = min(K, len(words))
        for place, logp in enumerate(reference.logp[: len(one.ids) + 1]):
            ids = of(one).ids[place]
            assert set(ids[:kept].tolist()) <= set(words.tolist())
            np.testing.assert_allclose(of(one).logp[place, :kept], logp[ids[:kept]], atol=0.1)
            assert (ids[kept:] == 0).all()
            assert np.isneginf(of(one).logp[place, kept:]).all()


def test_a_translation_that_is_cut_has_the_distribution_of_its_end(tmp_path: Path) -> None:
    model, rows = model_of(tmp_path, eos=-9.0), sources(9)
    long = model.translate(rows, [12] * 9, top_k=K)
    for limit in (1, 7, 8):
        short = model.translate(rows, [limit] * 9, scored=True, top_k=K)
        for one, other in zip(short, long, strict=True):
            assert not one.ended
            assert one.ids == other.ids[:limit]
            assert len(of(one).tail) == limit + 1
            same(of(one), of(other), limit + 1)
        assert short == model.translate(rows, [limit] * 9, scored=True), "scores end with the text"


def test_they_are_the_model_s_before_penalties(tmp_path: Path) -> None:
    model, rows = model_of(tmp_path, eos=9.0), sources(9)
    limits = [6] * 9
    penalised = model.translate(
        rows, limits, top_k=K, repetition_penalty=5.0, no_repeat_ngram=1, scored=True
    )
    for one, other in zip(penalised, model.translate(rows, limits, top_k=K), strict=True):
        assert of(other).ids[0, 0] == EOS, "which may not come first, but is likeliest"
        assert one.ids
        same(of(one), of(other), 1)


@pytest.mark.parametrize(
    ("limit", "top_k"), [(5, -1), (5, VOCAB_SIZE + 1), (48, 1)], ids=["less", "more", "long"]
)
def test_impossible_calls_are_refused(tmp_path: Path, limit: int, top_k: int) -> None:
    model = model_of(tmp_path)
    assert model.translate([[4, 3]], [47], top_k=VOCAB_SIZE)
    assert model.translate([[4, 3]], [48])
    with pytest.raises(ValueError, match="that the model does not have"):
        model.translate([[4, 3]], [limit], top_k=top_k)

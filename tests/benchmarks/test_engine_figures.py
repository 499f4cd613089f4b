"""The figures of engines: every engine measured, in processes without torch."""

from __future__ import annotations

import pytest
import torch

from benchmarks.engine_figures import every_engine, measure, table
from benchmarks.systems.ours import STOCK, with_stock
from export.ctranslate2 import from_ctranslate2
from export.exporter import engine_names, weights_of
from export.quality_gate import EvalSet, translate_in_torch
from export.runtime.bundle import Bundle
from tests.export import tiny


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("figures")
    tokenizer = tiny.train_tokenizer(folder / "tokenizer.model")
    return tiny.make_bundle(folder / "tiny", tokenizer)


def test_stock_int8_is_made_from_float32(tiny_bundle: Bundle) -> None:
    stock = with_stock(tiny_bundle).engine(STOCK)
    assert (stock.precision, stock.compute) == ("float32", "int8")
    assert stock.path == tiny_bundle.engine("ctranslate2-float32").path


@pytest.mark.thorough
@pytest.mark.slow
def test_every_engine_is_measured(tiny_bundle: Bundle) -> None:
    torch.set_num_threads(1)
    model = from_ctranslate2(weights_of(tiny_bundle))
    text = EvalSet("test", tiny.sentences()[:12], tiny.sentences()[:12])
    with every_engine(tiny_bundle, model, None) as everything:
        reference = translate_in_torch(everything, model, text)
        found = measure(everything, reference.texts, text, 1, 6, 1)
    names = {name for name in engine_names() if not name.endswith("shortlist")}
    assert set(found) == {*names, STOCK}
    assert found["ctranslate2-float32"]["identical"] == 1.0
    assert found[STOCK]["times_stock_batch_1"]["median"] == 1.0
    for one in found.values():
        assert one["resident_bytes"] > 1e7
        assert one["sentences_per_second_batch_32"]["median"] > 0
    report = {"bundle": "tiny", "sentences": 12, "reference": "x", "torch_bleu": 1.0, "rounds": 1}
    text_of = table(
        {**report, "speed_sentences": 6, "signature": "s", "machine": {}, "engines": found}
    )
    assert text_of.count("\n| `") == len(found)

"""The export gate: what it measures, what it refuses, what --force leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sacrebleu.metrics import CHRF

from export import exporter
from export.ctranslate2 import to_ctranslate2
from export.quality_gate import EvalSet, GateError, GateSettings, check_bundle
from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.runtime.engines import load_engine
from tests.export import tiny
from training.config.recipe import GateLimits
from training.model.transformer import Transformer

BOTH = ["ctranslate2-int8", "ctranslate2-float32"]


@pytest.fixture(scope="module")
def model(tokenizer_path: Path) -> Transformer:
    return tiny.barely_trained_model(tokenizer_path)


@pytest.fixture(scope="module")
def held_out() -> EvalSet:
    return EvalSet("validation", tiny.sentences(), tiny.sentences())


@pytest.fixture
def spoilt_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer of the int8 engine spoils a weight, as a bug would."""

    def write(job: exporter.ExportJob, folder: Path) -> None:
        spoilt = Transformer(
            job.model.vocab_size, 32, 4, 48, 2, 1, dropout=0.0, max_length=job.model.max_length
        ).eval()
        spoilt.load_state_dict(job.model.state_dict())
        with torch.no_grad():
            spoilt.embedding.weight += 0.3 * torch.randn_like(spoilt.embedding.weight)
        to_ctranslate2(spoilt, job.pieces, folder, "int8")

    entry = exporter.ENGINE_EXPORTERS["ctranslate2-int8"].entry
    monkeypatch.setitem(
        exporter.ENGINE_EXPORTERS, entry.name, exporter.EngineExporter(entry, write)
    )


def test_a_good_bundle_passes_and_says_so(
    tmp_path: Path, tokenizer_path: Path, model: Transformer, held_out: EvalSet
) -> None:
    bundle = tiny.make_bundle(
        tmp_path / "good", tokenizer_path, model=model, held_out=held_out, engines=BOTH
    )
    gate = bundle.manifest.gate
    assert gate is not None
    assert not gate.faults
    assert not gate.forced
    assert gate.sentences == len(tiny.sentences())
    int8, exact = gate.engines
    assert exact.identical == 1.0
    assert exact.bleu_difference == 0
    assert exact.score_difference is not None
    assert exact.score_difference < 1e-4
    assert int8.score_difference is None
    assert len(int8.worst) == min(5, round((1 - int8.identical) * gate.sentences))
    card = (bundle.path / "README.md").read_text()
    assert "## Against the model in torch" in card
    assert "100.0%" in card


def test_a_worse_engine_is_refused_and_the_former_bundle_stays(
    tmp_path: Path,
    tokenizer_path: Path,
    model: Transformer,
    held_out: EvalSet,
    spoilt_writer: None,
) -> None:
    out = tmp_path / "bundle"
    tiny.make_bundle(out, tokenizer_path, model=model, engines=BOTH[1:])
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(GateError, match=r"ctranslate2-int8: .* lines are torch's") as caught:
        tiny.make_bundle(out, tokenizer_path, model=model, held_out=held_out, engines=BOTH)
    assert "--force" in str(caught.value)
    assert all(fault.startswith("ctranslate2-int8") for fault in caught.value.gate.faults)
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_force_publishes_and_records_the_failure(
    tmp_path: Path,
    tokenizer_path: Path,
    model: Transformer,
    held_out: EvalSet,
    spoilt_writer: None,
) -> None:
    bundle = tiny.make_bundle(
        tmp_path / "forced",
        tokenizer_path,
        model=model,
        held_out=held_out,
        engines=BOTH,
        force=True,
    )
    gate = load_bundle(bundle.path).manifest.gate
    assert gate is not None
    assert gate.forced
    assert gate.faults
    worst = gate.engines[0].worst
    assert len(worst) == 5
    assert [line.chrf for line in worst] == sorted(line.chrf for line in worst)
    assert worst[0].chrf == pytest.approx(
        CHRF().sentence_score(worst[0].engine, [worst[0].torch]).score, abs=0.05
    )
    assert "Published by force" in (bundle.path / "README.md").read_text()


def test_limits_are_the_recipe_s(bundle: Bundle, model: Transformer, held_out: EvalSet) -> None:
    strict = GateLimits(score_difference=1e-12, int8_identical=1.0, bleu_loss=0)
    gate = check_bundle(bundle, model, GateSettings(held_out, strict, force=True))
    int8, exact = gate.engines
    assert (int8.identical == 1.0) == (not any("lines are" in fault for fault in int8.faults))
    assert "a mean log-probability differs" in exact.faults[0]
    assert gate.forced


def test_the_reference_is_what_float32_engines_write(
    bundle: Bundle, model: Transformer, held_out: EvalSet
) -> None:
    engine = load_engine(bundle, "ctranslate2-float32")
    too_long = " ".join(["street"] * 60)
    assert engine.count_tokens(too_long) > engine.max_input_tokens
    mixed = EvalSet("validation", [too_long, "", *held_out.src], ["x", "", *held_out.ref])
    gate = check_bundle(
        bundle, model, GateSettings(mixed, GateLimits(bleu_loss=100, int8_identical=0))
    )
    assert gate.sentences == len(held_out.src)


def test_without_a_sentence_there_is_no_judgement(bundle: Bundle, model: Transformer) -> None:
    with pytest.raises(BundleError, match="no sentence to judge by"):
        check_bundle(bundle, model, GateSettings(EvalSet("validation", [""], [""]), GateLimits()))

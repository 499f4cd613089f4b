"""Weights read back from CTranslate2, and bundles written anew from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from export.ctranslate2 import from_ctranslate2, quantize_rows, to_ctranslate2
from export.exporter import pieces_of, reference_of, upgrade_bundle
from export.quality_gate import EvalSet, GateError, GateSettings
from export.runtime.bundle import Bundle, BundleError
from tests.export import tiny
from training.config.recipe import GateLimits
from training.model.transformer import Transformer


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize(("encoder_layers", "decoder_layers"), [(1, 1), (3, 2)])
def test_float32_comes_back_to_the_last_bit(
    tmp_path: Path,
    tokenizer_path: Path,
    activation: str,
    encoder_layers: int,
    decoder_layers: int,
) -> None:
    pieces = pieces_of(tokenizer_path)
    model = Transformer(
        len(pieces), 16, 2, 24, encoder_layers, decoder_layers, activation, max_length=32
    )
    to_ctranslate2(model, pieces, tmp_path / "m", "float32")
    back = from_ctranslate2(tmp_path / "m")
    assert (back.heads, back.max_length) == (2, 32)
    assert {m.activation for m in back.modules() if hasattr(m, "activation")} == {activation}
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_seven_bits_come_back_as_they_are_and_go_out_as_they_came(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    pieces = pieces_of(tokenizer_path)
    model = tiny.random_model(len(pieces))
    to_ctranslate2(model, pieces, tmp_path / "a", "int8")
    back = from_ctranslate2(tmp_path / "a")
    weight = model.embedding.weight.detach().numpy()
    rounded, scale = quantize_rows(weight)
    expected = rounded.astype("float32") / scale[:, None]
    assert torch.equal(back.embedding.weight, torch.from_numpy(expected))
    to_ctranslate2(back, pieces, tmp_path / "b", "int8")
    first, second = ((tmp_path / name / "model.bin").read_bytes() for name in "ab")
    assert first == second


def test_another_model_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    folder = bundle.engine_path("ctranslate2-float32")
    content = (folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content.replace(b"num_heads", b"num_hands"))
    with pytest.raises(BundleError, match="no model that Quickstudy wrote"):
        from_ctranslate2(tmp_path)


def test_a_bundle_of_the_first_format_is_brought_up_to_date(bundle: Bundle, tmp_path: Path) -> None:
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["format_version"] = 1
    del manifest["gate"]
    for engine in manifest["engines"]:
        del engine["compute"], engine["shortlist"]
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    text = EvalSet("validation", tiny.sentences(), tiny.sentences())
    new = upgrade_bundle(
        bundle.path,
        tmp_path / "new",
        ["ctranslate2-int8"],
        GateSettings(text, GateLimits(), reference=reference_of(bundle.path)),
    )
    assert new.manifest.format_version == 3
    assert [engine.name for engine in new.manifest.engines] == ["ctranslate2-int8"]
    assert new.manifest.gate is not None
    assert new.manifest.gate.reference == "the former bundle's float32 weights"
    for field in ("name", "licence", "decoding", "metrics", "parameters"):
        assert getattr(new.manifest, field) == getattr(bundle.manifest, field)
    old_engine, new_engine = (
        (one.engine_path("ctranslate2-int8") / "model.bin").read_bytes() for one in (bundle, new)
    )
    assert old_engine == new_engine


def test_an_upgrade_in_place_that_fails_changes_nothing(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    strict = GateLimits(score_difference=1e-12)
    text = EvalSet("validation", tiny.sentences(), tiny.sentences())
    with pytest.raises(GateError):
        upgrade_bundle(bundle.path, bundle.path, gate_settings=GateSettings(text, strict))
    assert (bundle.path / "manifest.json").read_bytes() == before

"""A CTranslate2 folder is loaded only if it is what our export writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.runtime.bundle import Bundle, BundleError, load_tokenizer, pieces
from export.runtime.ctranslate2_format import check_ctranslate2, read_variables
from export.runtime.engines import TranslateOptions, load_engine
from tests.export.hostile import write_model

ENGINE = "engines/ctranslate2-int8"
Arrays = dict[str, Any]


def check(bundle: Bundle, positions: int = 63) -> None:
    found = pieces(load_tokenizer(bundle))
    check_ctranslate2(bundle.path / ENGINE, found, bundle.manifest.special_tokens, positions)


def rewrite(bundle: Bundle, change: Callable[[Arrays], object], **named: Any) -> None:
    path = bundle.path / ENGINE / "model.bin"
    arrays = {name: array.copy() for name, array in read_variables(path).items()}
    change(arrays)
    write_model(path, arrays, **named)


def replace(name: str, make: Callable[[Any], Any]) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({name: np.array(make(arrays[name]), order="C")})


def test_every_exported_engine_passes(bundle: Bundle) -> None:
    check(bundle)
    rewrite(bundle, lambda arrays: None)
    check(bundle)
    assert load_engine(bundle).translate_batch(["old cat."], TranslateOptions())[0].text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("decoder/layer_norm/gamma"), "lacks decoder/layer_norm/gamma"),
        (lambda a: a.pop("encoder/num_heads"), "lacks encoder/num_heads"),
        (lambda a: a.pop("decoder/embeddings/weight"), "no decoder/embeddings/weight of 2"),
        (lambda a: a.pop("decoder/embeddings/weight_scale"), r"weight is int8"),
        (lambda a: a.pop("encoder/layer_1/ffn/linear_0/weight"), "which no export writes"),
        (lambda a: a.update(more=np.float32(1)), "more, which no export writes"),
        (replace("decoder/embeddings/weight", lambda w: w[:1]), r"the shape must be \[\d+, 32\]"),
        (replace("decoder/projection/weight", lambda w: w[:-1]), "the shape must be"),
        (replace("decoder/projection/bias", lambda b: b[:5]), r"bias is float32 \[5\]"),
        (replace("encoder/layer_0/ffn/linear_1/weight", lambda w: w.T), "the shape must be"),
        (replace("encoder/layer_0/ffn/linear_0/bias", lambda b: b[:1]), "the shape must be"),
        (replace("encoder/layer_0/ffn/linear_0/weight_scale", lambda s: s[:1]), "weight_scale is"),
        (replace("decoder/layer_0/attention/linear_1/weight", lambda w: w[:32]), "must be"),
        (replace("encoder/layer_norm/beta", lambda b: b.astype(np.int8)), "beta is int8"),
        (replace("encoder/layer_norm/beta", lambda b: b * np.float32("nan")), "not finite"),
        (replace("decoder/projection/weight_scale", lambda s: s * 0), "not positive"),
        (replace("encoder/num_heads", lambda _: np.int16(5)), "5 heads for a width of 32"),
        (replace("decoder/num_heads", lambda _: np.int16(-4)), "-4 heads"),
        (replace("decoder/alibi", lambda _: np.int8(1)), "alibi is 1, it must be 0"),
        (replace("encoder/pre_norm", lambda _: np.int8(0)), "pre_norm is 0, it must be 1"),
        (replace("decoder/activation", lambda _: np.int8(99)), "activation is none of"),
        (replace("encoder/pre_norm", lambda _: np.zeros(3, np.int8)), r"pre_norm is int8 \[3\]"),
        (
            replace("decoder/position_encodings/encodings", lambda p: p[:40]),
            "room for 40 tokens, 63 are needed",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused(
    bundle: Bundle, change: Callable[[Arrays], object], message: str
) -> None:
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=message):
        check(bundle)
    with pytest.raises(BundleError, match=message):
        load_engine(bundle)


def test_another_kind_of_model_is_refused(bundle: Bundle) -> None:
    rewrite(bundle, lambda arrays: None, spec="WhisperSpec")
    with pytest.raises(BundleError, match="is a WhisperSpec 7, not TransformerSpec 7"):
        check(bundle)
    rewrite(bundle, lambda arrays: None, revision=8)
    with pytest.raises(BundleError, match="TransformerSpec 8"):
        check(bundle)


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(value)))

    return edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("shared_vocabulary.json", lambda v: v[:-1]), r"has \d+ pieces, the tokenizer"),
        (edited("shared_vocabulary.json", lambda v: [*v[:9], "zzz", *v[10:]]), "piece 9 is 'zzz'"),
        (edited("shared_vocabulary.json", lambda v: {"a": v}), "has no list of pieces"),
        (edited("shared_vocabulary.json", lambda v: [0] * len(v)), "piece 0 is '0'"),
        (edited("config.json", lambda c: [c]), "not a JSON object"),
        (edited("config.json", lambda c: {**c, "eos_token": "x"}), "config.json must say"),
        (edited("config.json", lambda c: {**c, "quantization_type": 1}), "config.json must say"),
        (edited("config.json", lambda c: {**c, "layer_norm_epsilon": None}), "layer_norm_epsilon"),
        (lambda f: (f / "config.json").unlink(), "lacks config.json"),
        (lambda f: (f / "source_vocabulary.json").write_text("[]"), "which no export writes"),
        (lambda f: (f / "config.json").write_bytes(b" " * 100_000), "larger than"),
    ],
)
def test_the_small_files_must_fit(
    bundle: Bundle, change: Callable[[Path], object], message: str
) -> None:
    change(bundle.path / ENGINE)
    with pytest.raises(BundleError, match=message):
        check(bundle)

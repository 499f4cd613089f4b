"""A whole export: engines that translate, a card that is true, mistakes that are caught."""

from __future__ import annotations

import shutil
from pathlib import Path

import ctranslate2
import pytest
import sentencepiece as spm

from export.exporter import pieces_of
from export.quality_gate import ScoreParity, check_scores
from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.verify import check_translates
from tests.export import tiny


def translate(bundle: Bundle, engine: str, texts: list[str]) -> list[str]:
    tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.tokenizer_path))
    translator = ctranslate2.Translator(str(bundle.engine_path(engine)), intra_threads=1)
    results = translator.translate_batch(
        [tokenizer.encode(text, out_type=str) for text in texts],
        beam_size=1,
        max_decoding_length=20,
    )
    return [tokenizer.decode(result.hypotheses[0]) for result in results]


def test_both_engines_translate_alike(pristine_bundle: Bundle) -> None:
    texts = tiny.sentences()[:20]
    exact = translate(pristine_bundle, "ctranslate2-float32", texts)
    seven_bit = translate(pristine_bundle, "ctranslate2-int8", texts)
    same = [one == other for one, other in zip(exact, seven_bit, strict=True)]
    assert len(set(exact)) > 5
    assert sum(same) >= len(same) / 2


def test_the_card_says_how_to_use_it(pristine_bundle: Bundle) -> None:
    card = (pristine_bundle.path / "README.md").read_text()
    for needed in ("en → de", "curl", "/v1/translate", "CC-BY 2.0 FR", "Limitations", "Engines"):
        assert needed in card


def test_an_engine_that_does_not_load_is_caught(bundle: Bundle) -> None:
    (bundle.engine_path() / "model.bin").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="ctranslate2-int8 does not translate"):
        check_translates(bundle)


def test_a_new_export_replaces_the_former(bundle: Bundle, tokenizer_path: Path) -> None:
    before = (bundle.engine_path() / "model.bin").read_bytes()
    tiny.make_bundle(bundle.path, tokenizer_path, seed=12, engines=["ctranslate2-int8"])
    again = load_bundle(bundle.path)
    assert [engine.name for engine in again.manifest.engines] == ["ctranslate2-int8"]
    assert (again.engine_path() / "model.bin").read_bytes() != before


def test_coarser_embeddings_pack_smaller(tmp_path: Path, tokenizer_path: Path) -> None:
    """Of int8 engines; one in float32 keeps what it was."""

    def export(name: str, factor: float) -> dict[str, bytes]:
        bundle = tiny.make_bundle(
            tmp_path / name,
            tokenizer_path,
            engines=["onnx-int8", "onnx-float32"],
            coarser_embeddings=factor,
        )
        return {
            engine.name: b"".join(
                path.read_bytes() for path in sorted(bundle.engine_path(engine.name).iterdir())
            )
            for engine in bundle.manifest.engines
        }

    plain, coarser = export("plain", 1), export("coarser", 2)
    assert len(coarser["onnx-int8"]) < len(plain["onnx-int8"])
    assert coarser["onnx-float32"] == plain["onnx-float32"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"engines": ["int4"]}, "choose from"),
        ({"engines": []}, "choose from"),
        ({"max_input_tokens": 64}, "set it to 63 or less"),
        ({"model": tiny.random_model(50)}, "50 embeddings"),
    ],
)
def test_mistakes_leave_nothing_behind(
    tmp_path: Path, tokenizer_path: Path, overrides: dict[str, object], message: str
) -> None:
    model = tmp_path / "tokenizer.model"
    shutil.copy(tokenizer_path, model)
    with pytest.raises(ValueError, match=message):
        tiny.make_bundle(tmp_path / "out", model, **overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="run the tokenize stage"):
        pieces_of(tmp_path / "nowhere.model")


def test_a_parity_error_names_its_place() -> None:
    check_scores(ScoreParity(10, 1e-6, 1, 2))
    with pytest.raises(ValueError, match=r"5.00e-01 .*position 2 of sentence 1, tolerance 1e-04"):
        check_scores(ScoreParity(10, 0.5, 1, 2))
    with pytest.raises(ValueError, match="tolerance"):
        check_scores(ScoreParity(10, float("nan"), 1, 2))

"""A Marian model of Hugging Face, converted by CTranslate2, translates as Transformers does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from export.imported_ctranslate2 import import_ctranslate2
from export.runtime.engines import TranslateOptions, load_engine
from tests.export import foreign
from tests.export.tiny import sentences

TEXTS = sentences()[:8]
EOS, UNK = 0, 1


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Folder of a random model, the model, and its tokenizer: `</s>`, `<unk>` …, `<pad>` last."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("marian")
    source = foreign.train_sentencepiece(folder / "source.spm")
    target = foreign.train_sentencepiece(folder / "target.spm", russian=True)
    pieces = ["</s>", "<unk>", *foreign.pieces_of(source), *foreign.pieces_of(target), "<pad>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.MarianTokenizer(
        source_spm=str(source),
        target_spm=str(target),
        vocab=str(folder / "vocab.json"),
        source_lang="en",
        target_lang="ru",
    )
    torch.manual_seed(1)
    config = transformers.MarianConfig(
        vocab_size=len(vocabulary),
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=vocabulary["<pad>"],
        decoder_start_token_id=vocabulary["<pad>"],
        eos_token_id=EOS,
        forced_eos_token_id=None,
        scale_embedding=True,
        activation_function="swish",
        init_std=0.5,
    )
    model = transformers.MarianMTModel(config).eval()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder, model, tokenizer


@pytest.mark.filterwarnings("ignore")
def test_a_converted_marian_model(tmp_path: Path, marian: tuple[Path, Any, Any]) -> None:
    from ctranslate2.converters import TransformersConverter

    folder, model, tokenizer = marian
    converted = tmp_path / "converted"
    TransformersConverter(str(folder / "model")).convert(str(converted))
    for name in ("source.spm", "target.spm"):
        shutil.copyfile(folder / name, converted / name)
    bundle = import_ctranslate2(
        converted, tmp_path / "out", source="en", target="ru", licence="Apache-2.0"
    )
    assert bundle.manifest.source_suffix == ("</s>",)
    engine = load_engine(bundle)
    ours = [t.text for t in engine.translate_batch(TEXTS, TranslateOptions())]
    assert ours == [
        _translated(model, tokenizer, text, engine.output_limit(engine.count_tokens(text)))
        for text in TEXTS
    ]


def _translated(model: Any, tokenizer: Any, text: str, limit: int) -> str:
    with torch.no_grad():
        ids = model.generate(
            **tokenizer(text, return_tensors="pt"),
            num_beams=1,
            do_sample=False,
            min_new_tokens=2,
            max_new_tokens=limit,
            bad_words_ids=[[model.config.pad_token_id], [UNK]],
        )
    translated: str = tokenizer.decode(ids[0], skip_special_tokens=True)
    return translated.strip()

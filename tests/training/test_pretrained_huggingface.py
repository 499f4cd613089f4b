"""Marian models in Hugging Face folders: what transformers computes, or refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import torch
from safetensors.numpy import load, save
from safetensors.torch import load_file, save_file

from tests.training.tiny_pretrained import (
    TEXTS,
    WIDTH,
    huggingface_config,
    huggingface_folder,
    huggingface_tensors,
    piece_ids,
    pieces_of,
    sentencepiece_model,
)
from training.checkpoint import build_model
from training.model.transformer import BOS, PAD, Transformer, position_encodings
from training.pretrained.base import PretrainedModel
from training.pretrained.files import PretrainedError
from training.pretrained.huggingface import encodings
from training.pretrained.reader import read_pretrained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source() -> bytes:
    return sentencepiece_model()


@pytest.fixture(scope="module")
def target() -> bytes:
    return sentencepiece_model(80)


def loaded(model: PretrainedModel) -> Transformer:
    table = model.state.get("source_embedding.weight")
    ours = build_model(
        model.config, len(model.state["embedding.weight"]), None if table is None else len(table)
    )
    ours.load_state_dict({name: torch.from_numpy(value) for name, value in model.state.items()})
    return ours.eval()


@pytest.mark.parametrize(
    ("shared", "changes"),
    [
        (True, {}),
        (True, {"scale_embedding": False, "activation_function": "gelu"}),
        (True, {"activation_function": "quick_gelu", "decoder_start_token_id": 0}),
        (False, {"activation_function": "relu"}),
        (False, {"scale_embedding": False}),
    ],
    ids=["opus", "unscaled-gelu", "quick-gelu-other-start", "two-tables", "two-tables-unscaled"],
)
def test_it_computes_what_transformers_does(
    tmp_path: Path, source: bytes, target: bytes, shared: bool, changes: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "m"
    huggingface_folder(folder, source, target, shared, **changes)
    theirs = transformers.MarianMTModel.from_pretrained(folder).eval()
    model = read_pretrained(folder)
    ours = loaded(model)
    ids = json.loads((folder / "vocab.json").read_text())
    trg_ids = ids if shared else json.loads((folder / "target_vocab.json").read_text())
    plain = [spm.SentencePieceProcessor(model_proto=data) for data in (source, target)]
    own = [
        spm.SentencePieceProcessor(model_proto=data)
        for data in (model.source_tokenizer or model.tokenizer, model.tokenizer)
    ]
    columns = [own[1].piece_to_id(name) for name in trg_ids if name != "<pad>"]
    for src, trg in zip(TEXTS, reversed(TEXTS), strict=True):
        their_src = [*(ids.get(piece, 1) for piece in plain[0].encode(src, out_type=str)), 0]
        their_trg = [trg_ids.get(piece, 1) for piece in plain[1].encode(trg, out_type=str)]
        start = theirs.config.decoder_start_token_id
        with torch.inference_mode():
            expected = theirs(
                input_ids=torch.tensor([their_src]),
                decoder_input_ids=torch.tensor([[start, *their_trg]]),
            ).logits[0, :, : len(trg_ids) - 1]
            logits = ours(
                torch.tensor([own[0].encode(src, add_eos=True)]),
                torch.tensor([[BOS, *own[1].encode(trg)]]),
            )[0, :, columns]
        assert expected.std() > 0.5
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


def test_what_the_folder_says_is_kept(tmp_path: Path, source: bytes, target: bytes) -> None:
    folder = tmp_path / "opus-mt-en-de"
    huggingface_folder(folder, source, target)
    model = read_pretrained(folder)
    assert model.format == "huggingface-marian"
    assert model.languages == ("en", "de")
    assert model.name == "opus-mt-en-de"
    assert model.version == "transformers 4.22.0"
    assert model.config.max_length == 64
    assert model.config.sinusoids == "vaswani"
    assert model.config.norm_epsilon == 1e-5
    assert model.lexicon is None
    assert model.max_length_factor is None
    assert set(model.files) == {path.name for path in folder.iterdir()}
    assert model.source_tokenizer is not None
    assert pieces_of(model.source_tokenizer) == pieces_of(model.tokenizer)
    (folder / "tokenizer_config.json").write_text('{"source_lang": "eng", "target_lang": "deu"}')
    assert read_pretrained(folder).languages == ("eng", "deu")


def test_the_row_that_decoding_starts_from_is_that_of_begin(
    tmp_path: Path, source: bytes, target: bytes
) -> None:
    tensors = huggingface_folder(tmp_path / "m", source, target, decoder_start_token_id=0)
    state = read_pretrained(tmp_path / "m").state
    table = tensors["model.shared.weight"]
    assert table[0].any()
    np.testing.assert_array_equal(state["embedding.weight"][BOS], table[0])
    assert not state["embedding.weight"][PAD].any()
    assert (state["output_bias"][[PAD, BOS]] < -100).all()


def test_models_of_several_languages_need_a_prefix(
    tmp_path: Path, source: bytes, target: bytes
) -> None:
    huggingface_folder(tmp_path / "m", source, target, codes=(">>deu<<", ">>nld<<"))
    with pytest.raises(PretrainedError, match=r"2 languages; .*>>deu<<, >>nld<<"):
        read_pretrained(tmp_path / "m")
    model = read_pretrained(tmp_path / "m", (">>nld<<",))
    assert model.source_prefix == (">>nld<<",)
    processor = spm.SentencePieceProcessor(model_proto=model.source_tokenizer)
    assert processor.piece_to_id(">>nld<<") > 3


@pytest.mark.parametrize("stored", ["tensor2tensor", "vaswani"])
def test_stored_positions_decide_the_rates(
    tmp_path: Path, source: bytes, target: bytes, stored: str
) -> None:
    tensors = huggingface_folder(tmp_path / "m", source, target)
    for side in ("encoder", "decoder"):
        tensors[f"model.{side}.embed_positions.weight"] = encodings(64, WIDTH, stored)
    (tmp_path / "m" / "model.safetensors").write_bytes(save(tensors))
    assert read_pretrained(tmp_path / "m").config.sinusoids == stored
    np.testing.assert_allclose(
        encodings(64, WIDTH, stored), position_encodings(64, WIDTH, stored), atol=1e-6
    )
    tensors["model.decoder.embed_positions.weight"] = np.ones((64, WIDTH), np.float32)
    (tmp_path / "m" / "model.safetensors").write_bytes(save(tensors))
    with pytest.raises(PretrainedError, match=r"decoder\.embed_positions.* no sinusoids"):
        read_pretrained(tmp_path / "m")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_numbers_are_read(
    tmp_path: Path, source: bytes, target: bytes, dtype: torch.dtype
) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    exact = read_pretrained(tmp_path / "m").state
    path = tmp_path / "m" / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    for name, value in read_pretrained(tmp_path / "m").state.items():
        np.testing.assert_allclose(value, exact[name], rtol=0.01, atol=1e-3)


def rewrite(path: Path, **changes: Any) -> None:
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "model_type 't5'; marian is read"),
        ({"model_type": None}, "model_type None; marian is read"),
        ({"normalize_before": True}, "normalize_before: True"),
        ({"static_position_embeddings": False}, "static_position_embeddings: False"),
        ({"decoder_ffn_dim": 64}, r"decoder_ffn_dim: 64 \(encoder_ffn_dim: 32\)"),
        ({"decoder_attention_heads": 4}, "decoder_attention_heads: 4"),
        ({"activation_function": "gelu_new"}, "activation_function: 'gelu_new'"),
        ({"activation_function": ["gelu"]}, r"activation_function: \['gelu'\]"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: False"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: {'bits': 4}"),
        ({"encoder_layers": 10**9}, "encoder_layers: 1000000000 .1 to 64"),
        ({"d_model": -16}, "d_model: -16"),
        ({"d_model": "16"}, "d_model: '16'"),
        ({"d_model": True}, "d_model: True"),
        ({"d_model": 32}, r"model\.shared\.weight is .* config\.json asks for .*32"),
        ({"vocab_size": 1 << 40}, "vocab_size: 1099511627776"),
        ({"vocab_size": 50, "decoder_vocab_size": 50}, "decoder_start_token_id: "),
        ({"encoder_layers": 3}, r"it has no model\.encoder\.layers\.2\.self_attn_layer_norm"),
        ({"encoder_attention_heads": 3, "decoder_attention_heads": 3}, "dimensions do not fit"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    tmp_path: Path, source: bytes, target: bytes, changes: dict[str, Any], message: str
) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    rewrite(tmp_path / "m" / "config.json", **changes)
    with pytest.raises(PretrainedError, match=message):
        read_pretrained(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "source.spm", "vocab.json", "model.safetensors"])
def test_half_folders_say_what_is_missing(
    tmp_path: Path, source: bytes, target: bytes, name: str
) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    (tmp_path / "m" / name).unlink()
    message = f"a Hugging Face Marian folder; {name.replace('.', '[.]')} is missing"
    with pytest.raises(PretrainedError, match=message):
        read_pretrained(tmp_path / "m")


def test_pickles_are_never_read(tmp_path: Path, source: bytes, target: bytes) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    huggingface_folder(tmp_path / "m", source, target)
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(Trap(), tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(PretrainedError, match=r"pytorch_model\.bin only: loading it can run code"):
        read_pretrained(tmp_path / "m")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "[1]", "no JSON object"),
        ("vocab.json", "{", "no JSON"),
        ("vocab.json", "[" * 100_000, "no JSON"),
        ("vocab.json", '{"a": %s}' % ("9" * 5000), "no JSON"),
        ("vocab.json", '{"</s>": 0, "<unk>": 1, "a": 1.5}', "'a' has id 1.5"),
        ("vocab.json", '{"</s>": 0, "<unk>": true}', "'<unk>' has id True"),
        ("vocab.json", '{"</s>": 0, "<unk>": 1, "a": 99999}', "ids from 0 to 99999"),
        ("model.safetensors", "", "no safetensors file"),
        ("model.safetensors", "\x10\0\0\0\0\0\0\x10{}", "no safetensors file"),
        ("source.spm", "nothing", "no SentencePiece model"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, source: bytes, target: bytes, name: str, content: str, message: str
) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    (tmp_path / "m" / name).write_text(content, encoding="utf-8")
    with pytest.raises(PretrainedError, match=message):
        read_pretrained(tmp_path / "m")


def test_integers_for_weights_are_refused(tmp_path: Path, source: bytes, target: bytes) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    path = tmp_path / "m" / "model.safetensors"
    tensors = load(path.read_bytes())
    tensors["model.encoder.layers.0.fc1.bias"] = np.zeros(32, np.int8)
    path.write_bytes(save(tensors))
    with pytest.raises(
        PretrainedError, match=r"fc1\.bias has type 'I8'; save the model in float32"
    ):
        read_pretrained(tmp_path / "m")


def test_a_table_may_have_more_rows_than_pieces(
    tmp_path: Path, source: bytes, target: bytes
) -> None:
    huggingface_folder(tmp_path / "m", source, target)
    ids = piece_ids(source, target)
    config = huggingface_config(len(ids) + 7, pad_token_id=len(ids) - 1)
    config["decoder_start_token_id"] = len(ids) - 1
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "model.safetensors").write_bytes(save(huggingface_tensors(config)))
    model = read_pretrained(tmp_path / "m")
    assert len(model.state["embedding.weight"]) == len(ids) + 4 - 3

"""Models of Firefox and Marian: read as they are meant, or refused by name."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import torch

from tests.training.tiny_pretrained import (
    FFN,
    TEXTS,
    WIDTH,
    MarianReference,
    bin_items,
    dequantized,
    firefox_folder,
    marian_arrays,
    marian_settings,
    piece_ids,
    pieces_of,
    sentencepiece_model,
    write_bin,
    write_npz,
)
from training.checkpoint import build_model
from training.model.transformer import BOS, EOS, Transformer
from training.pretrained.base import PretrainedModel
from training.pretrained.files import Folder, PretrainedError
from training.pretrained.marian_container import read_container
from training.pretrained.reader import read_pretrained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return sentencepiece_model()


def loaded(model: PretrainedModel) -> Transformer:
    table = model.state.get("source_embedding.weight")
    ours = build_model(
        model.config, len(model.state["embedding.weight"]), None if table is None else len(table)
    )
    ours.load_state_dict({name: torch.from_numpy(value) for name, value in model.state.items()})
    return ours.eval()


def our_logits(model: PretrainedModel, src: str, trg: str) -> np.ndarray:
    target = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    source = spm.SentencePieceProcessor(model_proto=model.source_tokenizer or model.tokenizer)
    with torch.inference_mode():
        logits = loaded(model)(
            torch.tensor([source.encode(src, add_eos=True)]),
            torch.tensor([[BOS, *target.encode(trg)]]),
        )
    return logits[0].numpy()


def assert_parity(model: PretrainedModel, reference: MarianReference, *vocabularies: bytes) -> None:
    """Logits equal Marian's, piece by piece, over a few sentences."""
    source, target = (spm.SentencePieceProcessor(model_proto=v) for v in vocabularies)
    ours = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    names = [target.id_to_piece(index) for index in range(target.get_piece_size())]
    columns = [ours.piece_to_id(name) for name in names]
    for src, trg in zip(TEXTS, reversed(TEXTS), strict=True):
        expected = reference.logits([*source.encode(src), 0], [*target.encode(trg), 0])
        np.testing.assert_allclose(our_logits(model, src, trg)[:, columns], expected, atol=3e-4)


def test_a_firefox_folder_computes_what_marian_does(tmp_path: Path, vocabulary: bytes) -> None:
    arrays = firefox_folder(tmp_path / "enpt", vocabulary)
    model = read_pretrained(tmp_path / "enpt")
    assert_parity(model, MarianReference(arrays, marian_settings()), vocabulary, vocabulary)
    assert model.format == "firefox"
    assert model.languages == ("en", "pt")
    assert model.max_length_factor == 2.5
    assert model.version == "v1.9.56 2021-04-28"
    assert model.name == "enpt"
    assert model.source_tokenizer is None
    assert model.config.decoder_cell == "ssru"
    assert model.config.norm == "post"
    assert model.config.norm_epsilon == 1e-6
    name = "model.enpt.intgemm.alphas.bin"
    assert set(model.files) == {path.name for path in (tmp_path / "enpt").iterdir()}
    assert model.files[name] == hashlib.sha256((tmp_path / "enpt" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("about", "languages"),
    [
        ('{"sourceLanguage": "en", "targetLanguage": "zh_hant"}', ("en", "zh-hant")),
        ('{"shortName": "hbs-en-tiny", "src": "Serbo-Croatian"}', ("hbs", "en")),
        ('{"shortName": "fast model"}', ("en", "pt")),
        ('{"sourceLanguage": ["en"]', ("en", "pt")),
        ("[1]", ("en", "pt")),
    ],
)
def test_languages_come_from_descriptions_or_names(
    tmp_path: Path, vocabulary: bytes, about: str, languages: tuple[str, str]
) -> None:
    firefox_folder(tmp_path / "m", vocabulary)
    (tmp_path / "m" / "metadata.json").write_text(about)
    assert read_pretrained(tmp_path / "m").languages == languages


VARIANTS: dict[str, dict[str, Any]] = {
    "self-attention": {"transformer_decoder_autoreg": "self-attention"},
    "pre-norm": {
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "n",
    },
    "pre-norm-attention": {
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "dn",
        "transformer_decoder_autoreg": "self-attention",
    },
    "swish": {"transformer_ffn_activation": "swish"},
    "gelu": {"transformer_ffn_activation": "gelu"},
    "tied-layers": {"transformer_tied_layers": [1, 1], "dec_depth": 2},
    "own-source-table": {"tied_embeddings_all": False, "tied_embeddings": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_option_computes_what_marian_does(
    tmp_path: Path, vocabulary: bytes, variant: str
) -> None:
    settings = marian_settings(**VARIANTS[variant])
    size = len(pieces_of(vocabulary))
    arrays = marian_arrays(settings, size, size)
    (tmp_path / "model.npz").write_bytes(write_npz(arrays, settings))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    model = read_pretrained(tmp_path)
    assert model.format == "marian"
    assert_parity(model, MarianReference(arrays, settings), vocabulary, vocabulary)


def test_each_side_may_have_its_vocabulary(tmp_path: Path, vocabulary: bytes) -> None:
    other = sentencepiece_model(80)
    settings = marian_settings(tied_embeddings_all=False, tied_embeddings=True)
    arrays = marian_arrays(settings, len(pieces_of(other)), len(pieces_of(vocabulary)))
    (tmp_path / "model.bin").write_bytes(write_bin(bin_items(arrays, settings, "i2")))
    (tmp_path / "srcvocab.enja.spm").write_bytes(other)
    (tmp_path / "trgvocab.enja.spm").write_bytes(vocabulary)
    model = read_pretrained(tmp_path)
    assert model.languages == ("en", "ja")
    assert len(model.state["source_embedding.weight"]) == 82
    reference = MarianReference(dequantized(arrays, "i2"), settings)
    assert_parity(model, reference, other, vocabulary)


def test_opus_models_take_their_ids_from_a_list(tmp_path: Path, vocabulary: bytes) -> None:
    other = sentencepiece_model(80)
    ids = piece_ids(other, vocabulary, codes=(">>deu<<", ">>nld<<"))
    del ids["<pad>"]
    settings = marian_settings(transformer_decoder_autoreg="self-attention")
    arrays = marian_arrays(settings, len(ids), len(ids))
    (tmp_path / "opus.npz").write_bytes(write_npz(arrays, settings))
    (tmp_path / "source.spm").write_bytes(other)
    (tmp_path / "target.spm").write_bytes(vocabulary)
    lines = [f'"{name}": {index}' for name, index in ids.items()]
    (tmp_path / "opus.spm32k-spm32k.vocab.yml").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "decoder.yml").write_text("models:\n  - opus.npz\nbeam-size: 6\n")
    with pytest.raises(PretrainedError, match=r"2 languages; give the source's prefix.*>>deu<<"):
        read_pretrained(tmp_path)
    with pytest.raises(PretrainedError, match="no piece '>>fra<<'"):
        read_pretrained(tmp_path, (">>fra<<",))
    model = read_pretrained(tmp_path, (">>deu<<",))
    assert model.source_prefix == (">>deu<<",)
    source = spm.SentencePieceProcessor(model_proto=model.source_tokenizer)
    target = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    plain = spm.SentencePieceProcessor(model_proto=other)
    reference = MarianReference(arrays, settings)
    src, trg = TEXTS[0], TEXTS[1]
    their_src = [ids[">>deu<<"], *(ids.get(p, 1) for p in plain.encode(src, out_type=str)), 0]
    trg_pieces = spm.SentencePieceProcessor(model_proto=vocabulary).encode(trg, out_type=str)
    expected = reference.logits(their_src, [*(ids[piece] for piece in trg_pieces), 0])
    with torch.inference_mode():
        logits = loaded(model)(
            torch.tensor([[source.piece_to_id(">>deu<<"), *source.encode(src), EOS]]),
            torch.tensor([[BOS, *target.encode(trg)]]),
        )[0].numpy()
    columns = [target.piece_to_id(name) for name in ids]
    np.testing.assert_allclose(logits[:, columns], expected[:, list(ids.values())], atol=3e-4)


def test_padding_and_begin_have_rows_of_zeros_and_no_probability(
    tmp_path: Path, vocabulary: bytes
) -> None:
    firefox_folder(tmp_path / "m", vocabulary)
    state = read_pretrained(tmp_path / "m").state
    assert not state["embedding.weight"][[0, 2]].any()
    assert (state["output_bias"][[0, 2]] < -100).all()
    assert all(value.dtype == np.float32 for value in state.values())


def test_integers_are_divided_by_their_multiplier_and_turned() -> None:
    matrix = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int8)  # [out 2, in 3] in memory
    data = matrix.tobytes() + struct.pack("<f", 2.0)
    items = [
        ("a_W1", 0x4101, (3, 2), data),
        ("Wemb", 0x4101, (2, 3), data),
        ("half", 0x0402, (2,), np.array([0.5, -2], "<f2").tobytes()),
        ("special:model.yml", 0x0101, (4,), b"a: b"),
    ]
    container = read_container(write_bin(items), "m.bin")
    assert container.settings == b"a: b"
    assert container.items["a_W1"].values("a_W1", "").tolist() == [[0.5, 2], [1, 2.5], [1.5, 3]]
    assert container.items["Wemb"].values("Wemb", "").tolist() == [[0.5, 1, 1.5], [2, 2.5, 3]]
    assert container.items["half"].values("half", "").tolist() == [0.5, -2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dec_cell": "gru"}, "dec-cell: 'gru'"),
        ({"transformer_decoder_autoreg": "average-attention"}, "autoreg: 'average-attention'"),
        ({"transformer_preprocess": "n"}, "transformer-preprocess: 'n' .*'dan'"),
        ({"transformer_postprocess": "dhn"}, "transformer-preprocess: ''.*'dhn'"),
        ({"transformer_postprocess_emb": "dn"}, "transformer-postprocess-emb: 'dn'"),
        ({"type": "s2s"}, "type: 's2s'"),
        ({"type": None}, "type: None .missing"),
        ({"dim_emb": None}, "dim-emb: None .missing"),
        ({"dim_emb": "1e9"}, "dim-emb: '1e9'"),
        ({"enc_depth": 10**8}, "enc-depth: '100000000' .1 to 64"),
        ({"enc_depth": -1}, "enc-depth: '-1'"),
        ({"transformer_ffn_depth": 3}, "transformer-ffn-depth: '3'"),
        ({"transformer_decoder_dim_ffn": 64}, "transformer-decoder-dim-ffn: '64'"),
        ({"transformer_ffn_activation": "tanh"}, "transformer-ffn-activation: 'tanh'"),
        ({"transformer_train_position_embeddings": True}, "position-embeddings: 'true'"),
        ({"tied_embeddings_all": False}, "tied-embeddings: 'false'"),
        ({"transformer_tied_layers": [1, 5]}, "transformer-tied-layers: .*'5'"),
        ({"lemma_dim_emb": 64}, "lemma-dim-emb: '64'"),
        ({"right_left": True}, "right-left: 'true'"),
        ({"dim_emb": 32}, r"Wemb is \[100, 16\], settings and vocabulary ask for \[100, 32\]"),
        ({"enc_depth": 3}, "it has no encoder_l3_self_Wo_ln_scale"),
        ({"transformer_heads": 3}, "dimensions do not fit"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    tmp_path: Path, vocabulary: bytes, changes: dict[str, Any], message: str
) -> None:
    arrays = marian_arrays(marian_settings(), 100, 100)
    (tmp_path / "model.npz").write_bytes(write_npz(arrays, marian_settings(**changes)))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match=message):
        read_pretrained(tmp_path)


def test_all_settings_that_do_not_fit_are_named_at_once(tmp_path: Path, vocabulary: bytes) -> None:
    settings = marian_settings(dec_cell="gru", transformer_ffn_activation="tanh")
    arrays = marian_arrays(marian_settings(), 100, 100)
    (tmp_path / "model.npz").write_bytes(write_npz(arrays, settings))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match=r"tanh.*; dec-cell|dec-cell.*; .*tanh"):
        read_pretrained(tmp_path)


def test_half_folders_say_what_is_missing(tmp_path: Path, vocabulary: bytes) -> None:
    with pytest.raises(PretrainedError, match="no folder there"):
        read_pretrained(tmp_path / "nowhere")
    with pytest.raises(PretrainedError, match="it holds no files"):
        read_pretrained(tmp_path)
    (tmp_path / "model.enpt.intgemm.alphas.bin.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(PretrainedError, match=r"bin\.gz' is compressed; unpack it first"):
        read_pretrained(tmp_path)
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match=r"no \.bin or \.npz instead of one model"):
        read_pretrained(tmp_path)
    settings = marian_settings()
    arrays = marian_arrays(settings, 100, 100)
    (tmp_path / "model.bin").write_bytes(write_bin(bin_items(arrays, settings, None)))
    assert read_pretrained(tmp_path).lexicon is None
    (tmp_path / "other.npz").write_bytes(b"PK")
    with pytest.raises(PretrainedError, match=r"model\.bin, other\.npz instead of one model"):
        read_pretrained(tmp_path)
    (tmp_path / "config.yml").write_text("models: [model.bin]")
    assert read_pretrained(tmp_path).format == "marian"
    (tmp_path / "vocab.spm").unlink()
    with pytest.raises(PretrainedError, match=r"no \.spm; one SentencePiece vocabulary"):
        read_pretrained(tmp_path)


def test_the_vocabulary_must_be_the_models(tmp_path: Path, vocabulary: bytes) -> None:
    firefox_folder(tmp_path / "m", vocabulary)
    (tmp_path / "m" / "vocab.enpt.spm").write_bytes(sentencepiece_model(90))
    with pytest.raises(
        PretrainedError,
        match="lists for 100 source words, the vocabulary has 90|"
        r"Wemb is \[100, 16\], settings and vocabulary ask for \[90, 16\]",
    ):
        read_pretrained(tmp_path / "m")


def test_links_are_not_followed(tmp_path: Path, vocabulary: bytes) -> None:
    firefox_folder(tmp_path / "m", vocabulary)
    path = tmp_path / "m" / "vocab.enpt.spm"
    path.rename(tmp_path / "elsewhere.spm")
    path.symlink_to(tmp_path / "elsewhere.spm")
    with pytest.raises(PretrainedError, match="a link or special file; copy the file itself"):
        read_pretrained(tmp_path / "m")


def test_files_have_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert Folder.open(tmp_path).read("a", 4) == b"1234"
    with pytest.raises(PretrainedError, match="4 bytes, at most 3 are read of such a file"):
        Folder.open(tmp_path).read("a", 3)
    with pytest.raises(PretrainedError, match="only files at the top of the folder"):
        Folder.open(tmp_path).read("../a", 3)


def bin_with(items: list[Any]) -> bytes:
    return write_bin([*items, ("special:model.yml", 0x0101, (4,), b"a: b")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<QQ", 1, 1 << 60), "items, 10000 at most"),
        (struct.pack("<QQ", 2, 1), "version 2"),
        (struct.pack("<QQQQQQ", 1, 1, 1 << 60, 0x404, 1, 4), "a name of 1152921504606846976 bytes"),
        (struct.pack("<QQQQQQ", 1, 1, 2, 0x404, 1 << 60, 4) + b"a\0", "dimensions"),
        (bin_with([("a", 0x404, (-4,), b"")]), r"shape \(-4,\)"),
        (bin_with([("a", 0x404, (0, 4), b"")]), r"shape \(0, 4\)"),
        (bin_with([("a", 0x404, (1 << 30,) * 3, b"1234")]), "needs 4951760157141521099596496896"),
        (bin_with([("a", 0x404, (2,), b"1234")]), "needs 8 bytes, it has 4"),
        (bin_with([("a_W", 0x4101, (2, 2), b"1234")]), "needs 8 bytes, it has 4"),
        (bin_with([("a_W", 0x4101, (4,), b"12341234")]), "is quantised and of shape"),
        (bin_with([("a", 0x4111, (1,), b"1234")]), "type 0x4111; types packed for one kind"),
        (bin_with([("a", 0x404, (1,), b"1234"), ("a", 0x404, (1,), b"1234")]), "comes twice"),
        (bin_with([("a", 0x404, (1,), b"1234")])[:-5], "cut off"),
        (write_bin([("a", 0x404, (1,), b"1234")]), "it has no special:model.yml"),
        (b"", "cut off"),
        (b"PK\3\4", "no Marian model"),
    ],
)
def test_sizes_that_cannot_be_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        read_container(data, "m.bin")


def zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def saved(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def header(dtype: str, shape: str) -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"x", "no .npy array"),
        (saved(np.array([{}], dtype=object)), "no array of numbers"),
        (npy(header("<f4", "(1152921504606846976,)")), "has 0 bytes"),
        (npy(header("<f4", "(-1,)")), "no array of numbers"),
        (npy(header("<c8", "(1,)"), bytes(8)), "no array of numbers"),
        (npy(header("<f3", "(1,)"), bytes(3)), "has type <f3"),
        (npy(header("<f4", "(9,)"), bytes(35)), "has 35 bytes"),
        (npy(header("<f4", f"({'9' * 5000},)")), "no Marian model"),
        (npy("__import__('os').getcwd()"), "no array of numbers"),
        (saved(np.zeros(3)), "it has no special:model.yml"),
    ],
)
def test_arrays_that_cannot_be_are_refused(member: bytes, message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        read_container(zipped({"a.npy": member}), "m.npz")


def test_archives_that_grow_are_refused() -> None:
    with pytest.raises(PretrainedError, match="bytes that unpack to 4194304"):
        read_container(zipped({"a.npy": bytes(1 << 22)}, zipfile.ZIP_DEFLATED), "m.npz")
    with pytest.raises(PretrainedError, match="packed in another way"):
        read_container(zipped({"a.npy": saved(np.zeros(3))}, zipfile.ZIP_BZIP2), "m.npz")


def test_arrays_in_columns_are_read_by_rows() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    settings = saved(np.zeros(1, np.int8))
    members = {"a.npy": saved(np.asfortranarray(array)), "special:model.yml.npy": settings}
    container = read_container(zipped(members), "m.npz")
    assert container.items["a"].values("a", "").tolist() == array.tolist()


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_multipliers_must_be_numbers(tmp_path: Path, vocabulary: bytes, multiplier: float) -> None:
    settings = marian_settings()
    items = bin_items(marian_arrays(settings, 100, 100), settings, "i1")
    at = next(i for i, (name, *_) in enumerate(items) if name == "encoder_l1_ffn_W1")
    name, kind, shape, data = items[at]
    place = WIDTH * FFN
    items[at] = (
        name,
        kind,
        shape,
        data[:place] + struct.pack("<f", multiplier) + data[place + 4 :],
    )
    (tmp_path / "model.bin").write_bytes(write_bin(items))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match="encoder_l1_ffn_W1 has the multiplier"):
        read_pretrained(tmp_path)


def test_weights_must_be_numbers(tmp_path: Path, vocabulary: bytes) -> None:
    settings = marian_settings()
    arrays = marian_arrays(settings, 100, 100)
    arrays["encoder_l1_self_bq"][0, 3] = np.nan
    (tmp_path / "model.npz").write_bytes(write_npz(arrays, settings))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match=r"encoder\.0\.attention\.qkv\.bias holds values"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        b"[" * 3000,
        b"a: *b",
        b"- a",
        b"a: !!python/object/apply:os.getcwd []",
        b"\xff",
        b"? {a: b}\n: c",
    ],
)
def test_settings_that_are_no_plain_yaml_are_refused(
    tmp_path: Path, vocabulary: bytes, settings: bytes
) -> None:
    items = [("special:model.yml", 0x0101, (len(settings),), settings)]
    (tmp_path / "model.bin").write_bytes(write_bin(items))
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    with pytest.raises(PretrainedError, match=r"no YAML|these settings do not fit"):
        read_pretrained(tmp_path)

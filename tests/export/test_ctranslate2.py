"""CTranslate2 against torch on tiny random models, and the 7-bit weights by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from export.ctranslate2 import check_pieces, quantize_rows, to_ctranslate2
from export.quality_gate import score_parity
from training.model.transformer import BOS, EOS, Transformer

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
VOCAB_SIZE = 60
PIECES = [*SPECIALS, *(f"▁w{index}" for index in range(VOCAB_SIZE - len(SPECIALS)))]
MAX_STEPS = 12


def tiny_model(
    activation: str, layers: tuple[int, int], heads: int = 4, seed: int = 7
) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(
        VOCAB_SIZE,
        width=32,
        heads=heads,
        ffn=48,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        activation=activation,
        max_length=64,
    )
    with torch.no_grad():  # biases and norms start at 0 and 1, where a swap would not show
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def random_sources(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 20, (count,), generator=generator).tolist()
    return [torch.randint(4, VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def torch_greedy(model: Transformer, source: list[int]) -> list[int]:
    """Uncached argmax decoding; as in CTranslate2, the first token is not EOS."""
    src = torch.tensor([[*source, EOS]])
    output: list[int] = []
    while len(output) < MAX_STEPS:
        logits = model(src, torch.tensor([[BOS, *output]]))[0, -1]
        if not output:
            logits[EOS] = float("-inf")
        token = int(logits.argmax())
        if token == EOS:
            break
        output.append(token)
    return output


@pytest.mark.parametrize(
    ("activation", "heads", "layers"),
    list(product(("relu", "gelu", "silu"), (1, 2, 4), ((1, 1), (1, 2), (3, 1), (3, 2)))),
)
def test_float32_is_torch_for_every_option(
    activation: str, heads: int, layers: tuple[int, int], tmp_path: Path
) -> None:
    model = tiny_model(activation, layers, heads)
    to_ctranslate2(model, PIECES, tmp_path / "engine", "float32")
    translator = ctranslate2.Translator(str(tmp_path / "engine"), intra_threads=1)
    sources = random_sources(6)
    results = translator.translate_batch(
        [[PIECES[token] for token in source] for source in sources],
        beam_size=1,
        max_decoding_length=MAX_STEPS,
    )
    expected = [[PIECES[t] for t in torch_greedy(model, source)] for source in sources]
    assert [result.hypotheses[0] for result in results] == expected

    targets = sources[::-1]
    parity = score_parity(model, PIECES, tmp_path / "engine", sources, targets)
    assert parity.largest_difference <= 1e-4, parity


def test_seven_bit_scores_stay_near_torch(tmp_path: Path) -> None:
    model = tiny_model("relu", (2, 2))
    to_ctranslate2(model, PIECES, tmp_path / "engine", "int8")
    sources = random_sources(8)
    parity = score_parity(model, PIECES, tmp_path / "engine", sources, sources)
    assert 0 < parity.largest_difference < 1.0, parity
    sizes = {}
    for precision in ("int8", "float32"):
        to_ctranslate2(model, PIECES, tmp_path / precision, precision)
        sizes[precision] = (tmp_path / precision / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["float32"] / 2


def test_quantize_rows_pinned_values() -> None:
    weight = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [126.0, 1.0, -63.0]], np.float32)
    quantized, scale = quantize_rows(weight)
    assert_array_equal(quantized, np.array([[32, -63, 16], [0, 0, 0], [63, 0, -32]], np.int8))
    assert_array_equal(scale, np.array([31.5, 1.0, 0.5], np.float32))
    assert quantized.dtype == np.int8


def test_quantize_rows_never_leaves_seven_bits() -> None:
    weight = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    quantized, scale = quantize_rows(weight)
    assert np.abs(quantized).max(axis=1).tolist() == [63] * 50
    np.testing.assert_allclose(quantized / scale[:, None], weight, atol=0.5 / scale.min())
    tiny, scale = quantize_rows(np.array([[1e-45, 0.0]], np.float32))
    assert np.isfinite(scale).all()
    assert np.abs(tiny).max() <= 63


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (PIECES[:-1], "59 pieces"),
        (["<unk>", "<pad>", *PIECES[2:]], "piece 0 is '<unk>'"),
        ([*PIECES[:-1], PIECES[-2]], "come twice"),
    ],
)
def test_pieces_must_fit(pieces: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pieces(pieces, VOCAB_SIZE)


def test_a_failed_conversion_leaves_the_former_folder(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    to_ctranslate2(tiny_model("relu", (1, 1)), PIECES, engine, "float32")
    before = (engine / "model.bin").read_bytes()
    broken = tiny_model("relu", (1, 1), seed=8)
    broken.encoder_norm.eps = 1e-6
    with pytest.raises(ValueError, match="eps"):
        to_ctranslate2(broken, PIECES, engine, "float32")
    assert (engine / "model.bin").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]

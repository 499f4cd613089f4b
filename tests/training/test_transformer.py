"""The Transformer: shapes, padding, causality, dropout."""

from __future__ import annotations

import math

import pytest
import torch

from training.model.transformer import (
    PAD,
    SSRU,
    Dropout,
    Transformer,
    parameter_count,
    position_encodings,
)


def tiny(**options: object) -> Transformer:
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 2, "decoder_layers": 1}
    return Transformer(vocab_size=40, **{**sizes, "dropout": 0.0, **options}).eval()  # type: ignore[arg-type]


def test_parameters_are_those_of_the_dimensions() -> None:
    width, ffn, vocab = 16, 32, 40
    norm, attention = 2 * width, 4 * width * width + 4 * width
    feed = 2 * width * ffn + ffn + width
    encoder = 2 * (attention + feed + 2 * norm) + norm
    decoder = 2 * attention + feed + 3 * norm + norm
    assert parameter_count(tiny()) == vocab * width + vocab + encoder + decoder


def test_position_encodings_start_at_position_zero() -> None:
    table = position_encodings(3, 8)
    assert table[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert table[1, 0] == pytest.approx(0.8414709848)
    assert table[2, 7] == pytest.approx(1.0, abs=1e-6)


def test_padding_changes_nothing() -> None:
    model = tiny()
    src, trg = torch.randint(4, 40, (2, 5)), torch.randint(4, 40, (2, 4))
    plain = model(src, trg)
    padded = model(
        torch.cat([src, torch.full((2, 3), PAD)], 1), torch.cat([trg, torch.full((2, 2), PAD)], 1)
    )
    torch.testing.assert_close(padded[:, :4], plain, atol=1e-5, rtol=1e-4)


def test_a_position_sees_none_after_it() -> None:
    model = tiny()
    src, trg = torch.randint(4, 40, (1, 5)), torch.randint(4, 40, (1, 6))
    changed = trg.clone()
    changed[0, 3] = (trg[0, 3] - 4 + 1) % 36 + 4
    before, after = model(src, trg), model(src, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_cached_steps_equal_the_whole(activation: str) -> None:
    model = tiny(activation=activation, decoder_layers=2)
    src, trg = torch.randint(4, 40, (3, 6)), torch.randint(4, 40, (3, 5))
    src[1, 4:] = PAD
    memory, bias = model.encode(src)
    whole = model.decode(trg, memory, bias)
    cache = model.new_cache(bias)
    steps = [model.decode(trg[:, t : t + 1], memory, bias, cache) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)


def test_too_long_input_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="split the text or raise max_length"):
        tiny(max_length=8).encode(torch.full((1, 9), 5))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        tiny(width=18, heads=4)


def test_dropout_keeps_the_mean_and_drops_the_share() -> None:
    torch.manual_seed(1)
    layer = Dropout(0.25).train()
    out = layer(torch.ones(200_000))
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert out.unique().tolist() == pytest.approx([0.0, 256 / 192])


def test_dropout_follows_the_generator_and_rests_in_eval() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)


OPTIONS = [
    {"norm": "post", "norm_epsilon": 1e-6},
    {"decoder_cell": "ssru"},
    {"norm": "post", "decoder_cell": "ssru", "sinusoids": "vaswani"},
    {"source_vocab_size": 31},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cached_steps_of_every_option_equal_one_pass(options: dict[str, object]) -> None:
    model = tiny(**options)
    src, trg = torch.tensor([[5, 6, 7, 3], [9, 3, 0, 0]]), torch.tensor([[2, 8, 9], [2, 4, 5]])
    whole = model(src, trg)
    memory, bias = model.encode(src)
    cache = model.new_cache(bias)
    steps = [model.decode(trg[:, i : i + 1], memory, bias, cache) for i in range(3)]
    assert torch.allclose(model.logits(torch.cat(steps, 1)), whole, atol=1e-5)


def test_the_recurrent_unit_is_its_formula() -> None:
    torch.manual_seed(3)
    unit = SSRU(4, 2, 2)
    x = torch.randn(1, 3, 4)
    state = torch.zeros(4)
    for step in range(3):
        vector = x[0, step]
        forget = torch.sigmoid(unit.forget.weight @ vector + unit.forget.bias)
        state = forget * state + (1 - forget) * (unit.candidate.weight @ vector)
        expected = state.clamp(min=0)
        assert torch.allclose(unit(x, None, True)[0, step], expected, atol=1e-6)


def test_post_norm_ends_in_the_norm_of_its_last_layer() -> None:
    model = tiny(norm="post")
    states, _ = model.encode(torch.tensor([[5, 6, 3]]))
    assert states.mean(-1).abs().max() < 1e-5  # its gain is 1 and its bias 0
    assert not [name for name in model.state_dict() if name.startswith("encoder_norm")]


def test_vaswani_rates_are_those_of_the_paper() -> None:
    table = position_encodings(4, 8, "vaswani")
    assert table[3, 1] == pytest.approx(math.sin(3 / 10_000 ** (2 / 8)))
    assert position_encodings(4, 8)[3, 3] == pytest.approx(math.sin(3 / 10_000))


def test_a_source_vocabulary_of_its_own_bounds_the_source_alone() -> None:
    model = tiny(source_vocab_size=50)
    assert model(torch.tensor([[49, 3]]), torch.tensor([[2, 5]])).shape == (1, 2, 40)
    with pytest.raises(IndexError):
        model(torch.tensor([[5, 3]]), torch.tensor([[2, 45]]))

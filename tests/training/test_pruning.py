"""Heads and feed-forward units cut out of a model: which go, and how well the others make up for
them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_transfer import DIMENSIONS, pretrained, tokenized, training_run
from tests.training.tiny_pretrained import FFN
from training.checkpoint import CheckpointError, LayerChoice, build_model, load_checkpoint
from training.config.model import LayerSizes, ModelConfig, start_faults
from training.data.batching import Batch, target_from_outputs
from training.model.transformer import EOS, LayerSize, Transformer
from training.pruning import chosen_units, cut_heads, prune
from training.run import Run
from training.trainer import train
from training.transfer import copy_start

__all__ = ["pretrained", "tokenized"]


def model(ffn: int = 32) -> Transformer:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{**DIMENSIONS, "ffn": ffn, "dropout": 0.0}), 50).eval()  # type: ignore[arg-type]


def cut_units(transformer: Transformer, units: int, some: list[Batch]) -> None:
    """Every layer down to so many units."""
    sizes = [
        [LayerSize.of(layer)._replace(ffn=units) for layer in side]
        for side in (transformer.encoder, transformer.decoder)
    ]
    prune(transformer, *sizes, some)


def units_of(transformer: Transformer) -> set[int]:
    return {LayerSize.of(layer).ffn for layer in [*transformer.encoder, *transformer.decoder]}


def batches(seed: int = 0, count: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> Tensor:
        return torch.randint(4, 50, (8, length), generator=generator)

    made = []
    for _ in range(count):
        src, trg = ids(9), ids(7)
        src[:4, 6:], trg[2:5, 4:] = 0, 0  # padding
        trg[trg != 0] = trg[trg != 0].clamp(min=EOS)
        made.append(Batch(torch.arange(8), src, reference=target_from_outputs(trg)))
    return made


def logits(transformer: Transformer, some: list[Batch]) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [
                transformer(batch.src, target.trg_in)[target.mask]
                for batch in some
                for target in batch.targets.values()
            ]
        )


def least_error(gram: Tensor, weights: Tensor, kept: list[int]) -> float:
    """Squared error that is left when these rows [of F + 1] are fitted to stand for all."""
    fitted = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ weights)
    missing = weights.clone()
    missing[kept] -= fitted
    return float((missing * (gram @ missing)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_each_unit_that_goes_is_the_one_that_costs_least(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(9) + 0.3 * torch.rand(9, 9, generator=generator)
    hidden = (torch.randn(200, 9, generator=generator) @ mixed).relu().double()
    hidden = torch.cat([hidden, hidden.new_ones(200, 1)], dim=1)
    weights = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    gram = hidden.T @ hidden
    kept = list(range(10))
    while len(kept) > 5:
        costs = {
            unit: least_error(gram, weights, [u for u in kept if u != unit]) for unit in kept[:-1]
        }
        kept.remove(min(costs, key=costs.__getitem__))
    assert chosen_units(gram, weights, 4).tolist() == kept[:-1]


def test_units_that_say_the_same_are_not_both_cut() -> None:
    """Each of two equal units is worthless beside the other; together they count most."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.rand(100, 4, generator=generator, dtype=torch.float64)
    hidden[:, 1] = hidden[:, 0]
    hidden = torch.cat([hidden, torch.ones(100, 1, dtype=torch.float64)], dim=1)
    weights = torch.tensor([[5.0], [5.0], [0.1], [0.2], [0.0]], dtype=torch.float64)
    kept = chosen_units(hidden.T @ hidden, weights, 2).tolist()
    assert len({0, 1} & set(kept)) == 1


def test_what_the_others_can_say_is_not_lost() -> None:
    """Half of the units are doubled: cut to half, the model computes what it did, also on other
    text."""
    whole, other = model(), model()
    for layer in [*whole.encoder, *whole.decoder]:
        with torch.no_grad():
            layer.ffn.inner.weight[16:] = layer.ffn.inner.weight[:16]
            layer.ffn.inner.bias[16:] = layer.ffn.inner.bias[:16]
    other.load_state_dict(whole.state_dict())
    cut_units(other, 16, batches())
    assert units_of(other) == {16}
    assert {layer.ffn.outer.in_features for layer in [*other.encoder, *other.decoder]} == {16}
    held_out = batches(seed=9)
    goal = logits(whole, held_out)
    assert (logits(other, held_out) - goal).norm() < 0.01 * goal.norm()


def test_fitted_anew_they_are_nearer_than_cut_alone() -> None:
    whole, fitted, cut = model(), model(), model()
    cut_units(fitted, 24, batches(count=40))
    for layer in [*cut.encoder, *cut.decoder]:
        weight = layer.ffn.outer.weight
        worth = weight.norm(dim=0) * layer.ffn.inner.weight.norm(dim=1)
        with torch.no_grad():
            weight[:, worth.topk(8, largest=False).indices] = 0
    held_out = batches(seed=7)
    goal = logits(whole, held_out)
    assert (logits(fitted, held_out) - goal).norm() < 0.8 * (logits(cut, held_out) - goal).norm()


def test_a_student_of_fewer_units_learns_from_a_pretrained_model(
    tokenized: Run, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training_run(tokenized, tmp_path / "run", pretrained)
    run = replace(run, model=run.model.model_copy(update={"ffn": FFN // 2}))
    train(run)
    assert "encoder layer 1: " in capsys.readouterr().err
    assert units_of(load_checkpoint(run.checkpoint).model) == {FFN // 2}


def test_of_heads_the_one_goes_that_the_others_can_stand_for() -> None:
    """Two heads mix the same: one of them goes, and nothing is lost, in self-attention and in that
    to the source."""
    whole, other = model(), model()
    heads, wide = whole.heads, whole.width // whole.heads
    first, last = slice(0, wide), slice((heads - 1) * wide, heads * wide)
    with torch.no_grad():
        for layer in [*whole.encoder, *whole.decoder]:
            for linear, parts in [
                *([(layer.attention.qkv, 3)] if hasattr(layer.attention, "qkv") else []),
                *([(layer.cross.query, 1), (layer.cross.kv, 2)] if hasattr(layer, "cross") else []),
            ]:
                for part in range(parts):
                    own = slice(part * whole.width, (part + 1) * whole.width)
                    for values in (linear.weight, linear.bias):
                        values[own][last] = values[own][first]
    other.load_state_dict(whole.state_dict())
    sizes = [[LayerSize.of(layer) for layer in side] for side in (other.encoder, other.decoder)]
    fewer = [
        [
            size._replace(heads=max(size.heads - 1, 0), cross_heads=max(size.cross_heads - 1, 0))
            for size in side
        ]
        for side in sizes
    ]
    prune(other, *fewer, batches())
    assert [LayerSize.of(layer) for layer in other.decoder] == fewer[1]
    held_out = batches(seed=9)
    goal = logits(whole, held_out)
    assert (logits(other, held_out) - goal).norm() < 0.01 * goal.norm()


def test_of_heads_that_differ_the_least_goes() -> None:
    attention = model().encoder[0].attention
    wide = attention.out.in_features // attention.heads
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(300, attention.heads * wide, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        attention.out.weight[:, wide : 2 * wide] *= 1e-3
    stay = [row for row in range(3 * attention.heads * wide) if row // wide % attention.heads != 1]
    kept = attention.qkv.weight[stay].clone()
    hidden = torch.cat([hidden, hidden.new_ones(300, 1)], dim=1)
    lost = cut_heads(attention, hidden.T @ hidden, attention.heads - 1)
    assert 0 < lost < 1e-4
    assert torch.equal(attention.qkv.weight, kept)


def test_a_student_of_layers_of_different_sizes_starts_and_is_saved(
    tokenized: Run, pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And each line of what goes is said once, by one of two processes."""
    run = training_run(tokenized, tmp_path / "run", pretrained)
    sizes = LayerSizes(
        encoder_heads=[1] * run.model.encoder_layers,
        encoder_ffn=[FFN // 2, *[FFN] * (run.model.encoder_layers - 1)],
        decoder_cross_heads=[1] * run.model.decoder_layers,
    )
    two = run.training.model_copy(update={"processes": 2})
    train(replace(run, model=run.model.model_copy(update={"sizes": sizes}), training=two))
    assert capfd.readouterr().err.count("encoder layer 1: 1 heads stay") == 1
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint.config.sizes == sizes
    assert {layer.attention.heads for layer in checkpoint.model.encoder} == {1}
    assert units_of(checkpoint.model) == {FFN // 2, FFN}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"encoder_ffn": [64]}, "names 1 layers of 2"),
        ({"encoder_heads": [9, 9]}, "heads is 4"),
        ({"decoder_ffn": [64, 9999]}, "holds 9999"),
        ({"decoder_heads": [0, 1]}, "greater than or equal to 1"),
        ({"encoder_ffn": [64], "decoder_heads": [9, 9]}, "1 layers of 2; .*heads holds 9"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, list[int]], said: str) -> None:
    whole = {"width": 32, "heads": 4, "ffn": 64, "encoder_layers": 2, "decoder_layers": 2}
    with pytest.raises(ValueError, match=said):
        ModelConfig.model_validate({**whole, "sizes": sizes})


def test_layers_that_start_from_one_have_the_same_size() -> None:
    config = ModelConfig(**{**DIMENSIONS, "ffn": 32, "dropout": 0.0})  # type: ignore[arg-type]
    last = config.encoder_layers
    for sizes, fits in (([32, 16], False), ([16, 16], True)):
        cut = config.model_copy(
            update={"encoder_layers": 2, "sizes": LayerSizes(encoder_ffn=sizes)}
        )
        student, choice = build_model(cut, 50), LayerChoice(encoder=(last, last))
        if fits:
            copy_start(student, model(), choice, batches)
            assert [size.ffn for size in student.encoder_sizes] == sizes
        else:
            with pytest.raises(CheckpointError, match=f"start from layer {last}, as .*ffn=32"):
                copy_start(student, model(), choice, batches)


def test_a_cut_model_can_be_cut_further_and_no_less() -> None:
    whole = ModelConfig(width=32, heads=4, ffn=64, encoder_layers=2, decoder_layers=1)
    cut = whole.model_copy(update={"sizes": LayerSizes(encoder_heads=[2, 3])})
    spelt = whole.model_copy(
        update={"sizes": LayerSizes(encoder_heads=[2, 3], encoder_ffn=[64, 64])}
    )
    less = whole.model_copy(update={"sizes": LayerSizes(encoder_heads=[1, 3])})
    for student in (cut, spelt, less):
        assert start_faults(student, cut) == []
        assert start_faults(student, whole) == []
    for student in (whole, whole.model_copy(update={"sizes": LayerSizes(encoder_heads=[2, 4])})):
        assert "sizes.encoder_heads to be the teacher's, [2, 3], or less" in str(
            start_faults(student, cut)
        )

"""What each layer of a model can spare: the sizes that `student.model.sizes` are chosen by.

    python -m benchmarks.cuts runs/firefox-en-pt --src text.en --trg its-translations.pt

One layer at a time loses attention heads or feed-forward units as a student that starts from the
model would lose them (`training.pruning`); what the others lose by it is the divergence of the next
word's distribution from the whole model's, nats a word, along translations that the cut did not
see. Several cuts together cost more than the sum of their costs.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from quickstudy.atomic import atomic_write
from training.checkpoint import load_checkpoint
from training.data.batching import Batch, pad_rows, target_sequence, token_batches
from training.data.files import read_lines
from training.data.tokenizer import Tokenizer
from training.distill.losses.start_token import StartTokenLoss
from training.model.transformer import (
    PAD,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Transformer,
)
from training.pretrained.reader import read_pretrained
from training.pruning import SecondMoments, cut_heads, cut_units
from training.transfer import to_transformer

TOP_K = 64
"""Likeliest words that are told apart."""
BATCH_TOKENS = 4096

Block = SelfAttention | CrossAttention | FeedForward


def blocks_of(model: Transformer) -> dict[str, Block]:
    """What can be cut, by its name in the model, such as `decoder.0.cross`."""
    return {name: one for name, one in model.named_modules() if isinstance(one, Block)}


def last_of(block: Block) -> nn.Linear:
    """The layer that what is left is fitted in."""
    return block.outer if isinstance(block, FeedForward) else block.out


@torch.no_grad()
def moments_of(model: Transformer, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """The second moments of what each block's last layer reads."""
    moments = SecondMoments({name: last_of(block) for name, block in blocks_of(model).items()})
    with moments:
        for batch in batches:
            target = batch.reference
            assert target is not None
            # Keys and values of the source are read by a layer that is not among those.
            moments.mask = batch.src != PAD
            memory, bias = model.encode(batch.src)
            moments.mask = target.mask
            model.decode(target.trg_in, memory, bias)
    return moments.found


@torch.no_grad()
def costs(
    model: Transformer, seen: Sequence[Batch], held_out: Sequence[Batch], steps: int
) -> Iterator[dict[str, Any]]:
    """A row for every block and size: its name, what it is cut to, and the divergence."""
    loss = StartTokenLoss(kd_rate=1.0, top_k=TOP_K)
    loss.teach_by(model)
    judged = [loss.prepared(batch) for batch in held_out]
    words = sum(batch.ntokens for batch in judged)

    def divergence(student: Transformer) -> float:
        found = [(float(loss(student, batch).loss), batch.ntokens) for batch in judged]
        return sum(value * count for value, count in found) / words

    whole, moments = divergence(model), moments_of(model, seen)
    for name, block in blocks_of(model).items():
        size = block.inner.out_features if isinstance(block, FeedForward) else block.heads
        for kept in sorted({size * step // steps for step in range(1, steps)} - {0}, reverse=True):
            student = copy.deepcopy(model)
            cut = blocks_of(student)[name]
            if isinstance(cut, FeedForward):
                cut_units(cut, moments[name], kept)
            else:
                cut_heads(cut, moments[name], kept)
            yield {
                "block": name,
                "of": size,
                "kept": kept,
                "nats_a_word": round(divergence(student) - whole, 5),
            }


def batches_of(
    source: Tokenizer, target: Tokenizer, pairs: Sequence[tuple[str, str]], longest: int
) -> list[Batch]:
    """Pairs in batches; longer ones than the model takes are left out."""
    src, trg = (
        tokenizer.encode(list(side))
        for tokenizer, side in zip((source, target), zip(*pairs, strict=True), strict=True)
    )
    fit = [row for row in range(len(src)) if max(len(src[row]), len(trg[row])) < longest]
    src_lengths, trg_lengths = (np.array([len(side[row]) for row in fit]) for side in (src, trg))
    order, made = np.random.default_rng(0), []
    for rows in token_batches(src_lengths, trg_lengths, BATCH_TOKENS, order):
        chosen = [fit[row] for row in rows]
        made.append(
            Batch(
                torch.tensor(chosen),
                pad_rows([np.array(src[row]) for row in chosen]).long(),
                reference=target_sequence([np.array(trg[row]) for row in chosen]),
            )
        )
    return made


def opened(folder: Path) -> tuple[Transformer, Tokenizer, Tokenizer]:
    """A checkpoint, or a model of Firefox, Bergamot or Marian, with its source's and target's
    tokenizers."""
    if (folder / "checkpoint.json").is_file():
        checkpoint = load_checkpoint(folder)
        target = Tokenizer(checkpoint.tokenizer)
        own = checkpoint.source_tokenizer
        return checkpoint.model.eval(), Tokenizer(own) if own else target, target
    model = read_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model"
        sides = []
        for content in (model.source_tokenizer or model.tokenizer, model.tokenizer):
            path.write_bytes(content)
            sides.append(Tokenizer(path))
    return to_transformer(model), sides[0], sides[1]


def main(
    model: Annotated[Path, typer.Argument(help="A checkpoint, or a model of another toolkit.")],
    src: Annotated[Path, typer.Option(help="Text, a sentence a line; maybe .gz.")],
    trg: Annotated[Path, typer.Option(help="What the model translates it to.")],
    pairs: Annotated[int, typer.Option(min=1, help="First pairs, to fit cuts on.")] = 6000,
    judged: Annotated[int, typer.Option(min=1, help="Pairs after them, to judge by.")] = 500,
    steps: Annotated[int, typer.Option(min=2, help="Sizes tried, parts of the whole.")] = 6,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """What each layer of a model can spare."""
    transformer, source, target = opened(model)
    lines = zip(read_lines(src), read_lines(trg), strict=True)
    text = [(a, b) for a, b in islice(lines, pairs + judged) if a and b]
    if len(text) <= pairs:
        raise typer.BadParameter(f"{src} has {len(text)} pairs: give --pairs fewer than that")
    seen, held_out = (
        batches_of(source, target, part, transformer.max_length)
        for part in (text[:pairs], text[pairs:])
    )
    rows = []
    for row in costs(transformer, seen, held_out, steps):
        rows.append(row)
        typer.echo("{block}: {kept} of {of}: {nats_a_word:.4f}".format(**row), err=True)
    report = {"model": model.name, "text": src.name, "pairs": pairs, "judged": judged, "rows": rows}
    content = json.dumps(report, indent=2) + "\n"
    if out is None:
        print(content, end="")
    else:
        atomic_write(out, content)


if __name__ == "__main__":
    typer.run(main)

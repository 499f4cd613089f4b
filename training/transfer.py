"""Transfer from a pretrained model to another target language: what a student starts with, and what
it keeps at first.

The student has the pretrained model's source vocabulary and a target vocabulary of its own (Zoph et
al. 2016; Kocmi & Bojar 2018). What it has learnt of the source need not change while the new target
embeddings are noise, so the encoder can be frozen for a share of the run (Howard & Ruder 2018,
gradual unfreezing).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import build_model, start_from_model
from training.config.model import FreezeConfig
from training.config.recipe import RecipeError
from training.data.tokenizer import pieces_of
from training.model.transformer import Transformer
from training.pretrained.base import PretrainedModel
from training.pretrained.reader import read_pretrained

# --- start -------------------------------------------------------------------------------------


def to_transformer(model: PretrainedModel) -> Transformer:
    """A pretrained model in torch, in float32, for evaluation."""
    table = model.state.get("source_embedding.weight")
    transformer = build_model(
        model.config,
        len(model.state["embedding.weight"]),
        None if table is None else len(table),
    )
    transformer.load_state_dict({name: torch.from_numpy(w) for name, w in model.state.items()})
    return transformer.eval()


def start_from_pretrained(student: Transformer, folder: Path, target_tokenizer: Path) -> None:
    """Copy a pretrained model's source embeddings, encoder and decoder into a student.

    Target embeddings are copied for the pieces that stand in both vocabularies, `<pad>` and `<s>`
    with their zeros among them; those of the rest are random, normal with the spread of the
    pretrained ones. Output biases, which say how frequent a piece is in the other language, are
    copied where the vocabularies are the same, and else stay zero. Raises RecipeError where the
    dimensions or the source's vocabulary differ.
    """
    pretrained = read_pretrained(folder)
    other = to_transformer(pretrained)
    theirs, ours = pieces_of(pretrained.tokenizer), pieces_of(target_tokenizer.read_bytes())
    same = theirs == ours
    start_from_model(student, other, target_words=same)
    if not same:
        with torch.no_grad():
            student.embedding.weight.copy_(_target_table(other.embedding.weight, theirs, ours))


def _target_table(table: Tensor, theirs: list[str], ours: list[str]) -> Tensor:
    """Embeddings [V, D] of our pieces: the other model's [V', D] where it has the piece."""
    fresh = torch.empty(len(ours), table.shape[1]).normal_(std=float(table.std()))
    ids = {piece: index for index, piece in enumerate(theirs)}
    shared = [(index, ids[piece]) for index, piece in enumerate(ours) if piece in ids]
    rows, others = torch.tensor(shared).T
    fresh[rows] = table[others]
    return fresh


# --- freezing ----------------------------------------------------------------------------------


class Freezing:
    """The parts of a model that do not learn before their share of the run is done."""

    def __init__(self, model: Transformer, config: FreezeConfig | None) -> None:
        """Raises RecipeError where source embeddings are to be frozen that the target shares."""
        self._config = config or FreezeConfig()
        if self._config.source_embedding and model.source_embedding is None:
            raise RecipeError("student.freeze.source_embedding: the source has no table of its own")
        self._parts: list[tuple[float, list[nn.Parameter]]] = [
            (
                self._config.encoder,
                [*model.encoder.parameters(), *model.encoder_norm.parameters()],
            )
        ]
        if model.source_embedding is not None:
            own = list(model.source_embedding.parameters())
            self._parts.append((self._config.source_embedding, own))

    def groups(self, modules: list[nn.Module]) -> list[dict[str, Any]]:
        """The modules' parameters for an optimiser, in groups with their `rate`, a share of the
        learning rate; in one group where nothing freezes."""
        everything = [p for module in modules for p in module.parameters()]
        parts = [part for until, part in self._parts if until]
        slow = {id(p) for part in parts for p in part}
        rest = [p for p in everything if id(p) not in slow]
        return [
            {"params": rest, "rate": 1.0},
            *({"params": part, "rate": self._config.rate} for part in parts),
        ]

    def apply(self, share: float) -> bool:
        """Let learn what is to learn once `share` of the run is done, and nothing else; → whether
        that is a change."""
        changed = False
        for until, parameters in self._parts:
            learns = share >= until
            for parameter in parameters:
                changed |= parameter.requires_grad != learns
                parameter.requires_grad_(learns)
        return changed

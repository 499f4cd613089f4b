"""How close an engine is to its reference: translations kept, scores' largest difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import ctranslate2

if TYPE_CHECKING:
    from training.model import Transformer

SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """One sentence that came out differently; `similarity` from 0 to 1 (difflib's ratio)."""

    index: int
    reference: str
    candidate: str
    similarity: float


@dataclass(frozen=True)
class TranslationParity:
    """Translations of an engine against those of its reference."""

    sentences: int
    identical: int
    worst: tuple[Difference, ...]

    @property
    def share_identical(self) -> float:
        """Share of identical translations, from 0 to 1; 1 when there are none to compare."""
        return self.identical / self.sentences if self.sentences else 1.0

    def __str__(self) -> str:
        head = f"{self.identical} of {self.sentences} identical ({self.share_identical:.1%})"
        lines = [
            f"  {d.index}: similarity {d.similarity:.2f}\n    {d.reference}\n    {d.candidate}"
            for d in self.worst
        ]
        return "\n".join([head, *lines])


@dataclass(frozen=True)
class ScoreParity:
    """Log-probabilities of given targets, engine against torch: the largest difference."""

    tokens: int
    largest_difference: float
    sentence: int
    position: int

    def __str__(self) -> str:
        return (
            f"largest difference of a log-probability {self.largest_difference:.2e} over "
            f"{self.tokens} tokens, at position {self.position} of sentence {self.sentence}"
        )


def translation_parity(
    reference: Sequence[str], candidate: Sequence[str], worst: int = 5
) -> TranslationParity:
    """Compare translations line by line, keeping the `worst` most different ones.

    Raises ValueError if the two are not equally long.
    """
    if len(reference) != len(candidate):
        raise ValueError(f"{len(reference)} references but {len(candidate)} translations")
    differences = [
        Difference(index, ref, cand, SequenceMatcher(None, ref, cand, autojunk=False).ratio())
        for index, (ref, cand) in enumerate(zip(reference, candidate, strict=True))
        if ref != cand
    ]
    differences.sort(key=lambda d: (d.similarity, d.index))
    return TranslationParity(
        len(reference), len(reference) - len(differences), tuple(differences[:worst])
    )


def score_parity(
    model: Transformer,
    pieces: Sequence[str],
    engine_dir: Path,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> ScoreParity:
    """Teacher-forced log-probabilities of `targets` given `sources`, engine against torch.

    Both are token ids without BOS and EOS; EOS is scored too.
    """
    translator = ctranslate2.Translator(str(engine_dir), intra_threads=1)
    scored = translator.score_batch(
        [[pieces[token] for token in source] for source in sources],
        [[pieces[token] for token in target] for target in targets],
        max_input_length=0,
    )
    largest, tokens, sentence, position = 0.0, 0, 0, 0
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        expected = _torch_log_probs(model, source, target)
        got = scored[index].log_probs
        if len(got) != len(expected):
            raise ValueError(f"sentence {index}: {len(got)} scores for {len(expected)} tokens")
        tokens += len(expected)
        for place, (left, right) in enumerate(zip(expected, got, strict=True)):
            if abs(left - right) > largest:
                largest, sentence, position = abs(left - right), index, place
    return ScoreParity(tokens, largest, sentence, position)


def check_scores(parity: ScoreParity, tolerance: float = SCORE_TOLERANCE) -> None:
    """Raise ValueError if the difference is above the tolerance."""
    if not parity.largest_difference <= tolerance:
        raise ValueError(
            f"the float32 engine differs from torch: {parity}, tolerance {tolerance:.0e}. "
            "An operation of the model has no equal in the engine: do not serve this bundle"
        )


def _torch_log_probs(
    model: Transformer, source: Sequence[int], target: Sequence[int]
) -> list[float]:
    """Log-probability [T + 1] of each target token and of EOS."""
    import torch

    from training.model import BOS, EOS

    device = model.output_bias.device
    with torch.no_grad():
        logits = model(
            torch.tensor([[*source, EOS]], device=device),
            torch.tensor([[BOS, *target]], device=device),
        )[0]
        wanted = torch.tensor([*target, EOS], device=device)
        log_probs = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    return [float(value) for value in log_probs]

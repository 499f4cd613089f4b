"""The export gate: every engine of a bundle against the float32 model in torch. Needs torch.

A bundle that translates worse than the model it was made from is not published. Both sides
translate the same held-out sentences greedily, with the same output limits; what counts is how many
lines stay the same and what BLEU, chrF2 and log-probabilities lose.

`score_parity` compares the log-probabilities of given targets, before any engine translates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import ctranslate2
import numpy as np
import sentencepiece as spm
import torch
from sacrebleu.metrics import BLEU, CHRF

from export.metrics import (
    BLEU_SCORE,
    CHRF_SCORE,
    bleu_of,
    chrf_statistics_of,
    paired_bootstrap,
    signature,
    statistics_of,
)
from export.runtime.bundle import Bundle, BundleError
from export.runtime.engines import (
    Engine,
    TranslateOptions,
    Translation,
    compiled_engine,
    load_engine,
)
from export.runtime.formality import load_tags, text_tokenizer
from export.runtime.manifest import EngineCheck, EngineEntry, GateRecord, WorstLine
from training.config.recipe import GateLimits, RecipeError
from training.data.readers import read_lines
from training.model.decoding import Hypothesis, greedy_corpus
from training.model.transformer import BOS, EOS, Transformer

BATCH_SENTENCES = 64
TORCH_ROWS = 128
"""Sentences that torch translates at a time: a large output layer likes more rows."""
WORST_LINES = 5
VERSIONS = ("torch", "ctranslate2", "onnxruntime")


class GateError(BundleError):
    """A bundle that got worse than its model; `gate` says in what."""

    def __init__(self, gate: GateRecord) -> None:
        self.gate = gate
        faults = "\n  ".join(gate.faults)
        super().__init__(
            f"the export gate refuses the bundle, on {gate.sentences} sentences of "
            f"{gate.dataset}:\n  {faults}\nChoose another engine or precision, change the limits "
            "(export.gate of a recipe), or publish it all the same with --force, which records it"
        )


@dataclass(frozen=True)
class EvalSet:
    """Sentences the model was not trained on, with their references; without any, `ref` is
    empty."""

    dataset: str
    src: Sequence[str]
    ref: Sequence[str] = ()

    @classmethod
    def read(cls, src: Path, ref: Path | None) -> EvalSet:
        """Files with a sentence a line (.gz and .zst too), called by the source's name.

        Raises RecipeError where they cannot be read or have not as many lines.
        """
        lines = []
        for path in (src, *([ref] if ref is not None else [])):
            sentences = list(read_lines(path))
            if None in sentences:
                raise RecipeError(
                    f"{path}: line {sentences.index(None) + 1} is not UTF-8: convert it"
                )
            lines.append([line or "" for line in sentences])
        if ref is None:
            return cls(src.name, lines[0])
        if len(lines[0]) != len(lines[1]):
            raise RecipeError(
                f"{src} has {len(lines[0])} lines and {ref} {len(lines[1])}: line n of one must "
                "translate line n of the other"
            )
        return cls(src.name, *lines)

    def fitting(self, fits: Sequence[bool]) -> EvalSet:
        """Only the sentences for which `fits` is true."""
        kept = [index for index, fit in enumerate(fits) if fit]
        ref = [self.ref[i] for i in kept] if self.ref else []
        return EvalSet(self.dataset, [self.src[i] for i in kept], ref)


@dataclass(frozen=True)
class GateSettings:
    """Text and limits of the export gate; `reference` names what the engines are compared with."""

    held_out: EvalSet
    limits: GateLimits
    force: bool = False
    reference: str = "the float32 model"


@dataclass(frozen=True)
class ReferenceModel:
    """What the model writes in torch: texts and the mean log-probability of their tokens."""

    held_out: EvalSet
    texts: list[str]
    scores: list[float]

    @property
    def references(self) -> list[str]:
        """What BLEU and chrF2 are measured against: references, or for want of them these texts."""
        return list(self.held_out.ref) or self.texts


def check_bundle(bundle: Bundle, model: Transformer, gate_settings: GateSettings) -> GateRecord:
    """Hold every engine of a bundle against its model on held-out sentences, and with it the
    compiled engine, where that is served in its place and was built here.

    Sentences too long for the bundle are left out. Raises GateError where an engine breaks one of
    the limits and is not published by force, BundleError where no sentence is left.
    """
    reference = translate_in_torch(bundle, model, gate_settings.held_out)
    checks = tuple(
        _check_entry(bundle, entry, reference, gate_settings.limits)
        for entry in bundle.manifest.engines
    )
    gate = GateRecord(
        reference=gate_settings.reference,
        dataset=gate_settings.held_out.dataset,
        sentences=len(reference.texts),
        torch_bleu=round(bleu_of(_bleu_statistics(reference, reference.texts)), 2),
        references=bool(reference.held_out.ref),
        signatures=(signature(), str(CHRF(references=[[""]]).get_signature())),
        versions=_versions(),
        engines=checks,
        forced=gate_settings.force and any(check.faults for check in checks),
    )
    if gate.faults and not gate_settings.force:
        raise GateError(gate)
    return gate


def translate_in_torch(bundle: Bundle, model: Transformer, held_out: EvalSet) -> ReferenceModel:
    """Greedy translations by the model, with the output limits that the bundle's engines keep."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.tokenizer_path))
    whole_tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.source_tokenizer_path))
    source_tokenizer = text_tokenizer(bundle, whole_tokenizer)
    engine = load_engine(bundle)
    before = [*bundle.manifest.source_prefix, *_default_tag(bundle, whole_tokenizer)]
    prefix = [source_tokenizer.piece_to_id(piece) for piece in before]
    rows = [[*prefix, *source_tokenizer.encode(text), EOS] for text in held_out.src]
    beside = len(prefix) + 1
    fits = [beside < len(row) <= engine.max_input_tokens + beside for row in rows]
    if not any(fits):
        raise BundleError(
            f"the export gate has no sentence to judge by: {held_out.dataset} is empty, or all of "
            f"it longer than {engine.max_input_tokens} tokens; give text that the model can "
            "translate"
        )
    added = len(bundle.manifest.source_prefix) + 1
    hypotheses = greedy_corpus(
        model,
        [row for row, fit in zip(rows, fits, strict=True) if fit],
        batch_rows=TORCH_ROWS,
        limit_of=lambda length: engine.output_limit(length - added),
        min_length=1,
    )
    texts = [
        " ".join(tokenizer.decode(hypothesis.ids).splitlines()).strip() for hypothesis in hypotheses
    ]
    return ReferenceModel(
        held_out.fitting(fits), texts, [_mean(hypothesis) for hypothesis in hypotheses]
    )


def _default_tag(bundle: Bundle, tokenizer: spm.SentencePieceProcessor) -> list[str]:
    """The pieces that engines put before a source that no form of address is asked for."""
    tags = load_tags(bundle, tokenizer)
    formality = bundle.manifest.formality
    return [] if formality is None else tags[formality.default]


def _mean(hypothesis: Hypothesis) -> float:
    return hypothesis.score / (len(hypothesis.ids) + 1)


def _check_entry(
    bundle: Bundle, entry: EngineEntry, reference: ReferenceModel, limits: GateLimits
) -> EngineCheck:
    """What a library computes; its faults, and those of the compiled engine where it is served in
    the library's place."""
    engine = load_engine(bundle, entry.name)
    check = _check(entry, reference, _translate(engine, entry, reference), limits)
    if (compiled := compiled_engine(bundle, entry)) is None:
        return check
    translations = _translate(compiled, entry, reference)
    further = _check(entry, reference, translations, limits).faults
    faults = [*check.faults, *(f"by the compiled engine, {fault}" for fault in further)]
    return check.model_copy(update={"faults": tuple(faults)})


def _translate(engine: Engine, entry: EngineEntry, reference: ReferenceModel) -> list[Translation]:
    options = TranslateOptions(return_scores=entry.exact)
    src = list(reference.held_out.src)
    return [
        translation
        for start in range(0, len(src), BATCH_SENTENCES)
        for translation in engine.translate_batch(src[start : start + BATCH_SENTENCES], options)
    ]


def _check(
    entry: EngineEntry,
    reference: ReferenceModel,
    translations: list[Translation],
    limits: GateLimits,
) -> EngineCheck:
    texts = [translation.text for translation in translations]
    ref = reference.references
    same = [text == torch for text, torch in zip(texts, reference.texts, strict=True)]
    bleu = paired_bootstrap(
        [_bleu_statistics(reference, texts)],
        [_bleu_statistics(reference, reference.texts)],
        BLEU_SCORE,
    )
    chrf = paired_bootstrap(
        [chrf_statistics_of(texts, ref)], [chrf_statistics_of(reference.texts, ref)], CHRF_SCORE
    )
    check = EngineCheck(
        engine=entry.name,
        identical=sum(same) / len(same),
        bleu=round(BLEU().corpus_score(texts, [ref]).score, 2),
        bleu_difference=round(bleu.difference, 3),
        bleu_p=round(bleu.p_value, 4),
        chrf_difference=round(chrf.difference, 3),
        chrf_p=round(chrf.p_value, 4),
        score_difference=_score_difference(reference, translations, same) if entry.exact else None,
        worst=_worst(reference, texts),
    )
    faults = _violations(entry, check, limits, bool(reference.held_out.ref))
    return check.model_copy(update={"faults": tuple(faults)})


def _bleu_statistics(reference: ReferenceModel, texts: list[str]) -> np.ndarray:
    return statistics_of(texts, reference.references)


def _score_difference(
    reference: ReferenceModel, translations: list[Translation], same: list[bool]
) -> float | None:
    """Largest difference of a translation's mean log-probability, EOS counted, over the lines that
    are the same and whole."""
    differences = [
        abs(translation.score - score)
        for translation, score, equal in zip(translations, reference.scores, same, strict=True)
        if equal and not translation.truncated and translation.score is not None
    ]
    return float(f"{max(differences):.3g}") if differences else None


def _worst(reference: ReferenceModel, texts: list[str]) -> tuple[WorstLine, ...]:
    """The lines that differ most from torch's, by sentence chrF2."""
    metric = CHRF()
    changed = [
        WorstLine(
            source=source,
            torch=torch,
            engine=text,
            chrf=round(metric.sentence_score(text, [torch]).score, 1),
        )
        for source, torch, text in zip(reference.held_out.src, reference.texts, texts, strict=True)
        if text != torch
    ]
    return tuple(sorted(changed, key=lambda line: line.chrf)[:WORST_LINES])


def _violations(
    entry: EngineEntry, check: EngineCheck, limits: GateLimits, has_references: bool
) -> list[str]:
    """The limits that an engine breaks, each with its value."""
    violations = []
    minimum = limits.float32_identical if entry.exact else limits.int8_identical
    if check.identical < minimum:
        violations.append(
            f"{check.identical:.1%} of the lines are torch's, the limit is {minimum:.1%}"
            + _example(check)
        )
    if has_references and -check.bleu_difference > limits.bleu_loss:
        violations.append(
            f"BLEU {check.bleu} is {-check.bleu_difference:.2f} below torch's "
            f"(p = {check.bleu_p:.3f}), the limit is {limits.bleu_loss}"
        )
    if check.score_difference is not None and check.score_difference > limits.score_difference:
        violations.append(
            f"a mean log-probability differs from torch's by {check.score_difference:.1e}, the "
            f"limit is {limits.score_difference:.0e}"
        )
    return violations


def _example(check: EngineCheck) -> str:
    if not check.worst:
        return ""
    line = check.worst[0]
    return f"; {line.source!r} became {line.engine!r}, with torch {line.torch!r}"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONS if find_spec(name) is not None}


# --- log-probabilities of given targets --------------------------------------------------------


SCORE_TOLERANCE = 1e-4


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
        actual = scored[index].log_probs
        if len(actual) != len(expected):
            raise ValueError(f"sentence {index}: {len(actual)} scores for {len(expected)} tokens")
        tokens += len(expected)
        for place, (left, right) in enumerate(zip(expected, actual, strict=True)):
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
    device = model.output_bias.device
    with torch.no_grad():
        logits = model(
            torch.tensor([[*source, EOS]], device=device),
            torch.tensor([[BOS, *target]], device=device),
        )[0]
        wanted = torch.tensor([*target, EOS], device=device)
        log_probs = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    return [float(value) for value in log_probs]

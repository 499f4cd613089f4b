"""Proof that a bundle works: every engine loads and translates, in the way it is served."""

from __future__ import annotations

import sentencepiece as spm

from export.bundle import Bundle, BundleError
from export.engines import TranslateOptions, load_engine
from export.manifest import EngineEntry

SAMPLES = ("Hello.", "This is a test of a somewhat longer sentence, with a comma.", "42 %")


def check_translates(bundle: Bundle) -> None:
    """Translate a few sentences with every engine. Raises BundleError if one does not."""
    manifest = bundle.manifest
    try:
        tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.tokenizer_path))
    except (OSError, RuntimeError) as error:
        raise BundleError(
            f"{bundle.tokenizer_path} is not a SentencePiece model ({error}): "
            "export with the tokenizer that the training run wrote"
        ) from error
    if tokenizer.get_piece_size() != manifest.vocab_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.get_piece_size()} pieces, the manifest says "
            f"{manifest.vocab_size}: export with the tokenizer the model was trained with"
        )
    for engine in manifest.engines:
        _check_engine(bundle, engine)


def _check_engine(bundle: Bundle, engine: EngineEntry) -> None:
    options = TranslateOptions(beam_size=bundle.manifest.decoding.beam_size)
    try:
        loaded = load_engine(bundle, engine.name)
        sentences = [one for one in SAMPLES if loaded.count_tokens(one) <= loaded.max_input_tokens]
        texts = loaded.translate_batch(sentences, options)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"engine {engine.name} does not translate ({error}): "
            "export it again, with the versions of its libraries that this environment has"
        ) from error
    if len(texts) != len(sentences):
        raise BundleError(
            f"engine {engine.name} gave {len(texts)} of {len(sentences)} translations"
        )

"""Proof that a bundle works: every engine loads and translates, in the way it is served."""

from __future__ import annotations

import ctranslate2
import sentencepiece as spm

from export.bundle import Bundle, BundleError
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
        _check_engine(bundle, engine, tokenizer)


def _check_engine(
    bundle: Bundle, engine: EngineEntry, tokenizer: spm.SentencePieceProcessor
) -> None:
    folder = bundle.engine_path(engine.name)
    sources = [tokenizer.encode(sample, out_type=str) for sample in SAMPLES]
    decoding = bundle.manifest.decoding
    try:
        translator = ctranslate2.Translator(str(folder), inter_threads=1, intra_threads=1)
        results = translator.translate_batch(
            sources,
            beam_size=decoding.beam_size,
            max_input_length=0,
            max_decoding_length=decoding.output_limit(max(map(len, sources))),
        )
        texts = [tokenizer.decode(result.hypotheses[0]) for result in results]
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"engine {engine.name} does not translate ({error}): "
            "export it again, with the CTranslate2 that this environment has"
        ) from error
    if len(texts) != len(SAMPLES):
        raise BundleError(f"engine {engine.name} gave {len(texts)} of {len(SAMPLES)} translations")

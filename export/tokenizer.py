"""A bundle's SentencePiece model, loaded and held against its manifest."""

from __future__ import annotations

import sentencepiece as spm

from export.bundle import Bundle
from export.errors import BundleError
from export.files import read_small
from export.limits import MAX_TOKENIZER_BYTES


def load_tokenizer(bundle: Bundle) -> spm.SentencePieceProcessor:
    """The tokenizer of a bundle.

    Raises BundleError if it is no SentencePiece model, has another number of pieces than the
    manifest says, or other special pieces at ids 0 to 3.
    """
    manifest = bundle.manifest
    path = bundle.tokenizer_path
    try:
        data = read_small(path, MAX_TOKENIZER_BYTES)
        tokenizer = spm.SentencePieceProcessor(model_proto=data)
    except (OSError, RuntimeError) as error:
        raise BundleError(
            f"{path} is not a SentencePiece model ({error}): "
            "export with the tokenizer that the training run wrote"
        ) from error
    if tokenizer.get_piece_size() != manifest.vocab_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.get_piece_size()} pieces, the manifest says "
            f"{manifest.vocab_size}: export with the tokenizer the model was trained with"
        )
    tokens = manifest.special_tokens
    wanted = [tokens.pad, tokens.unk, tokens.bos, tokens.eos]
    found = [tokenizer.id_to_piece(index) for index in range(4)]
    if found != wanted:
        raise BundleError(
            f"{path} begins with the pieces {found}, the manifest says {wanted}: "
            "export with the tokenizer the model was trained with"
        )
    return tokenizer


def pieces(tokenizer: spm.SentencePieceProcessor) -> list[str]:
    """The pieces of a tokenizer in the order of their ids."""
    return [tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())]

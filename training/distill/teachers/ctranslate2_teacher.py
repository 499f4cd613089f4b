"""A CTranslate2 folder as teacher, in float32 whatever its weights are stored in.

Stock int8 saturates on CPUs with AVX2 and no VNNI; computing in float32 is exact everywhere.

Shapes: N positions, T target length, U the model's vocabulary, V the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece as spm
import torch
from torch import Tensor

from training.config.model import CTranslate2Folder
from training.data.tokenizer import Tokenizer
from training.distill.teachers.base import (
    About,
    Distributions,
    Hypotheses,
    Ids,
    batched_distributions,
    rows_by_limit,
)
from training.distill.teachers.external import PieceMap, Texts
from training.distributed import thread_count
from training.model.transformer import EOS
from training.teacher_files import read_json, target_vocabulary

if TYPE_CHECKING:
    import ctranslate2

Tokens = list[str]


def open_translator(folder: Path) -> ctranslate2.Translator:
    """The model of a folder, one thread a sentence, a worker a core, float32."""
    import ctranslate2

    return ctranslate2.Translator(
        str(folder), inter_threads=thread_count(1), intra_threads=1, compute_type="float32"
    )


def translate_tokens(
    translator: ctranslate2.Translator,
    src: Sequence[Tokens],
    max_length: int,
    batch_tokens: int,
    beam_size: int,
    n_best: int,
    length_penalty: float,
    target_prefix: Sequence[str] = (),
) -> list[list[tuple[Tokens, float]]]:
    """`n_best` translations of each row of tokens, best first, without prefix and EOS.

    Their log-probabilities (nats) count EOS, unless they were cut, and not the prefix. Outputs of n
    source tokens, EOS counted, have at most about 2n + 10 tokens and fit `max_length`.
    """
    translations: list[list[tuple[Tokens, float]]] = [[]] * len(src)
    lengths = [len(tokens) + 1 for tokens in src]
    prefix = list(target_prefix)
    for limit, rows in rows_by_limit(lengths, max_length).items():
        longest = limit + len(prefix)
        results = translator.translate_batch(
            [src[row] for row in rows],
            target_prefix=[prefix] * len(rows) if prefix else None,
            beam_size=beam_size,
            num_hypotheses=n_best,
            length_penalty=length_penalty,
            return_scores=True,
            max_batch_size=batch_tokens,
            batch_type="tokens",
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=longest,
            disable_unk=True,
        )
        for row, result in zip(rows, results, strict=True):
            translations[row] = [
                # A score is divided by the length: prefix counted, and EOS where it was not cut.
                (tokens[len(prefix) :], score * min(len(tokens) + 1, longest) ** length_penalty)
                for tokens, score in zip(result.hypotheses, result.scores, strict=True)
            ]
    return translations


class CTranslate2Teacher:
    """A folder whose SentencePiece model the student adopted: it is asked by pieces."""

    def __init__(
        self, config: CTranslate2Folder, tokenizer: Path, max_length: int, batch_tokens: int
    ) -> None:
        folder = Path(config.path)
        about = read_json(folder / "config.json")
        self._unk = about.get("unk_token") or "<unk>"
        self.config = config
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.pieces = Tokenizer(tokenizer).pieces
        vocabulary = {token: index for index, token in enumerate(target_vocabulary(folder))}
        eos = about.get("eos_token") or "</s>"
        self._map = PieceMap(self.pieces, vocabulary, self._unk, eos)
        self._ids = {piece: index for index, piece in enumerate(self.pieces) if index > EOS}
        self._translator = open_translator(folder)

    @property
    def about(self) -> About:
        return About("CTranslate2", "float32", None)

    def _source(self, ids: Ids) -> Tokens:
        return [*self.config.source_prefix, *self._tokens(ids[:-1]), *self.config.source_suffix]

    def _tokens(self, ids: Ids) -> Tokens:
        return [self.pieces[index] if index > EOS else self._unk for index in ids]

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        translations = translate_tokens(
            self._translator,
            [self._source(ids) for ids in src],
            self.max_length,
            self.batch_tokens,
            beam_size,
            n_best,
            length_penalty,
            self.config.target_prefix,
        )
        return [
            [
                # A token that the student lacks, such as a language, is no text.
                ([*(self._ids[token] for token in tokens if token in self._ids), EOS], score)
                for tokens, score in hypotheses
            ]
            for hypotheses in translations
        ]

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self.log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch, from raw logits."""
        rows = self._logits(src, [ids[:-1] for ids in trg])
        parts = [logits[: len(ids)] for logits, ids in zip(rows, trg, strict=True)]
        return self._map.gather(torch.log_softmax(torch.from_numpy(np.concatenate(parts)), dim=-1))

    def _logits(self, src: list[Ids], prefixes: list[Ids]) -> list[np.ndarray]:
        """Raw logits [T + 1, U] after each part of each target prefix (T tokens), the whole one
        last; rows may go on beyond it."""
        before = self.config.target_prefix
        results = self._translator.translate_batch(
            [self._source(ids) for ids in src],
            target_prefix=[[*before, *self._tokens(ids)] for ids in prefixes],
            beam_size=1,
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=len(before) + max(map(len, prefixes)) + 1,
            return_logits_vocab=True,
        )
        return [
            np.stack([np.asarray(view, dtype=np.float32) for view in result.logits[0]])[
                len(before) :
            ]
            for result in results
        ]

    def steps(self, src: list[Ids], times: int) -> CTranslate2Steps:
        """The decoding of some sources, each `times` times in turn."""
        return CTranslate2Steps(self, [ids for ids in src for _ in range(times)])

    def next_log_probs(self, src: list[Ids], prefixes: list[Ids]) -> Tensor:
        """Log-probabilities [B, V] of the token after each prefix (no EOS)."""
        rows = self._logits(src, prefixes)
        last = [logits[len(prefix)] for logits, prefix in zip(rows, prefixes, strict=True)]
        return self._map.gather(torch.log_softmax(torch.from_numpy(np.stack(last)), dim=-1))


class CTranslate2Steps:
    """Decoding step by step. The engine keeps no state between calls, so that each step decodes
    the whole prefix again: right, and slow for long outputs."""

    def __init__(self, teacher: CTranslate2Teacher, src: list[Ids]) -> None:
        self._teacher = teacher
        self._src = src
        self._prefixes: list[Ids] | None = None

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Tokens [B] → probabilities [B, V] of the next ones."""
        if self._prefixes is None:
            self._prefixes = [[] for _ in self._src]
        else:
            grown = zip(self._prefixes, last.tolist(), strict=True)
            self._prefixes = [[*prefix, token] for prefix, token in grown]
        return self._teacher.next_log_probs(self._src, self._prefixes).exp()

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in that order."""
        chosen = rows.tolist()
        self._src = [self._src[row] for row in chosen]
        self._prefixes = [(self._prefixes or [])[row] for row in chosen]


class CTranslate2Texts:
    """A folder with tokens of its own: text in, text out."""

    def __init__(self, config: CTranslate2Folder, max_length: int, batch_tokens: int) -> None:
        self.config = config
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self._source = spm.SentencePieceProcessor(model_file=config.sentencepiece)
        target = config.target_sentencepiece or config.sentencepiece
        self._target = spm.SentencePieceProcessor(model_file=target)
        self._translator: Any = open_translator(Path(config.path))

    @property
    def about(self) -> About:
        return About("CTranslate2", "float32", None)

    def translate_texts(
        self, texts: list[str], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Texts]:
        """Translations of texts; one is cut to `max_length` of the model's tokens."""
        config, longest = self.config, self.max_length - 1
        translations = translate_tokens(
            self._translator,
            [
                [*config.source_prefix, *tokens[:longest], *config.source_suffix]
                for tokens in self._source.encode(texts, out_type=str)
            ],
            self.max_length,
            self.batch_tokens,
            beam_size,
            n_best,
            length_penalty,
            config.target_prefix,
        )
        return [
            [(self._target.decode(tokens), score) for tokens, score in hypotheses]
            for hypotheses in translations
        ]

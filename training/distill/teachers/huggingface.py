"""A local Hugging Face sequence-to-sequence model as teacher: Marian, M2M100, NLLB, mBART.

Read from a folder alone: no network, no code of the model's, safetensors only.

Shapes: B batch, N positions, S source length, U the model's vocabulary, V the student's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config.model import HuggingFaceFolder
from training.config.recipe import RecipeError
from training.data.tokenizer import Tokenizer
from training.distill.teachers.base import (
    About,
    Distributions,
    Hypotheses,
    Ids,
    batched_distributions,
    batches_by_length,
)
from training.distill.teachers.external import PieceMap, Texts
from training.model.decoding import output_limit

EXTRA = "pip install 'quickstudy[hf]'"


def open_model(config: HuggingFaceFolder) -> tuple[Any, Any]:
    """Tokenizer and model (float32) of a folder.

    Raises RecipeError where transformers is not installed or the folder cannot be loaded.
    """
    try:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"a teacher of kind huggingface needs {error.name}, which is missing; try: {EXTRA}"
        ) from None
    local = {"local_files_only": True, "trust_remote_code": False}
    marian = config.trg_lang is None or config.src_lang is None
    languages = {} if marian else {"src_lang": config.src_lang, "tgt_lang": config.trg_lang}
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.path, **local, **languages)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            config.path, **local, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(f"teacher.path: {config.path} cannot be loaded: {error!r}") from None
    # The target's language is given as the decoder's first input instead.
    model.generation_config.forced_bos_token_id = None
    return tokenizer, model.eval()


class Seq2Seq:
    """A loaded model that is asked by its own ids, without language and end tokens."""

    def __init__(self, config: HuggingFaceFolder, max_length: int, batch_tokens: int) -> None:
        self.config = config
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.tokenizer, self.model = open_model(config)
        self.eos: int = self.tokenizer.eos_token_id
        self.pad: int = self.tokenizer.pad_token_id
        self.before, self.after = self._around_source()
        self.start = self._decoder_start()

    @property
    def about(self) -> About:
        return About("transformers", "float32", self.model.num_parameters())

    def _around_source(self) -> tuple[Ids, Ids]:
        """What stands before and after a source's ids."""
        if self.model.config.model_type != "marian":
            before, after = list(self.tokenizer.prefix_tokens), list(self.tokenizer.suffix_tokens)
            if self.tokenizer.unk_token_id in (*before, *after):
                raise RecipeError(
                    f"teacher.src_lang: the tokenizer in {self.config.path} has no language "
                    f"{self.config.src_lang!r}"
                )
            return before, after
        target = self.config.trg_lang
        return [self._language(f">>{target}<<")] if target else [], [self.eos]

    def _decoder_start(self) -> Ids:
        """What the decoder is fed before the first word."""
        about, generation = self.model.config, self.model.generation_config
        start = generation.decoder_start_token_id
        if start is None:
            start = about.decoder_start_token_id
        if about.model_type == "marian":
            return [start]
        language = self._language(self.config.trg_lang or "")
        # mBART of 25 languages starts with the language itself, every later model after EOS.
        first_mbart = type(self.tokenizer).__name__.startswith("MBartTokenizer")
        return [language] if first_mbart else [start, language]

    def _language(self, code: str) -> int:
        if hasattr(self.tokenizer, "lang_code_to_token"):
            code = self.tokenizer.lang_code_to_token.get(code, code)
        found: int = self.tokenizer.convert_tokens_to_ids(code)
        if found is None or found == self.tokenizer.unk_token_id:
            raise RecipeError(
                f"teacher.trg_lang: the tokenizer in {self.config.path} has no token {code!r}"
            )
        return found

    def encoder_inputs(self, src: list[Ids]) -> tuple[Tensor, Tensor]:
        """Sources → ids [B, S] with language and end, and their attention mask."""
        return self._padded([[*self.before, *ids, *self.after] for ids in src])

    def _padded(self, rows: list[Ids]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids, mask

    @torch.inference_mode()
    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, U] of each target's tokens and its end, one row after another."""
        ids, mask = self.encoder_inputs(src)
        trg_in, trg_mask = self._padded([[*self.start, *ids] for ids in trg])
        logits = self.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=trg_in, use_cache=False
        ).logits
        first = len(self.start) - 1
        chosen = logits[:, first:][trg_mask[:, first:].bool()]
        return torch.log_softmax(chosen.float(), dim=-1)

    @torch.inference_mode()
    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """`n_best` translations of each source by `generate`, in the model's ids without the end;
        their log-probabilities (nats) count it."""
        translations: list[Hypotheses] = [[]] * len(src)
        for rows in batches_by_length(src, src, max(self.batch_tokens // beam_size, 1)):
            sources = [src[row] for row in rows]
            ids, mask = self.encoder_inputs(sources)
            outputs = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                decoder_input_ids=torch.tensor([self.start] * len(rows)),
                do_sample=False,
                num_beams=beam_size,
                num_return_sequences=n_best,
                length_penalty=length_penalty,
                early_stopping=True,
                max_new_tokens=output_limit(max(map(len, sources)) + 1, self.max_length),
            )
            written = [self._words(row) for row in outputs.tolist()]
            scores = self._scores([row for row in sources for _ in range(n_best)], written)
            pairs = list(zip(written, scores, strict=True))
            for place, row in enumerate(rows):
                translations[row] = pairs[place * n_best : (place + 1) * n_best]
        return translations

    def _words(self, output: Ids) -> Ids:
        """An output without what it starts with, its end and its padding."""
        words = output[len(self.start) :]
        return words[: words.index(self.eos)] if self.eos in words else words

    def _scores(self, src: list[Ids], trg: list[Ids]) -> list[float]:
        logp = self.log_probs(src, trg)
        targets = torch.tensor([token for ids in trg for token in [*ids, self.eos]])
        values = logp.gather(1, targets[:, None])[:, 0]
        lengths = [len(ids) + 1 for ids in trg]
        return [float(part.sum()) for part in values.split(lengths)]


class HuggingFaceTeacher:
    """A model whose SentencePiece model the student adopted: it is asked by pieces."""

    def __init__(
        self, config: HuggingFaceFolder, tokenizer: Path, max_length: int, batch_tokens: int
    ) -> None:
        self.seq2seq = Seq2Seq(config, max_length, batch_tokens)
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        own = self.seq2seq.tokenizer
        self._map = PieceMap(
            Tokenizer(tokenizer).pieces, own.get_vocab(), own.unk_token, own.eos_token
        )

    @property
    def about(self) -> About:
        return self.seq2seq.about

    def _inner(self, rows: list[Ids]) -> list[Ids]:
        return [self._map.to_teacher(ids[:-1]) for ids in rows]

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        translations = self.seq2seq.translate(self._inner(src), beam_size, n_best, length_penalty)
        return [
            [(self._map.to_student(ids), score) for ids, score in hypotheses]
            for hypotheses in translations
        ]

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self.log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch."""
        return self._map.gather(self.seq2seq.log_probs(self._inner(src), self._inner(trg)))

    def steps(self, src: list[Ids], times: int) -> HuggingFaceSteps:
        """The decoding of some sources, each `times` times in turn."""
        return HuggingFaceSteps(self.seq2seq, self._map, self._inner(src), times)


class HuggingFaceSteps:
    """Cached decoding of sources, each of them `times` times in turn."""

    @torch.inference_mode()
    def __init__(self, seq2seq: Seq2Seq, pieces: PieceMap, src: list[Ids], times: int) -> None:
        self._model, self._map = seq2seq.model, pieces
        ids, mask = seq2seq.encoder_inputs(src)
        encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self._memory = encoded.repeat_interleave(times, 0)
        self._mask = mask.repeat_interleave(times, 0)
        self._start = torch.tensor([seq2seq.start]).expand(len(self._memory), -1)
        self._cache: Any = None

    @torch.inference_mode()
    def next_probabilities(self, last: Tensor) -> Tensor:
        """Tokens [B] → probabilities [B, V] of the next ones."""
        from transformers.modeling_outputs import BaseModelOutput

        first = self._cache is None
        fed = self._start if first else torch.tensor(self._map.to_teacher(last.tolist()))[:, None]
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._memory),
            attention_mask=self._mask,
            decoder_input_ids=fed,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        return self._map.gather(torch.log_softmax(output.logits[:, -1].float(), dim=-1)).exp()

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in that order."""
        self._cache.reorder_cache(rows)
        self._memory = self._memory.index_select(0, rows)
        self._mask = self._mask.index_select(0, rows)


class HuggingFaceTexts:
    """A model with tokens of its own: text in, text out."""

    def __init__(self, config: HuggingFaceFolder, max_length: int, batch_tokens: int) -> None:
        self.seq2seq = Seq2Seq(config, max_length, batch_tokens)

    @property
    def about(self) -> About:
        return self.seq2seq.about

    def translate_texts(
        self, texts: list[str], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Texts]:
        """Translations of texts; one is cut to `max_length` of the model's tokens."""
        tokenizer, longest = self.seq2seq.tokenizer, self.seq2seq.max_length - 1
        src = [ids[:longest] for ids in tokenizer(texts, add_special_tokens=False).input_ids]
        translations = self.seq2seq.translate(src, beam_size, n_best, length_penalty)
        return [
            [(tokenizer.decode(ids, skip_special_tokens=True), score) for ids, score in hypotheses]
            for hypotheses in translations
        ]

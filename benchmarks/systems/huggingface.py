"""The student's weights under Hugging Face `generate`.

Their Pegasus (Zhang et al. 2020) is the same network: pre-norm with a norm after the last layer,
scaled and tied embeddings, an output bias, and position encodings in a table, which takes ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.systems.base import (
    BOS,
    EOS,
    NEVER,
    PAD,
    Subject,
    System,
    SystemInfo,
    Tokens,
    Unavailable,
    missing,
    padded,
)

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.systems.base import Student

NAME = "huggingface-generate"
INSTALL = "pip install 'quickstudy[train,bench]'"
PARTS = {
    "attention_norm": "self_attn_layer_norm",
    "attention.out": "self_attn.out_proj",
    "cross_norm": "encoder_attn_layer_norm",
    "cross.query": "encoder_attn.q_proj",
    "cross.out": "encoder_attn.out_proj",
    "ffn_norm": "final_layer_norm",
    "ffn.inner": "fc1",
    "ffn.outer": "fc2",
}
"""Modules of our layers → theirs."""
FUSED = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "cross.kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}


def systems(subject: Subject) -> list[System]:
    """The student in float32, written as a Pegasus model."""
    if reason := missing(INSTALL, ("torch", "transformers")):
        raise Unavailable(reason)
    from benchmarks.systems.base import student_info, student_of

    student = student_of(subject)
    if student is None:
        return []
    folder = subject.folder / NAME
    _silence()
    to_pegasus(student).save_pretrained(folder)
    info = student_info(
        subject,
        student,
        folder,
        name=NAME,
        engine="Hugging Face Transformers",
        precision="float32",
        packages=("transformers", "torch"),
        note=f"{student.weights} as a Pegasus model",
    )
    return [HuggingFace(info, folder, student.tokenizer, student.model.max_length)]


def to_pegasus(student: Student) -> Any:
    """The student as a `PegasusForConditionalGeneration` with the same outputs.

    Raises ValueError if a weight of theirs stays unset.
    """
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    model = student.model
    config = PegasusConfig(
        vocab_size=model.vocab_size,
        max_position_embeddings=model.max_length,
        d_model=model.width,
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        encoder_attention_heads=model.heads,
        decoder_attention_heads=model.heads,
        encoder_ffn_dim=student.ffn,
        decoder_ffn_dim=student.ffn,
        activation_function=student.activation,
        scale_embedding=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        dropout=0.0,
    )
    pegasus = PegasusForConditionalGeneration(config).eval()
    weights = _their_weights(student)
    absent, unknown = pegasus.load_state_dict(weights, strict=False)
    if absent or unknown:
        raise ValueError(f"Pegasus has changed: unset {absent}, unknown {unknown}")
    return pegasus


def _silence() -> None:
    """No progress bars for models of a few megabytes."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _their_weights(student: Student) -> dict[str, Tensor]:
    model = student.model
    weights: dict[str, Tensor] = {"final_logits_bias": model.output_bias.detach()[None]}
    for name in ("model.shared", "lm_head", "model.encoder.embed_tokens"):
        weights[f"{name}.weight"] = model.embedding.weight.detach()
    weights["model.decoder.embed_tokens.weight"] = model.embedding.weight.detach()
    for name, tensor in model.state_dict().items():
        side, _, rest = name.partition(".")
        if side in ("encoder_norm", "decoder_norm"):
            weights[f"model.{side.removesuffix('_norm')}.layer_norm.{rest}"] = tensor
        elif side in ("encoder", "decoder"):
            layer, _, part = rest.partition(".")
            module, _, kind = part.rpartition(".")
            theirs = FUSED.get(module) or (PARTS[module],)
            for one, piece in zip(theirs, tensor.chunk(len(theirs)), strict=True):
                weights[f"model.{side}.layers.{layer}.{one}.{kind}"] = piece
    for side in ("encoder", "decoder"):
        weights[f"model.{side}.embed_positions.weight"] = model.get_buffer("positions")
    return weights


@dataclass
class HuggingFace:
    """A Pegasus folder under `generate`: greedy, cached, their default attention."""

    info: SystemInfo
    folder: Path
    tokenizer: Path
    max_length: int
    _model: Any = field(default=None, init=False, repr=False)
    _tokens: Tokens | None = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        import torch
        from transformers import PegasusForConditionalGeneration

        _silence()
        torch.set_num_threads(threads)
        self._tokens = Tokens(self.tokenizer, self.max_length)
        self._model = PegasusForConditionalGeneration.from_pretrained(
            self.folder, local_files_only=True
        ).eval()

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        assert self._tokens is not None
        return self._tokens.translate(self._generate, sentences, batch_size)

    def _generate(self, rows: list[list[int]]) -> list[list[int]]:
        import torch

        assert self._tokens is not None
        src = torch.tensor(padded(rows))
        with torch.inference_mode():
            generated = self._model.generate(
                input_ids=src,
                attention_mask=(src != PAD).long(),
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._tokens.output_limit(src.shape[1]),
                suppress_tokens=list(NEVER),
            )
        ids: list[list[int]] = generated[:, 1:].tolist()
        return ids

    def close(self) -> None:
        self._model = None

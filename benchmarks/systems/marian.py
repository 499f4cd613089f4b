"""The student's weights in Marian, from the PyPI package `pymarian`.

Marian's pre-norm Transformer has every matrix, norm and position encoding of ours, but decodes
differently in two points that no weights can undo: it starts from a vector of zeros where ours has
an embedding of BOS, and after the first step it normalises the queries of the decoder's
self-attention, not the keys and values. So its translations are not the student's, and only speed
is compared. With a decoder of one layer they are as long as the student's within 2 %; deeper ones
drift off, and are refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.systems.base import (
    EOS,
    PLAIN_BATCH,
    UNK,
    Subject,
    System,
    SystemInfo,
    Tokens,
    Unavailable,
    batches,
    missing,
)

if TYPE_CHECKING:
    from benchmarks.systems.base import Student
    from training.model.transformer import Transformer

NAME = "marian"
INSTALL = "pip install 'quickstudy[train,bench]', with CPython 3.11 or 3.12"
NOTE = "the student's weights, other translations of like length: compare speed only"
ACTIVATIONS = {"relu": "relu", "silu": "swish"}
LINEARS = {
    "attention.qkv": ("self", "qkv"),
    "attention.out": ("self", "o"),
    "cross.query": ("context", "q"),
    "cross.kv": ("context", "kv"),
    "cross.out": ("context", "o"),
    "ffn.inner": ("ffn", "1"),
    "ffn.outer": ("ffn", "2"),
}
"""Linear layers of ours → a layer's part in Marian, and the matrices that ours holds in a row."""
NORMS = {"attention_norm": "self_Wo", "cross_norm": "context_Wo", "ffn_norm": "ffn_ffn"}
CONFIG_KEY = "special:model.yml"


def systems(subject: Subject) -> list[System]:
    """The student in float32: Marian's packed 8-bit products gain nothing in this package."""
    if reason := missing(INSTALL, ("pymarian", "torch")):
        raise Unavailable(reason)
    from benchmarks.systems.base import student_info, student_of

    student = student_of(subject)
    if student is None:
        return []
    if reason := _unlike(student):
        raise Unavailable(reason)
    folder = subject.folder / NAME
    write_marian(student, folder)
    info = student_info(
        subject,
        student,
        folder,
        name=NAME,
        engine="Marian",
        precision="float32",
        packages=("pymarian",),
        note=NOTE,
        scored=False,
    )
    return [MarianSystem(info, folder, student.tokenizer, student.model.max_length)]


def _unlike(student: Student) -> str | None:
    """Why Marian would do other work than the student's, if so."""
    if len(student.model.decoder) > 1:
        return (
            f"the student has {len(student.model.decoder)} decoder layers: Marian decodes pre-norm "
            "models differently, and from the second layer on its translations do not end as the "
            "student's do"
        )
    if student.activation not in ACTIVATIONS:
        return f"Marian computes {student.activation} by an approximation: it has no such model"
    return None


def write_marian(student: Student, folder: Path) -> None:
    """`model.npz` and `vocabulary.yml`, whose words are the ids of our pieces: "t17"."""
    folder.mkdir(parents=True, exist_ok=True)
    names = kept_ids(student.model.vocab_size)
    tensors = marian_tensors(student.model, names)
    config = json.dumps(_config(student, len(names))).encode() + b"\0"
    tensors[CONFIG_KEY] = np.frombuffer(config, np.int8)
    np.savez(folder / "model.npz", **tensors)  # type: ignore[arg-type]
    words = ["</s>", "<unk>", *(f"t{index}" for index in names[2:])]
    lines = [f'"{word}": {index}\n' for index, word in enumerate(words)]
    (folder / "vocabulary.yml").write_text("".join(lines))


def kept_ids(vocab_size: int) -> list[int]:
    """Our ids in Marian's order: EOS, UNK, then the pieces. It needs no PAD and no BOS."""
    return [EOS, UNK, *range(EOS + 1, vocab_size)]


def marian_tensors(model: Transformer, names: list[int]) -> dict[str, NDArray[Any]]:
    """Tensors by Marian's names; its matrices are [in, out], its vectors [1, width]."""
    tensors = {
        "Wemb": _array(model.embedding.weight)[names],
        "decoder_ff_logit_out_b": _array(model.output_bias)[names][None],
    }
    for name, tensor in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        suffix = "scale" if kind == "weight" else "bias"
        if module in ("encoder_norm", "decoder_norm"):
            tensors[f"{module.removesuffix('_norm')}_top_ln_{suffix}"] = _array(tensor)[None]
            continue
        side, _, rest = module.partition(".")
        if side not in ("encoder", "decoder"):
            continue
        layer, _, part = rest.partition(".")
        prefix = f"{side}_l{int(layer) + 1}"
        if part in NORMS:
            tensors[f"{prefix}_{NORMS[part]}_ln_{suffix}_pre"] = _array(tensor)[None]
            continue
        where, matrices = LINEARS[part]
        for letter, piece in zip(matrices, tensor.chunk(len(matrices)), strict=True):
            value = _array(piece)
            theirs = (f"W{letter}", value.T) if kind == "weight" else (f"b{letter}", value[None])
            tensors[f"{prefix}_{where}_{theirs[0]}"] = np.ascontiguousarray(theirs[1])
    return tensors


def _array(tensor: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().numpy()
    return array


def _config(student: Student, vocab_size: int) -> dict[str, Any]:
    """The options of a model that Marian keeps in its file (JSON is YAML)."""
    model = student.model
    return {
        "type": "transformer",
        "version": "v1.12.42",
        "dim-emb": model.width,
        "dim-vocabs": [vocab_size, vocab_size],
        "enc-depth": len(model.encoder),
        "dec-depth": len(model.decoder),
        "transformer-heads": model.heads,
        "transformer-dim-ffn": student.ffn,
        "transformer-ffn-depth": 2,
        "transformer-decoder-dim-ffn": 0,
        "transformer-decoder-ffn-depth": 0,
        "transformer-ffn-activation": ACTIVATIONS[student.activation],
        "transformer-preprocess": "n",
        "transformer-postprocess": "da",
        "transformer-postprocess-emb": "d",
        "transformer-postprocess-top": "n",
        "transformer-decoder-autoreg": "self-attention",
        "transformer-guided-alignment-layer": "last",
        "transformer-tied-layers": [],
        "tied-embeddings-all": True,
        "tied-embeddings": False,
        "tied-embeddings-src": False,
        "input-types": [],
        "factors-combine": "sum",
        "lemma-dim-emb": 0,
        "lemma-dependency": "",
        "layer-normalization": False,
        "output-omit-bias": False,
        "right-left": False,
        "skip": False,
    }


@dataclass
class MarianSystem:
    """Greedy, without the softmax that greedy decoding does not need."""

    info: SystemInfo
    folder: Path
    tokenizer: Path
    max_length: int
    _translator: Any = field(default=None, init=False, repr=False)
    _tokens: Tokens | None = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        import pymarian

        vocabulary = str(self.folder / "vocabulary.yml")
        self._tokens = Tokens(self.tokenizer, self.max_length)
        self._translator = pymarian.Translator(
            models=str(self.folder / "model.npz"),
            vocabs=[vocabulary, vocabulary],
            beam_size=1,
            skip_cost=True,
            cpu_threads=threads,
            mini_batch=PLAIN_BATCH,
            maxi_batch=100,
            maxi_batch_sort="src",
            max_length=self.max_length,
            max_length_crop=True,
            max_length_factor=2,
            workspace=256,
            quiet=True,
            quiet_translation=True,
        )

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """A whole file goes in one call: Marian sorts it by length and shares it among threads."""
        assert self._tokens is not None
        texts: list[str] = []
        for batch in batches(sentences, batch_size or max(len(sentences), 1)):
            lines = [_words(row) for row in self._tokens.encode(batch)]
            outputs = self._translator.translate(lines)
            texts += self._tokens.decode([[int(w[1:]) for w in line.split()] for line in outputs])
        return texts

    def close(self) -> None:
        self._translator = None


def _words(ids: list[int]) -> str:
    """Ids with EOS last → Marian's words."""
    return " ".join(f"t{index}" for index in ids[:-1])

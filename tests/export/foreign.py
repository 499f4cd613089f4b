"""Tiny CTranslate2 folders as other toolkits write them: random weights, true SentencePiece."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
from ctranslate2.converters import Converter
from ctranslate2.specs import TransformerSpec, common_spec

from tests.export.tiny import sentences

WIDTH, HEADS, HIDDEN, POSITIONS = 16, 4, 24, 64
LETTERS = "abcdeghiklmnorstuw"
RUSSIAN = str.maketrans(LETTERS, "абвгдежзиклмнопрст")
OPENNMT_SPECIAL = ("<unk>", "<blank>", "<s>", "</s>")
FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def train_sentencepiece(path: Path, *, russian: bool = False, vocab_size: int = 60) -> Path:
    """A SentencePiece model with its default ids, of one side's or both sides' made-up text."""
    lines = [line.translate(RUSSIAN) if russian else line for line in sentences()]
    model = io.BytesIO()
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def pieces_of(path: Path) -> list[str]:
    """The pieces of a model but for its special ones."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(path))
    count = tokenizer.get_piece_size()
    return [
        tokenizer.id_to_piece(i)
        for i in range(count)
        if not (tokenizer.is_control(i) or tokenizer.is_unknown(i))
    ]


@dataclass(frozen=True)
class Shape:
    """What a random model is like; `style` is that of the toolkit that trained it."""

    style: str = "opennmt"
    pre_norm: bool = True
    biases: bool = True
    layernorm_embedding: bool = False
    relative: bool = False
    glu: bool = False
    stored_positions: bool = True
    width: int = WIDTH
    layers: tuple[int, int] = (2, 1)


OPENNMT = Shape()
MARIAN = Shape(style="marian", pre_norm=False)
M2M = Shape(style="m2m")


class RandomConverter(Converter):
    """A model of random weights, drawn alike for every precision."""

    def __init__(
        self, shape: Shape, source: Sequence[str], target: Sequence[str], **config: Any
    ) -> None:
        self._shape = shape
        self._source, self._target = list(source), list(target)
        self._config = config
        self._random = np.random.default_rng(7)

    def _load(self) -> TransformerSpec:
        shape = self._shape
        spec = TransformerSpec.from_config(
            shape.layers,
            HEADS,
            pre_norm=shape.pre_norm,
            activation=common_spec.Activation.SWISH,
            layernorm_embedding=shape.layernorm_embedding,
            with_relative_position=shape.relative,
            ffn_glu=shape.glu,
        )
        self._fill(spec)
        spec.register_source_vocabulary(self._source)
        spec.register_target_vocabulary(self._target)
        for name, value in self._config.items():
            setattr(spec.config, name, value)
        return spec

    def _fill(self, spec: TransformerSpec) -> None:
        width = self._shape.width
        shared = self._source == self._target
        target = self._array(len(self._target), width)
        source = target if shared else self._array(len(self._source), width)
        spec.encoder.embeddings[0].weight = source
        spec.decoder.embeddings.weight = target
        spec.decoder.projection.weight = target * 3
        spec.decoder.projection.bias = self._array(len(self._target), scale=0.1)
        spec.decoder.start_from_zero_embedding = self._shape.style == "marian"
        for side in (spec.encoder, spec.decoder):
            side.scale_embeddings = 4.0 if self._shape.style == "m2m" else True
            if hasattr(side, "position_encodings") and self._shape.stored_positions:
                side.position_encodings.encodings = self._array(POSITIONS, width)
            for name in ("layer_norm", "layernorm_embedding"):
                if hasattr(side, name):
                    self._norm(getattr(side, name))
            for layer in side.layer:
                self._layer(layer)

    def _layer(self, layer: Any) -> None:
        width = self._shape.width
        self._attention(layer.self_attention, (3, 1))
        if hasattr(layer, "attention"):
            self._attention(layer.attention, (1, 2, 1))
        self._norm(layer.ffn.layer_norm)
        self._linear(layer.ffn.linear_0, HIDDEN, width)
        self._linear(layer.ffn.linear_1, width, HIDDEN)
        if self._shape.glu:
            self._linear(layer.ffn.linear_0_noact, HIDDEN, width)

    def _attention(self, spec: Any, parts: Sequence[int]) -> None:
        width = self._shape.width
        self._norm(spec.layer_norm)
        for linear, part in zip(spec.linear, parts, strict=True):
            self._linear(linear, part * width, width)
        if self._shape.relative and len(parts) == 2:
            spec.relative_position_keys = self._array(9, width // HEADS)
            spec.relative_position_values = self._array(9, width // HEADS)

    def _linear(self, spec: Any, rows: int, columns: int) -> None:
        spec.weight = self._array(rows, columns, scale=0.5)
        if self._shape.biases:
            spec.bias = self._array(rows, scale=0.1)

    def _norm(self, spec: Any) -> None:
        spec.gamma = 1 + self._array(self._shape.width, scale=0.1)
        spec.beta = self._array(self._shape.width, scale=0.1)

    def _array(self, *shape: int, scale: float = 1.0) -> Any:
        return (self._random.standard_normal(shape) * scale).astype(np.float32)


def make_folder(
    folder: Path,
    sentencepiece: Path,
    shape: Shape = OPENNMT,
    quantization: str | None = None,
    special: Sequence[str] = OPENNMT_SPECIAL,
    more: Sequence[str] = (),
    **config: Any,
) -> Path:
    """A folder with one vocabulary, its SentencePiece model in it."""
    vocabulary = [*special, *pieces_of(sentencepiece), *more]
    converter = RandomConverter(shape, vocabulary, vocabulary, **config)
    converter.convert(str(folder), quantization=quantization)
    shutil.copyfile(sentencepiece, folder / "sentencepiece.model")
    return folder


def make_argos(out: Path, folder: Path, sentencepiece: Path, **metadata: Any) -> Path:
    """An Argos package of a CTranslate2 folder."""
    said = {
        "package_version": "1.9",
        "argos_version": "1.9.0",
        "from_code": "en",
        "to_code": "de",
        "type": "translate",
        **metadata,
    }
    top = "translate-en_de-1_9"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{top}/metadata.json", json.dumps(said))
        archive.writestr(f"{top}/README.md", "# English to German\n\nLicense: CC BY 4.0\n")
        archive.writestr(f"{top}/stanza/en/tokenize/ewt.pt", b"never read")
        archive.write(sentencepiece, f"{top}/sentencepiece.model")
        for path in sorted(folder.iterdir()):
            if path.suffix != ".model":
                archive.write(path, f"{top}/model/{path.name}")
    return out

"""Recipe sections of models, their training, their tokenizer, and teachers.

A new kind of teacher is a class here (joined to the unions at the end), its files in
`training.teacher_files`, and a file in `training/distill/teachers/`. Lengths are in tokens, times
in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import gt
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from training.config.losses import NllObjective, Section

Share = Annotated[float, Field(ge=0, lt=1)]


Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class LayerSizes(Section):
    """Heads and feed-forward units of single layers, from the first to the last: what a cut leaves
    where layers differ in what they can spare (Kurtić, Frantar & Alistarh 2023, ZipLM). Default:
    all of them."""

    encoder_heads: Sizes | None = None
    """Attention heads of each encoder layer, `heads` at most; a head is as wide as ever."""
    encoder_ffn: Sizes | None = None
    """Inner width of each encoder layer's feed-forward network, `ffn` at most."""
    decoder_heads: Sizes | None = None
    """Self-attention's heads of each decoder layer; a recurrent unit has none."""
    decoder_cross_heads: Sizes | None = None
    """Heads of each decoder layer's attention to the source."""
    decoder_ffn: Sizes | None = None
    """Inner width of each decoder layer's feed-forward network."""


class ModelConfig(Section):
    """Dimensions of a Transformer."""

    width: int = Field(256, ge=8)
    """Width of the states (d_model)."""
    heads: int = Field(4, ge=1)
    """Attention heads; must divide the width."""
    ffn: int = Field(1024, ge=8)
    """Inner width of the feed-forward layers."""
    encoder_layers: int = Field(6, ge=1)
    """Encoder depth."""
    decoder_layers: int = Field(2, ge=1)
    """Decoder depth."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Activation of the feed-forward layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of residual branches, embeddings and inner feed-forward states, a share of 1."""
    max_length: int = Field(256, ge=16)
    """Longest sequence of either side, in tokens."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each block, or after its sum with the residual, as Marian's models have."""
    norm_epsilon: float = Field(1e-5, gt=0, lt=0.1)
    """What is added to the variance in layer norm."""
    decoder_cell: Literal["attention", "ssru"] = "attention"
    """Self-attention in the decoder, or a recurrent unit (SSRU) in its place."""
    sinusoids: Literal["tensor2tensor", "vaswani"] = "tensor2tensor"
    """Rates of the position encodings: 10,000 ^ (-i / (D/2 - 1)), or ^ (-i / (D/2))."""
    sizes: LayerSizes | None = None
    """Layers with fewer heads or units than the rest."""

    def of_layers(self, name: str) -> list[int]:
        """The sizes of all layers of a field of LayerSizes."""
        side, _, kind = name.partition("_")
        whole = self.ffn if kind == "ffn" else self.heads
        count = self.encoder_layers if side == "encoder" else self.decoder_layers
        return (self.sizes and getattr(self.sizes, name)) or [whole] * count

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        faults = []
        if self.width % self.heads or self.width % 2:
            faults.append(f"width {self.width} must be even and a multiple of heads {self.heads}")
        for name in LayerSizes.model_fields:
            found = self.of_layers(name)
            kind = "ffn" if name.endswith("ffn") else "heads"
            count = self.encoder_layers if name.startswith("encoder") else self.decoder_layers
            if len(found) != count:
                faults.append(f"sizes.{name} names {len(found)} layers of {count}")
            elif max(found) > getattr(self, kind):
                faults.append(f"sizes.{name} holds {max(found)}: {kind} is {getattr(self, kind)}")
        if self.decoder_cell == "ssru" and self.sizes and self.sizes.decoder_heads:
            faults.append("sizes.decoder_heads: a recurrent unit has no heads")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class TrainingConfig(Section):
    """One training run. It ends at whichever limit comes first."""

    batch_tokens: int = Field(1024, ge=32)
    """Target tokens in one process's batch, padding counted."""
    accumulate: int = Field(1, ge=1)
    """Batches summed into one step of the optimiser."""
    sampled_softmax: int | None = Field(None, ge=0)
    """Words that each batch's output layer scores beside its targets and the teacher's top ones,
    drawn anew for every batch; the output layer is most of the work where a vocabulary is large.
    Default: the whole vocabulary."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate, at the end of the warm-up."""
    warmup_steps: int = Field(1000, ge=1)
    """Steps of linear warm-up; inverse square root after them."""
    cooldown: float = Field(0.0, ge=0, lt=1)
    """Last share of the run (of its nearest limit) in which the rate falls linearly to a tenth."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Adam's decay rates, each from 0 to below 1."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest gradient norm; longer gradients are scaled down to it."""
    max_steps: int | None = Field(None, ge=1)
    """Limit in optimiser steps."""
    max_epochs: int | None = Field(None, ge=1)
    """Limit in passes over the training text."""
    max_minutes: float | None = Field(None, gt=0)
    """Limit in minutes of training time, resumed time counted."""
    clock: Literal["wall", "cpu"] = "wall"
    """What a minute of max_minutes is: of the clock, or of one process's CPU time, which is nearly
    the same whatever else the machine does, so that students of equal time are comparable."""
    log_every: int = Field(50, ge=1)
    """Steps between log lines."""
    validate_every: int = Field(500, ge=1)
    """Steps between validations."""
    validation_pairs: int = Field(1000, ge=1)
    """Validation pairs translated each time, at most."""
    patience: int = Field(10, ge=1)
    """Validations without a better BLEU before the run stops early."""
    average: int = Field(4, ge=1)
    """Checkpoints averaged at the end: the best by validation BLEU."""
    checkpoint_minutes: float = Field(3.0, gt=0)
    """Minutes between checkpoints to resume from."""
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes on this machine: `auto` is one a core on a CPU (8 at most), one a GPU."""
    quantization_aware: float = Field(0.0, ge=0, le=1)
    """Last share of the run (of its nearest limit) in which weights and activations are rounded as
    the int8 engines of ONNX and our compiled one round them; 1 is the whole run."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` is bf16-mixed where the processor computes in bf16, else 32-true."""

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("give at least one limit: max_steps, max_epochs or max_minutes")
        return self


class FreezeConfig(Section):
    """What a student keeps as it started with, and for how long."""

    encoder: float = Field(0.0, ge=0, le=1)
    """First share of the run (of its nearest limit) in which the encoder does not learn; 1 is the
    whole run."""
    source_embedding: float = Field(0.0, ge=0, le=1)
    """First share of the run in which the source's embeddings do not learn; they need a table of
    their own (tokenizer.kind separate)."""
    embedding: float = Field(0.0, ge=0, le=1)
    """First share of the run in which the target's embeddings, or those of both sides where they
    are one table, and the output bias do not learn: text at hand changes the words that it has, and
    the rare ones stay behind."""
    rate: float = Field(0.2, gt=0, le=1)
    """Learning rate of what was frozen, once it learns, a share of that of the rest."""


class TokenizerConfig(Section):
    """A SentencePiece model trained on the run's text: of both languages, or, as
    `tokenizer.target`, of the target alone."""

    kind: Literal["train"] = "train"
    vocab_size: int = Field(6000, ge=300)
    """Pieces, the 256 bytes and 4 special ones among them."""
    type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm."""
    character_coverage: float = Field(0.9995, gt=0.9, le=1.0)
    """Share of the text's characters with a piece of their own; the rest fall back to bytes."""
    sample_lines: int = Field(1_000_000, ge=1)
    """Lines it is trained on at most."""


class AdoptedTokenizer(Section):
    """The given teacher's own SentencePiece model, so that its distributions can be learned; more
    pieces may follow its own."""

    kind: Literal["teacher"] = "teacher"
    add: list[str] = Field(default_factory=list)
    """Pieces that the teacher lacks, such as `€`: single characters, or longer texts that are never
    cut. What its vocabulary can write already is left out."""
    byte_fallback: bool = False
    """Let characters without a piece fall back to bytes, so that none is unknown to the student."""

    @property
    def extended(self) -> bool:
        """Whether the student may have pieces that the teacher lacks."""
        return bool(self.add) or self.byte_fallback


class PretrainedTokenizer(Section):
    """The SentencePiece model of a pretrained model's source side."""

    pretrained: str = Field(min_length=1)
    """Folder of the pretrained model, absolute or relative to the recipe's folder."""


class SeparateTokenizers(Section):
    """A SentencePiece model a side: the source's from a pretrained model, the target's trained on
    the run's text. Pairs whose source has characters that the former lacks are left out."""

    kind: Literal["separate"] = "separate"
    source: PretrainedTokenizer
    """The source's."""
    target: TokenizerConfig = Field(default_factory=TokenizerConfig)
    """The target's."""


class StartTokenizers(Section):
    """The SentencePiece models, one or two, of the model that the student starts from, cut down to
    the pieces that the run's text uses most. What a smaller vocabulary keeps, keeps its embeddings
    too, and words of pieces that are gone are cut into smaller ones."""

    kind: Literal["start"] = "start"
    size: int | None = Field(None, ge=300)
    """Pieces of the target's model, or of the only one, special, added and byte ones among them.
    Default: all."""
    source_size: int | None = Field(None, ge=300)
    """Pieces of the source's, where it has one of its own. Default: all."""
    add: list[str] = Field(default_factory=list)
    """Pieces to add to each, such as `€`: single characters, or longer texts that are never cut.
    What a vocabulary can write already is left out."""
    byte_fallback: bool = False
    """Let characters without a piece fall back to bytes, so that none is unknown."""


DEFAULT_KIND = "train"
"""Kind of a tokenizer or teacher that names none."""


def with_kind(value: Any) -> Any:
    """A section with the default kind where it names none."""
    return {"kind": DEFAULT_KIND, **value} if isinstance(value, dict) else value


AnyTokenizer = Annotated[
    TokenizerConfig | AdoptedTokenizer | SeparateTokenizers | StartTokenizers,
    Field(discriminator="kind"),
    BeforeValidator(with_kind),
]


class TrainedTeacher(Section):
    """A teacher that the run trains on the references."""

    kind: Literal["train"] = "train"
    model: ModelConfig
    training: TrainingConfig
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""

    @property
    def objective(self) -> NllObjective:
        """What it is trained by."""
        return NllObjective(label_smoothing=self.label_smoothing)


class CheckpointTeacher(Section):
    """A finished Quickstudy checkpoint."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: str = Field(min_length=1)
    """Checkpoint folder, absolute or relative to the recipe's folder."""


class CTranslate2Folder(Section):
    """A CTranslate2 model and its SentencePiece model; it computes in float32."""

    kind: Literal["ctranslate2"] = "ctranslate2"
    path: str = Field(min_length=1)
    """Model folder (`model.bin`), absolute or relative to the recipe's folder."""
    sentencepiece: str = Field(min_length=1)
    """SentencePiece model, of both sides or of the source alone; absolute or relative to the
    recipe's folder."""
    target_sentencepiece: str | None = Field(None, min_length=1)
    """SentencePiece model of the target side, where it has one of its own."""
    source_prefix: list[str] = Field(default_factory=list)
    """Tokens before every source sentence, such as the language `__en__` of an M2M100 model."""
    source_suffix: list[str] = Field(default_factory=list)
    """Tokens after every source sentence, such as the `</s>` of a model converted from Hugging
    Face."""
    target_prefix: list[str] = Field(default_factory=list)
    """Tokens that every translation starts with, such as the language `__de__`."""


class HuggingFaceFolder(Section):
    """A local Hugging Face sequence-to-sequence model: Marian (OPUS-MT), M2M100, NLLB or mBART."""

    kind: Literal["huggingface"] = "huggingface"
    path: str = Field(min_length=1)
    """Folder of model (safetensors) and tokenizer, absolute or relative to the recipe's folder."""
    src_lang: str | None = Field(None, min_length=1)
    """Source language as the tokenizer spells it: `en` (M2M100), `eng_Latn` (NLLB), `en_XX`
    (mBART). Marian needs none."""
    trg_lang: str | None = Field(None, min_length=1)
    """Target language as the tokenizer spells it; for a Marian model of many target languages its
    token without the signs, `deu` for `>>deu<<`."""


class MarianFolder(Section):
    """A pretrained Marian model: a folder of Firefox, Bergamot, translateLocally or Marian, or
    Hugging Face's form of one. It computes in float32 in torch."""

    kind: Literal["marian"] = "marian"
    path: str = Field(min_length=1)
    """Folder of model (`.bin`, `.npz` or `.safetensors`), SentencePiece vocabulary and, if there is
    one, lexicon; absolute or relative to the recipe's folder."""
    source_prefix: list[str] = Field(default_factory=list)
    """Pieces before every source sentence, such as the language `>>deu<<`."""


MemberConfig = Annotated[
    CheckpointTeacher | CTranslate2Folder | HuggingFaceFolder | MarianFolder,
    Field(discriminator="kind"),
]


class TeacherEnsemble(Section):
    """Given teachers of one vocabulary, whose next-token probabilities are averaged."""

    kind: Literal["ensemble"] = "ensemble"
    members: list[MemberConfig] = Field(min_length=2)
    """The teachers; all of the same SentencePiece model."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """Weight of each member in the average, no unit; they are divided by their sum. Default:
    equal."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(
                f"weights: {len(self.weights)} of them for {len(self.members)} members"
            )
        return self


GivenTeacher = (
    CheckpointTeacher | CTranslate2Folder | HuggingFaceFolder | MarianFolder | TeacherEnsemble
)
TeacherConfig = Annotated[
    TrainedTeacher | GivenTeacher, Field(discriminator="kind"), BeforeValidator(with_kind)
]
PATHS = ("path", "sentencepiece", "target_sentencepiece")


def members_of(teacher: GivenTeacher) -> list[tuple[str, MemberConfig]]:
    """The single teachers of a given one, each with the name of its place in a recipe."""
    if isinstance(teacher, TeacherEnsemble):
        return [(f"teacher.members.{i}", member) for i, member in enumerate(teacher.members)]
    return [("teacher", teacher)]


def with_paths(teacher: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The section of a teacher, as a mapping, with every path changed."""
    changed = {
        name: change(value) if name in PATHS and value and isinstance(value, str) else value
        for name, value in teacher.items()
    }
    if isinstance(members := teacher.get("members"), list):
        changed["members"] = [
            with_paths(member, change) if isinstance(member, dict) else member for member in members
        ]
    return changed


def with_start(student: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The section of a student, as a mapping, with the paths changed that it starts from."""
    start = student.get("start")
    if not isinstance(start, dict):
        return student
    changed = {
        name: change(value)
        if name in ("checkpoint", "pretrained", "whole") and isinstance(value, str)
        else value
        for name, value in start.items()
    }
    return {**student, "start": changed}


def with_source(tokenizer: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The section of a tokenizer, as a mapping, with the path of a pretrained one changed."""
    source = tokenizer.get("source")
    if not isinstance(source, dict) or not isinstance(path := source.get("pretrained"), str):
        return tokenizer
    return {**tokenizer, "source": {**source, "pretrained": change(path)}}


def without_folders(path: str) -> str:
    """The last part of a path, which is all that may be shown elsewhere."""
    return PurePath(path).name


SAME_FROM_START = (
    *("width", "heads", "activation", "norm", "norm_epsilon", "decoder_cell", "sinusoids"),
)


def start_faults(student: ModelConfig, other: ModelConfig, of: str = "the teacher") -> list[str]:
    """Why a student cannot start from copied layers of a model; empty where it can."""
    faults = [
        f"student.start needs student.model.{name} to be {of}'s, {getattr(other, name)}"
        for name in SAME_FROM_START
        if getattr(student, name) != getattr(other, name)
    ]
    if student.ffn > other.ffn:
        faults.append(f"student.start needs student.model.ffn to be {of}'s, {other.ffn}, or less")
    deep = student.encoder_layers, student.decoder_layers
    if deep == (other.encoder_layers, other.decoder_layers):
        faults += [
            f"student.start needs student.model.sizes.{name} to be {of}'s, "
            f"{other.of_layers(name)}, or less"
            for name in LayerSizes.model_fields
            if any(map(gt, student.of_layers(name), other.of_layers(name)))
        ]
    return faults


def length_faults(student: ModelConfig, teacher: ModelConfig) -> list[str]:
    """Why a student cannot hold what a teacher of the same tokens writes; empty where it can."""
    if student.max_length >= teacher.max_length:
        return []
    return [
        f"student.model.max_length {student.max_length} must be at least the teacher's "
        f"{teacher.max_length}, or its translations do not fit"
    ]

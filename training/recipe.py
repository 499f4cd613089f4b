"""The typed description of a run, loaded from YAML.

Unknown keys are refused and every error is reported at once, each with its field. Lengths are in
tokens unless a description says otherwise; times in minutes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from training.distill.config import (
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    PathName,
    Section,
    needs_labels,
)

Share = Annotated[float, Field(ge=0, lt=1)]
RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
STAGE_NAMES = ("prepare", "tokenize", "teacher", "label", "student", "export", "evaluate")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every fault with its field."""


class SourceConfig(Section):
    """One corpus: pairs, or source text alone (`trg: null` or `trg_field: null`)."""

    format: Literal["auto", "plain", "tsv", "jsonl", "tmx", "parquet"] = "auto"
    """File format; `auto` goes by the file name (a plain pair needs `src` and `trg`)."""
    src: str | None = None
    """Plain text: path of the source side, one sentence a line (.gz and .zst are read too)."""
    trg: str | None = None
    """Plain text: path of the target side, line n translating line n of `src`. A written-out
    null says that there is none: monolingual text, in corpus.train only."""
    path: str | None = None
    """TSV, JSONL, TMX or Parquet: path of the file."""
    src_field: str = Field("src", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV column number from 0, of the source text."""
    trg_field: str | None = Field("trg", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV column number from 0, of the target text; null reads the
    source text alone (TMX: every unit with the source language), in corpus.train only."""
    limit: int | None = Field(None, ge=1)
    """Read at most this many pairs."""

    @property
    def monolingual(self) -> bool:
        """Whether there is source text only."""
        return self.trg is None if self.path is None else self.trg_field is None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.path is None and (self.src is None or "trg" not in self.model_fields_set):
            raise ValueError(
                "give `src` and `trg` (plain text; `trg: null` where there is source text only) "
                "or `path` (other formats)"
            )
        if self.path is not None and (self.src is not None or self.trg is not None):
            raise ValueError("give either `path` or `src` and `trg`, not both")
        return self


class CleanConfig(Section):
    """Which pairs are dropped, and why; the report counts each rule."""

    max_chars: int = Field(1000, ge=1)
    """Longest side, in characters."""
    max_ratio: float = Field(4.0, ge=1)
    """Longest allowed ratio between the sides, in characters; short pairs are spared."""
    ratio_min_chars: int = Field(20, ge=0)
    """The ratio is checked only where the longer side has at least this many characters."""
    drop_duplicates: bool = True
    """Drop a pair that has been seen before (both sides, after normalisation)."""
    drop_overlap: bool = True
    """Drop training pairs of which either side stands in validation or test text."""
    drop_control: bool = True
    """Drop pairs with control characters."""
    check_language: bool = False
    """Drop pairs that a language identifier takes for another language."""
    language_min_chars: int = Field(30, ge=1)
    """Shorter sides are not judged by language, in characters."""


class CorpusConfig(Section):
    """Where the text is and how it is cleaned."""

    src_lang: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=16)
    """Source language, a BCP 47 code such as `en`."""
    trg_lang: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=16)
    """Target language, a BCP 47 code such as `de`."""
    root: str = "."
    """Folder that relative paths start from (`--data` on the command line); itself relative to
    the recipe's folder."""
    train: list[SourceConfig] = Field(min_length=1)
    """Training corpora, read one after another; monolingual ones are for labelled students."""
    validation: SourceConfig
    """Chooses checkpoints; never trained on."""
    test: dict[str, SourceConfig] = Field(default_factory=dict)
    """Test sets by name; only ever measured."""
    clean: CleanConfig = Field(default_factory=CleanConfig)
    """Cleaning rules of the training corpora."""
    noise: float = Field(0.0, ge=0, lt=1)
    """Share of the source words, of training and held-out text alike, that are dropped, exchanged
    or misspelt, for studies of text complexity; 0 to below 1."""
    shard_pairs: int = Field(20_000, ge=1)
    """Pairs in one shard of the prepared corpus and of the label store."""
    licence: str = Field("unknown", min_length=1)
    """Licence of the text, repeated in the model card."""
    attribution: str = ""
    """Whom the licence asks to be named, repeated in the model card."""

    @model_validator(mode="after")
    def _held_out_has_references(self) -> Self:
        held_out = {"validation": self.validation}
        held_out |= {f"test.{name}": source for name, source in self.test.items()}
        bare = [name for name, source in held_out.items() if source.monolingual]
        if bare:
            raise ValueError(f"{', '.join(bare)}: held-out text needs its target side")
        return self

    @property
    def has_monolingual(self) -> bool:
        """Whether some training text has no references."""
        return any(source.monolingual for source in self.train)


class TokenizerConfig(Section):
    """The joint SentencePiece model of both languages."""

    vocab_size: int = Field(6000, ge=300)
    """Pieces, the 256 bytes and 4 special ones among them."""
    type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm."""
    character_coverage: float = Field(0.9995, gt=0.9, le=1.0)
    """Share of the text's characters with a piece of their own; the rest fall back to bytes."""
    sample_lines: int = Field(1_000_000, ge=1)
    """Lines it is trained on at most."""


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

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads {self.heads}"
            )
        return self


class TrainingConfig(Section):
    """One training run. It ends at whichever limit comes first."""

    batch_tokens: int = Field(1024, ge=32)
    """Target tokens in one process's batch, padding counted."""
    accumulate: int = Field(1, ge=1)
    """Batches summed into one step of the optimiser."""
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
    log_every: int = Field(50, ge=1)
    """Steps between log lines."""
    validate_every: int = Field(500, ge=1)
    """Steps between validations."""
    validation_pairs: int = Field(1000, ge=1)
    """Validation pairs translated each time."""
    patience: int = Field(10, ge=1)
    """Validations without a better BLEU before the run stops early."""
    average: int = Field(4, ge=1)
    """Checkpoints averaged at the end: the best by validation BLEU."""
    checkpoint_minutes: float = Field(3.0, gt=0)
    """Minutes between checkpoints to resume from."""
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes on this machine: `auto` is one a core on a CPU (8 at most), one a GPU."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` is bf16-mixed where the processor computes in bf16, else 32-true."""

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("give at least one limit: max_steps, max_epochs or max_minutes")
        return self


class TeacherConfig(Section):
    """The strong, slow model, trained on the references."""

    model: ModelConfig
    training: TrainingConfig
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""


class LabelsConfig(Section):
    """What the teacher is asked, once."""

    beam_size: int = Field(5, ge=1, le=32)
    """Beam of the teacher's translations."""
    n_best: int = Field(1, ge=1, le=32)
    """Translations kept a sentence; at most the beam size."""
    length_penalty: float = Field(1.0, ge=0, le=2)
    """Exponent of the length that a hypothesis's score is divided by."""
    top_k: int = Field(8, ge=0)
    """Log-probabilities kept a position; the rest is kept as one tail mass. 0 keeps all."""
    paths: list[PathName] = Field(default=["hypothesis"], min_length=1)
    """Along whose words the teacher's distributions are kept."""
    batch_tokens: int = Field(1024, ge=64)
    """Tokens in one batch of the teacher."""
    precision: Literal["int8", "float32"] = "int8"
    """Weights of the teacher while it translates; int8 keeps 7 bits. Distributions are always
    float32."""

    @model_validator(mode="after")
    def _n_best_fits(self) -> Self:
        if self.n_best > self.beam_size:
            raise ValueError(f"n_best {self.n_best} must not exceed beam_size {self.beam_size}")
        if "closest" in self.paths and self.n_best == 1:
            raise ValueError("the path `closest` needs n_best of 2 or more")
        return self


class StudentConfig(Section):
    """The small, fast model."""

    model: ModelConfig
    training: TrainingConfig
    objective: ObjectiveConfig = Field(default_factory=HybridObjective)
    """What the student is taught by."""
    start: Literal["random", "teacher"] = "random"
    """Its weights before training: random, or copied from evenly spaced layers of the teacher,
    which needs the teacher's width, heads, ffn and activation. Baselines start at random."""


class ExportConfig(Section):
    """The bundle that is served."""

    precisions: list[Literal["int8", "float32"]] = Field(default=["int8"], min_length=1)
    """CTranslate2 models in the bundle; the first is the default. int8 keeps 7-bit weights."""
    out: str | None = None
    """Bundle folder; default: `bundle` in the run's folder. Relative to the working directory."""
    max_input_tokens: int = Field(128, ge=8)
    """Longest piece of text the service gives the model at once, in tokens."""


class Recipe(Section):
    """A whole run: corpus → tokenizer → teacher → labels → student → export → evaluation."""

    name: RunName
    """Names the run and its folder."""
    description: str = ""
    """One sentence for the model card."""
    seed: int = Field(1, ge=0)
    """Of every random choice in the run."""
    corpus: CorpusConfig
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    teacher: TeacherConfig
    labels: LabelsConfig = Field(default_factory=LabelsConfig)
    student: StudentConfig
    baselines: dict[RunName, ObjectiveConfig] = Field(default_factory=dict)
    """Further students of the same size and budget, by name, each with its own objective."""
    export: ExportConfig = Field(default_factory=ExportConfig)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = [
            fault
            for name, objective in self.objectives().items()
            for fault in self._objective_faults(name, objective)
        ]
        faults += [
            f"a baseline cannot be named {name!r}, which is a stage"
            for name in self.baselines
            if name in STAGE_NAMES
        ]
        if self.student.start == "teacher":
            faults += self._start_faults()
        faults += self._length_faults()
        faults += self._monolingual_faults()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def objectives(self) -> dict[str, ObjectiveConfig]:
        """Every student's objective, by the student's name; `student` is the one exported."""
        return {"student": self.student.objective, **self.baselines}

    def _objective_faults(self, name: str, objective: ObjectiveConfig) -> list[str]:
        where = f"{name} ({objective.kind})"
        path = getattr(objective, "path", None)
        faults = []
        if path is not None and path not in self.labels.paths:
            faults.append(f"{where} needs `{path}` in labels.paths")
        if objective.kind == "sentence-interpolated" and self.labels.n_best == 1:
            faults.append(f"{where} chooses among translations: it needs labels.n_best > 1")
        if getattr(objective, "temperature", 1.0) != 1.0 and self.labels.top_k != 0:
            faults.append(f"{where} has a temperature other than 1, which needs labels.top_k = 0")
        return faults

    def _length_faults(self) -> list[str]:
        teacher, student = self.teacher.model.max_length, self.student.model.max_length
        faults = []
        if student < teacher:
            faults.append(
                f"student.model.max_length {student} must be at least the teacher's {teacher}, or "
                "its translations do not fit"
            )
        if self.export.max_input_tokens >= student:
            faults.append(
                f"export.max_input_tokens {self.export.max_input_tokens} must be below "
                f"student.model.max_length {student}"
            )
        return faults

    def _monolingual_faults(self) -> list[str]:
        if not self.corpus.has_monolingual:
            return []
        faults = []
        if all(source.monolingual for source in self.corpus.train):
            faults.append("corpus.train needs text with references, which train the teacher")
        if self.needs_teacher and "hypothesis" not in self.labels.paths:
            faults.append(
                "corpus.train has text without references, which students are taught along the "
                "teacher's translations: add `hypothesis` to labels.paths"
            )
        return faults

    def _start_faults(self) -> list[str]:
        small, large = self.student.model, self.teacher.model
        faults = [
            f"student.start = teacher needs student.model.{name} to be the teacher's"
            for name in ("width", "heads", "ffn", "activation")
            if getattr(small, name) != getattr(large, name)
        ]
        faults += [
            f"student.start = teacher needs at most the teacher's {name}"
            for name in ("encoder_layers", "decoder_layers")
            if getattr(small, name) > getattr(large, name)
        ]
        return faults

    @property
    def needs_teacher(self) -> bool:
        return any(needs_labels(objective) for objective in self.objectives().values())


def teacher_objective(teacher: TeacherConfig) -> NllObjective:
    """The objective a teacher is trained by."""
    return NllObjective(label_smoothing=teacher.label_smoothing)


def _unshared(tree: Any) -> Any:
    """A copy in which what a YAML anchor shared is separate, so that --set changes one place."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def _set_field(tree: dict[str, Any], assignment: str) -> None:
    key, separator, value = assignment.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set takes FIELD=VALUE, for example seed=2, not {assignment!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: {value!r} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of fields, see `recipe schema`")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"--set {key}: {parent} is not a section of the recipe")
    tree[last] = parsed


def _explain(error: ValidationError, source: str) -> RecipeError:
    lines = [f"{source}: {error.error_count()} fault(s) in the recipe"]
    for fault in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in fault["loc"]) or "(recipe)"
        lines.append(f"  {field}: {fault['msg'].removeprefix('Value error, ')}")
    return RecipeError("\n".join(lines))


def parse_recipe(tree: Any, source: str = "recipe") -> Recipe:
    """A mapping → Recipe. Raises RecipeError that lists every fault."""
    if not isinstance(tree, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of fields, see `recipe schema`")
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, source) from None


def load_recipe(
    path: str | Path, assignments: list[str] | None = None, data: str | Path | None = None
) -> Recipe:
    """Read a recipe; `assignments` (`FIELD=VALUE`) and `data` (corpus.root) override its fields.

    Raises RecipeError when the file is missing, is not YAML, or has faults.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {error}") from None
    tree = _unshared(tree)
    for assignment in assignments or []:
        _set_field(tree, assignment)
    recipe = parse_recipe(tree, str(path))
    root = Path(data) if data is not None else path.parent / recipe.corpus.root
    corpus = recipe.corpus.model_copy(update={"root": str(root.resolve())})
    return recipe.model_copy(update={"corpus": corpus})


def dump_recipe(recipe: Recipe) -> str:
    """YAML of the recipe with every default filled in."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def recipe_schema() -> str:
    """JSON Schema of a recipe, indented."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)

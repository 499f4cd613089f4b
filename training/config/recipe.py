"""The typed description of a run, with its corpus and its bundle; `training.config.io` reads it.

Unknown keys are refused and every error is reported at once, each with its field. Lengths are in
tokens unless a description says otherwise; times in minutes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from quickstudy.errors import QuickstudyError
from training.config.labels import LabelsConfig
from training.config.losses import (
    BY_START,
    ObjectiveConfig,
    Section,
    SentenceObjective,
    learns_from_held_out,
    needs_distributions,
    needs_labels,
)
from training.config.model import (
    AdoptedTokenizer,
    AnyTokenizer,
    CheckpointTeacher,
    CTranslate2Folder,
    FreezeConfig,
    ModelConfig,
    SeparateTokenizers,
    StartTokenizers,
    TeacherConfig,
    TokenizerConfig,
    TrainedTeacher,
    TrainingConfig,
    length_faults,
    start_faults,
)

__all__ = [
    "LabelsConfig",
    "ModelConfig",
    "Recipe",
    "RecipeError",
    "TokenizerConfig",
    "TrainingConfig",
]


class SourceConfig(Section):
    """One corpus: pairs, or source text alone (`trg: null` or `trg_field: null`)."""

    format: Literal["auto", "plain", "tsv", "csv", "jsonl", "tmx", "parquet", "zip"] = "auto"
    """File format; `auto` goes by the file name (a plain pair needs `src` and `trg`)."""
    src: str | None = None
    """Plain text: path of the source side, one sentence a line (.gz and .zst are read too)."""
    trg: str | None = None
    """Plain text: path of the target side, line n translating line n of `src`. A written-out
    null says that there is none: monolingual text, in corpus.train only."""
    path: str | None = None
    """TSV, CSV, JSONL, TMX, Parquet or a zip archive of pairs: path of the file."""
    src_field: str = Field("src", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV or CSV column (number from 0, or name in its header), of
    the source text."""
    trg_field: str | None = Field("trg", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV or CSV column (number from 0, or name in its header), of
    the target text; null reads the source text alone (TMX: every unit with the source language), in
    corpus.train only."""
    quoted: bool | None = None
    """TSV: whether fields are in quotes, with `""` for one within; null goes by the file's
    beginning, and takes them for quoted where all are."""
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
    drop_equal: bool = True
    """Drop pairs whose sides are equal: text that was not translated. Pairs that
    `augment.copied` makes are made later, and stay."""
    check_language: bool = False
    """Drop pairs that a language identifier takes for another language."""
    language_min_chars: int = Field(30, ge=1)
    """Shorter sides are not judged by language, in characters."""


class AugmentConfig(Section):
    """Which training pairs are replaced by altered ones, so that a student copes with other text.

    Each field is the share of the pairs that are altered so, 0 to 1, of those that have what it
    alters. Held-out text and source text without a target stay as they are. A pair gets three kinds
    at most, and one of title_case, all_caps and lower_case. Placeholders, addresses, paths,
    identifiers and tokens with digits keep their letters."""

    no_final_stop: float = Field(0.0, ge=0, le=1)
    """The `.` or `!` that ends both sides is left out."""
    title_case: float = Field(0.0, ge=0, le=1)
    """Every word of both sides begins with a capital, whatever the languages do in titles."""
    all_caps: float = Field(0.0, ge=0, le=1)
    """Both sides in capitals."""
    lower_case: float = Field(0.0, ge=0, le=1)
    """The source in small letters; the target stays."""
    typos: float = Field(0.0, ge=0, le=1)
    """One or two words of the source, of four letters or more, are misspelt; the target stays."""
    swapped_terms: float = Field(0.0, ge=0, le=1)
    """A token that stands once in source and target gives way to something to copy, on both sides:
    an address, placeholder, number, date, path, identifier, emoji. Where there is no such token,
    half of the pairs drawn get it before or behind them."""
    tags: float = Field(0.0, ge=0, le=1)
    """Such a token stands between inline tags, or marks of Markdown; without one, half of the pairs
    drawn do so whole."""
    quotes: float = Field(0.0, ge=0, le=1)
    """The sentence or such a token stands in the same quotation marks on both sides, or dashes and
    ellipses of both are exchanged. With plain_source, in `"` and `'` alone, and none exchanged."""
    joined: float = Field(0.0, ge=0, le=1)
    """The next pair follows in the same line, where both sides end with `.`, `!`, `?` or `…`."""
    copied: float = Field(0.0, ge=0, le=1)
    """The target becomes the source too, so that what is in the target language already stays."""

    @property
    def active(self) -> bool:
        """Whether anything is altered."""
        return any(getattr(self, kind) for kind in type(self).model_fields)

    @model_validator(mode="after")
    def _one_case(self) -> Self:
        if self.title_case + self.all_caps + self.lower_case > 1:
            raise ValueError("title_case, all_caps and lower_case may be 1 together, no more")
        return self


NoiseKind = Literal["drop", "swap", "typo", "replace"]


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
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Which of the cleaned training pairs are altered, after plain_source and before noise."""
    plain_source: bool = False
    """Write typographic quotes, dashes, ellipses and spaces of the source, in training and held-out
    text alike, as those of a keyboard: for a source tokenizer that lacks them."""
    formality: bool = False
    """Tag training sources with the form of address of their German target, `<formal>` or
    `<informal>`, so that a translation can be asked for in either; tokenizer.add must name both."""
    noise: float = Field(0.0, ge=0, lt=1)
    """Share of the source words, of training and held-out text alike, that are disturbed, for
    studies of text complexity; 0 to below 1."""
    noise_kinds: list[NoiseKind] = Field(default=["drop", "swap", "typo"], min_length=1)
    """How, each as often: left out, exchanged with the next word, misspelt, replaced by another
    word of the sentence."""
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


FORMALITY_TAGS = ("<formal>", "<informal>")
"""What stands in front of a source that is to be translated in one form of address."""

EngineName = Literal[
    "ctranslate2-int8",
    "ctranslate2-int8-float32",
    "ctranslate2-int8-shortlist",
    "ctranslate2-float32",
    "native-int8",
    "onnx-int8",
    "onnx-int8-shortlist",
    "onnx-int8-beam",
    "onnx-float32",
]


class GateLimits(Section):
    """How far an engine may be from the float32 model in torch, on validation text, both greedy."""

    sentences: int = Field(1000, ge=1)
    """Validation sentences that are translated, from the first on."""
    float32_identical: float = Field(0.995, ge=0, le=1)
    """Least share of identical lines of a float32 engine, 0 to 1."""
    int8_identical: float = Field(0.8, ge=0, le=1)
    """Least share of identical lines of an int8 engine, 0 to 1."""
    bleu_loss: float = Field(0.3, ge=0)
    """Largest loss of BLEU, in points."""
    score_difference: float = Field(1e-4, gt=0)
    """Largest difference of a translation's mean log-probability of a float32 engine, in nats,
    where the lines are identical."""


class ExportConfig(Section):
    """The bundle that is served."""

    engines: list[EngineName] = Field(default=["ctranslate2-int8"], min_length=1)
    """Engines in the bundle; the first is the default. int8 keeps 7-bit weights."""
    out: str | None = None
    """Bundle folder; default: `bundle` in the run's folder. Relative to the working directory."""
    version: str = Field("1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """Which of a name's bundles this is: part of its tag where it is pushed."""
    beam_size: int = Field(1, ge=1, le=8)
    """Beam of requests that name none, where an engine has beams; 1 is greedy."""
    coarser_embeddings: float = Field(1.0, ge=1.0, le=4.0)
    """Of int8 engines: embeddings, which are the output layer as well, are rounded to steps so many
    times as large. A large vocabulary packs smaller, and loses a little."""
    max_input_tokens: int = Field(128, ge=8)
    """Longest piece of text the service gives the model at once, in tokens."""
    gate: GateLimits = Field(default_factory=GateLimits)
    """What an engine may lose."""


RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
STAGE_NAMES = ("prepare", "tokenize", "teacher", "label", "student", "export", "evaluate")


class RecipeError(QuickstudyError, ValueError):
    """A recipe that cannot be used; the message lists every fault with its field."""


class CheckpointStart(Section):
    """A checkpoint to go on from: a student that is to learn longer, or other text."""

    checkpoint: str = Field(min_length=1)
    """Its folder, absolute or relative to the recipe's folder. Of the same tokenizer (or
    tokenizer.kind start), width, heads and activation; one of more layers lends evenly spaced
    ones, one of a wider ffn the units that make up for the others best."""
    encoder_layers: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1)
    """Which of its encoder layers are copied, counted from 1, as many as the student has. Default:
    evenly spaced ones."""
    decoder_layers: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1)
    """Which of its decoder layers are copied."""
    whole: str | None = Field(None, min_length=1)
    """Folder of the Firefox, Bergamot or Marian model that the checkpoint was cut out of, absolute
    or relative to the recipe's: it teaches in the checkpoint's place (objectives `start-token` and
    `start-states`), and its lexicon joins the shortlist."""


class PretrainedStart(Section):
    """A model of another toolkit to start from: Firefox's, Bergamot's or Marian's. Source
    embeddings, encoder and decoder are copied; of the target's embeddings those of pieces that
    stand in both vocabularies, the rest is random."""

    pretrained: str = Field(min_length=1)
    """Its folder, absolute or relative to the recipe's folder. Of the student's width, heads,
    activation, norm, decoder cell and sinusoids; one of more layers lends evenly spaced ones, one
    of a wider ffn the units that make up for the others best."""
    encoder_layers: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1)
    """Which of its encoder layers are copied, counted from 1, as many as the student has. Default:
    evenly spaced ones."""
    decoder_layers: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1)
    """Which of its decoder layers are copied."""


def _kind_of_start(value: Any) -> str:
    """Which of its kinds a student's start is meant to be, for the faults of that one alone."""
    if isinstance(value, PretrainedStart) or (isinstance(value, dict) and "pretrained" in value):
        return PretrainedStart.__name__
    if isinstance(value, CheckpointStart | dict):
        return CheckpointStart.__name__
    return "name"


StudentStart = Annotated[
    Annotated[Literal["random", "teacher"], Tag("name")]
    | Annotated[CheckpointStart, Tag(CheckpointStart.__name__)]
    | Annotated[PretrainedStart, Tag(PretrainedStart.__name__)],
    Discriminator(_kind_of_start),
]


class StudentConfig(Section):
    """The small, fast model."""

    model: ModelConfig
    training: TrainingConfig
    objective: ObjectiveConfig = Field(default_factory=SentenceObjective)
    """What the student is taught by; docs/study.md says why `sentence`."""
    start: StudentStart = "random"
    """Its weights before training: random, copied from evenly spaced layers of the teacher, which
    needs the teacher's width, heads, ffn and activation, a checkpoint's, or a pretrained model's.
    Baselines start at random."""
    freeze: FreezeConfig | None = None
    """What does not learn at first. Default: everything learns from the start."""


class Recipe(Section):
    """A whole run: corpus → tokenizer → teacher → labels → student → export → evaluation."""

    name: RunName
    """Names the run and its folder."""
    description: str = ""
    """One sentence for the model card."""
    seed: int = Field(1, ge=0)
    """Of every random choice in the run."""
    corpus: CorpusConfig
    tokenizer: AnyTokenizer = Field(default_factory=TokenizerConfig)
    """The student's SentencePiece model: trained on the text, the given teacher's, that of the
    model it starts from, or one a side."""
    teacher: TeacherConfig | None
    """The strong, slow model: trained by the run (the default), or given; null where every student
    learns from references alone."""
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
        faults += self._teacher_faults() if self.teacher is not None else self._alone_faults()
        faults += self._transfer_faults()
        if self.export.max_input_tokens >= self.student.model.max_length:
            faults.append(
                f"export.max_input_tokens {self.export.max_input_tokens} must be below "
                f"student.model.max_length {self.student.model.max_length}"
            )
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
        if needs_distributions(objective) and not self.gives_distributions:
            field = "student.objective" if name == "student" else f"baselines.{name}"
            faults.append(
                f"{field}: {objective.kind} needs the teacher's distributions over the student's "
                "vocabulary, which a given teacher has only with tokenizer.kind teacher: set that, "
                "or use a sentence-level objective"
            )
        elif path is not None and path not in self.labels.paths:
            faults.append(f"{where} needs `{path}` in labels.paths")
        several = ("sentence-interpolated", "sentence-nbest")
        if objective.kind in several and self.labels.n_best == 1:
            faults.append(f"{where} chooses among translations: it needs labels.n_best > 1")
        if objective.kind in BY_START and (
            name != "student" or isinstance(self.student.start, str)
        ):
            faults.append(
                f"{where} teaches by the model that the student starts from: it is for a student "
                "whose student.start names a checkpoint or a pretrained model"
            )
        if objective.kind == "risk" and (name != "student" or self.student.start == "random"):
            faults.append(
                f"{where} teaches by what a student writes already: it is for a student with "
                "student.start, and not for baselines, which start at random"
            )
        held_out = learns_from_held_out(objective)
        sampled = self.student.training.sampled_softmax is not None
        if sampled and (objective.kind == "risk" or held_out):
            scored = "held-out text over" if held_out else "what the student draws from"
            faults.append(
                f"{where} scores {scored} the whole vocabulary: leave out "
                "student.training.sampled_softmax"
            )
        if objective.kind == "start-states":
            if sampled:
                faults.append(
                    f"{where} scores no words: leave out student.training.sampled_softmax"
                )
            if isinstance(self.tokenizer, SeparateTokenizers):
                faults.append(
                    f"{where} needs the words of the model that the student starts from: "
                    "tokenizer.kind start"
                )
        if getattr(objective, "temperature", 1.0) != 1.0 and self.labels.top_k != 0:
            faults.append(f"{where} has a temperature other than 1, which needs labels.top_k = 0")
        return faults

    def _teacher_faults(self) -> list[str]:
        """Faults between teacher, tokenizer and student that no file is read for."""
        teacher, starts = self.teacher, self.student.start == "teacher"
        faults = []
        if isinstance(teacher, TrainedTeacher):
            faults += length_faults(self.student.model, teacher.model)
            if starts:
                faults += start_faults(self.student.model, teacher.model)
            if isinstance(self.tokenizer, AdoptedTokenizer):
                faults.append("tokenizer.kind teacher needs a given teacher: teacher.kind is train")
        elif starts and not (isinstance(teacher, CheckpointTeacher) and self.gives_distributions):
            faults.append(
                "student.start = teacher needs teacher.kind train, or teacher.kind checkpoint with "
                "tokenizer.kind teacher"
            )
        elif starts and isinstance(self.tokenizer, AdoptedTokenizer) and self.tokenizer.extended:
            faults.append(
                "student.start = teacher copies the teacher's embeddings: leave out tokenizer.add "
                "and tokenizer.byte_fallback"
            )
        if (
            isinstance(teacher, CTranslate2Folder)
            and isinstance(self.tokenizer, AdoptedTokenizer)
            and teacher.target_sentencepiece is not None
        ):
            faults.append(
                "tokenizer.kind teacher needs one SentencePiece model of both sides: with "
                "teacher.target_sentencepiece only sentence-level objectives are possible"
            )
        return faults

    def _alone_faults(self) -> list[str]:
        """Faults of a recipe without a teacher."""
        faults = []
        if isinstance(self.tokenizer, AdoptedTokenizer):
            faults.append("tokenizer.kind teacher needs a given teacher: teacher is null")
        if self.student.start == "teacher":
            faults.append("student.start = teacher needs a teacher: teacher is null")
        faults += [
            f"{name} ({objective.kind}) needs a teacher: teacher is null"
            for name, objective in self.objectives().items()
            if needs_labels(objective)
        ]
        return faults

    def _transfer_faults(self) -> list[str]:
        """Faults between tokenizers of two sides, a pretrained start and what is frozen."""
        student, kind = self.student, self.tokenizer.kind
        separate = isinstance(self.tokenizer, SeparateTokenizers)
        lent = isinstance(self.tokenizer, StartTokenizers)
        faults = []
        if (separate or lent) and isinstance(self.teacher, TrainedTeacher):
            faults.append(f"tokenizer.kind {kind} needs a given teacher, or `teacher: null`")
        if isinstance(student.start, PretrainedStart) and not (separate or lent):
            faults.append("student.start.pretrained needs tokenizer.kind start or separate")
        if lent and not isinstance(student.start, PretrainedStart | CheckpointStart):
            faults.append(
                "tokenizer.kind start needs student.start.pretrained or student.start.checkpoint"
            )
        faults += [*self._layer_faults(), *self._formality_faults()]
        if student.freeze and student.start == "random":
            faults.append("student.freeze keeps what a student starts with: set student.start")
        if student.freeze and student.freeze.source_embedding and not (separate or lent):
            faults.append("student.freeze.source_embedding needs tokenizer.kind separate or start")
        return faults

    def _formality_faults(self) -> list[str]:
        if not self.corpus.formality:
            return []
        faults = []
        if self.corpus.trg_lang.split("-")[0] != "de":
            faults.append("corpus.formality: only German forms of address are known")
        added = getattr(self.tokenizer, "add", [])
        if missing := [tag for tag in FORMALITY_TAGS if tag not in added]:
            faults.append(f"corpus.formality needs {', '.join(missing)} in tokenizer.add")
        return faults

    def _layer_faults(self) -> list[str]:
        start, model = self.student.start, self.student.model
        if isinstance(start, str):
            return []
        return [
            f"student.start.{name} chooses {len(chosen)} layers, student.model.{name} is {count}"
            for name, chosen, count in (
                ("encoder_layers", start.encoder_layers, model.encoder_layers),
                ("decoder_layers", start.decoder_layers, model.decoder_layers),
            )
            if chosen is not None and len(chosen) != count
        ]

    def _monolingual_faults(self) -> list[str]:
        if not self.corpus.has_monolingual:
            return []
        faults = []
        references = self.teacher is None or isinstance(self.teacher, TrainedTeacher)
        if references and all(source.monolingual for source in self.corpus.train):
            faults.append("corpus.train needs text with references, which are learnt from")
        asked = self.needs_teacher and self.gives_distributions
        if asked and "hypothesis" not in self.labels.paths:
            faults.append(
                "corpus.train has text without references, which students are taught along the "
                "teacher's translations: add `hypothesis` to labels.paths"
            )
        return faults

    @property
    def gives_distributions(self) -> bool:
        """Whether the teacher has distributions over the student's vocabulary."""
        if self.teacher is None:
            return False
        return isinstance(self.teacher, TrainedTeacher) or isinstance(
            self.tokenizer, AdoptedTokenizer
        )

    @property
    def needs_teacher(self) -> bool:
        return any(needs_labels(objective) for objective in self.objectives().values())

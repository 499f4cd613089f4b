"""The bundle's manifest: typed, frozen, unknown keys refused; no torch.

The JSON schema is `Manifest.model_json_schema()`. Limits on sizes and file names leave room for
any model that is quick to serve and none for a folder made to do harm; see docs/bundle.md.
`strict_json` refuses JSON that readers would understand in different ways.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from quickstudy.errors import QuickstudyError
from quickstudy.form_of_address import Formality


class BundleError(QuickstudyError, ValueError):
    """A bundle that cannot be used, with what is wrong and what to do."""


# --- limits ------------------------------------------------------------------------------------


MAX_MANIFEST_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 64 << 20
MAX_TOTAL_BYTES = 16 << 30
"""Of all files but the manifest."""
MAX_DOWNLOAD_BYTES = 4 << 30
"""Default limit of `pull`."""
MAX_FILES = 1000
MAX_FOLDER_DEPTH = 8
MAX_PATH_CHARS = 200
MAX_VOCAB_SIZE = 1_000_000
MAX_TEXT_CHARS = 10_000
"""Of a description, a licence and the like."""

_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Devices on Windows, whatever their ending."""


def path_fault(value: str) -> str | None:
    """What keeps `value` from being the name of a file in a bundle, or None.

    Names are plain on every system: ASCII letters, digits, `.`, `_` and `-`, parted by `/`. So
    there is no way up or out, no device, and no two spellings of one name.
    """
    parts = value.split("/")
    if len(value) > MAX_PATH_CHARS or len(parts) > MAX_FOLDER_DEPTH:
        return f"longer than {MAX_PATH_CHARS} characters or deeper than {MAX_FOLDER_DEPTH} folders"
    if not all(_PART.fullmatch(part) for part in parts):
        return (
            "not a plain relative path inside the bundle: use ASCII letters, digits, '.', '_' and "
            "'-', forward slashes, no '..', no leading '/' or '.'"
        )
    if any(_RESERVED.fullmatch(part) for part in parts):
        return "the name of a device on Windows: choose another"
    return None


def printable(text: str) -> str:
    """`text` for a terminal or a log: what is not a visible character or a space is escaped.

    Strangers' texts could otherwise move the cursor, hide or turn around what is printed.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


# --- the manifest ------------------------------------------------------------------------------


FORMAT_VERSION = 3
OLDEST_VERSION = 1
"""The oldest format that is still read; `up_to_date` brings it up to date."""
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
SOURCE_TOKENIZER_FILE = "source_tokenizer.model"
TOKENIZER_FILE = "tokenizer.model"
RECIPE_FILE = "recipe.yaml"
ENGINES_FOLDER = "engines"
BEAM_FILE = "beam.onnx"
PACKED = ".gz"
"""What the name of an ONNX file ends with that is packed by gzip."""
"""The file of an ONNX engine that searches with a beam."""
NATIVE_FILE = "native.safetensors"
"""The file of a native engine whose model CTranslate2 cannot compute."""
SEARCH_OPTIONS = frozenset(
    ("beam_size", "alternatives", "repetition_penalty", "no_repeat_ngram_size")
)
"""The options of decoding (`TranslateOptions`) that greedy decoding does not have."""
FORMALITY = "formality"
"""The option that only models with tags for it have."""

Precision = Literal["int8-7bit", "int8", "int16", "float16", "bfloat16", "float32"]
QUANTISED: tuple[Precision, ...] = ("int8-7bit", "int8", "int16")
Compute = Literal["int8", "float32", "default"]
SourceFormat = Literal["firefox", "marian", "huggingface-marian", "argos", "ctranslate2"]
ORIGINAL_FOLDERS = ("argos", "ctranslate2")
"""Formats whose CTranslate2 folder is served as it was, with the vocabulary it came with."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=35)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Piece = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _relative(value: str) -> str:
    if fault := path_fault(value):
        raise ValueError(f"{value[:MAX_PATH_CHARS]!r} is {fault}")
    return value


RelativePath = Annotated[str, AfterValidator(_relative)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """What a file of the bundle must be: its size in bytes and its SHA-256."""

    bytes: int = Field(ge=0, le=MAX_TOTAL_BYTES)
    sha256: Sha256


class EngineEntry(_Frozen):
    """One engine of the bundle; `path` is its folder.

    `precision` is that of the weights on disk (`int8`: in 8 bits with the scales that they came
    with), `compute` that of the products: 7-bit weights with float32 products share the files of
    an int8 engine, and `default` is what CTranslate2 chooses for the weights as they are.
    `shortlist`: the output layer is cut down to the words that the sources have been translated
    to.
    """

    name: Name
    kind: Literal["ctranslate2", "native", "onnx"]
    precision: Precision
    compute: Compute
    path: RelativePath
    shortlist: bool = False

    @property
    def precision_label(self) -> str:
        """Precision with what else tells two engines of a kind apart."""
        apart = self.precision in QUANTISED and self.compute == "float32"
        products = " (float32 products)" if apart else ""
        return self.precision + products + (" with shortlist" if self.shortlist else "")

    @property
    def exact(self) -> bool:
        """Whether it should write what the float32 model writes."""
        return self.precision == "float32" and not self.shortlist


class Decoding(_Frozen):
    """Decoding defaults. Lengths are in tokens.

    A piece of more than `max_input_tokens` tokens is to be split. The output for n source tokens
    is at most `max_output_ratio * n + max_output_constant` tokens long, and never longer than
    `max_output_tokens`, which the model's positions set.
    """

    beam_size: int = Field(default=1, ge=1, le=8)
    max_input_tokens: int = Field(default=128, ge=8, le=4096)
    max_output_ratio: float = Field(default=2.0, gt=0, le=10)
    max_output_constant: int = Field(default=16, ge=1, le=1000)
    max_output_tokens: int = Field(default=255, ge=8, le=8192)

    def output_limit(self, source_tokens: int) -> int:
        """Most output tokens for a source of that many tokens."""
        wanted = self.max_output_ratio * source_tokens + self.max_output_constant
        return min(int(wanted), self.max_output_tokens)


class SpecialTokens(_Frozen):
    """The pieces with a fixed role, at ids 0, 1, 2 and 3; decoding starts with `bos`."""

    pad: Piece = "<pad>"
    unk: Piece = "<unk>"
    bos: Piece = "<s>"
    eos: Piece = "</s>"


class FormalityTags(_Frozen):
    """The pieces before a source that ask for a form of address, and the form of sources that none
    is asked for. The source's tokenizer has each as one piece; a text that holds it is cut into
    smaller ones."""

    formal: Piece
    informal: Piece
    default: Formality = "formal"

    @model_validator(mode="after")
    def _differ(self) -> FormalityTags:
        if self.formal == self.informal:
            raise ValueError(f"formal and informal are both {self.formal!r}")
        return self

    @property
    def by_form(self) -> dict[Formality, str]:
        """The piece of each form."""
        return {"formal": self.formal, "informal": self.informal}


class Metric(_Frozen):
    """One score with everything needed to read it. `engine` is None for a system outside."""

    system: str
    engine: str | None = None
    precision: str | None = None
    decoding: str
    dataset: str
    metric: str
    score: float
    signature: str


class DomainScore(_Frozen):
    """How well a system translates the text of a domain: BLEU with its interval of 95 %, chrF2, and
    the length of the translations over that of the references, in BLEU's tokens. `engine` and
    `precision` are None where they are not known."""

    system: Annotated[Text, StringConstraints(min_length=1)]
    engine: Text | None = None
    precision: Text | None = None
    decoding: Text
    bleu: float = Field(ge=0, le=100)
    bleu_low: float = Field(ge=0, le=100)
    bleu_high: float = Field(ge=0, le=100)
    chrf2: float = Field(ge=0, le=100)
    length_ratio: float | None = Field(default=None, ge=0)


class Domain(_Frozen):
    """The quality on one kind of text: of the bundle's own system, first, and of others.
    `text_sha256` is of the lines, each a source, a tab and its reference."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    sentences: int = Field(ge=1)
    text_sha256: Sha256
    bleu_signature: Text
    chrf2_signature: Text
    scores: tuple[DomainScore, ...] = Field(min_length=1, max_length=100)


class WorstLine(_Frozen):
    """A sentence that an engine translates otherwise than torch does; `chrf` from 0 to 100."""

    source: str
    torch: str
    engine: str
    chrf: float


class EngineCheck(_Frozen):
    """An engine against the float32 model in torch, on the same sentences, both greedy.

    `identical` is the share of equal lines. Differences are the engine's score less torch's, with
    the two-sided p of paired bootstrap. `score_difference` is the largest difference of a
    log-probability of a given target (nats), for engines that give them. `faults` names the
    limits that are broken; none if it passed.
    """

    engine: Name
    identical: float = Field(ge=0, le=1)
    bleu: float
    bleu_difference: float
    bleu_p: float = Field(ge=0, le=1)
    chrf_difference: float
    chrf_p: float = Field(ge=0, le=1)
    score_difference: float | None = None
    worst: tuple[WorstLine, ...] = ()
    faults: tuple[str, ...] = ()


class Origin(_Frozen):
    """What an imported model was before: its format, its name, what its files say of its version,
    the SHA-256 of each file that was read, and what the import changed."""

    format: SourceFormat
    name: Annotated[Text, StringConstraints(min_length=1)]
    version: Text = ""
    files: dict[Annotated[str, StringConstraints(max_length=MAX_PATH_CHARS)], Sha256] = Field(
        max_length=MAX_FILES
    )
    changes: tuple[Text, ...] = Field(default=(), max_length=100)


class GateRecord(_Frozen):
    """What the export gate found. `reference`: what the engines were held against, in torch.
    `references`: whether the sentences have translations by people; without them BLEU and chrF2 are
    measured against torch's lines. `forced`: published although a limit is broken."""

    reference: str = "the float32 model"
    references: bool = True
    dataset: str
    sentences: int = Field(ge=1)
    torch_bleu: float
    signatures: tuple[str, ...]
    versions: dict[str, str] = Field(default_factory=dict)
    engines: tuple[EngineCheck, ...]
    forced: bool = False

    @property
    def faults(self) -> list[str]:
        """Every broken limit, with its engine."""
        return [f"{check.engine}: {fault}" for check in self.engines for fault in check.faults]


class BundleInfo(_Frozen):
    """What a bundle says of itself, before its files are known."""

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    name: Name
    version: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "1"
    created: AwareDatetime
    quickstudy_version: str
    description: Text = ""
    source_lang: Language
    target_lang: Language
    engines: tuple[EngineEntry, ...] = Field(min_length=1, max_length=50)
    default_engine: Name
    decoding: Decoding = Decoding()
    special_tokens: SpecialTokens = SpecialTokens()
    vocab_size: int = Field(ge=5, le=MAX_VOCAB_SIZE)
    parameters: int = Field(ge=1, le=10**12)
    metrics: tuple[Metric, ...] = ()
    domains: tuple[Domain, ...] = Field(default=(), max_length=50)
    gate: GateRecord | None = None
    licence: Annotated[Text, StringConstraints(min_length=1)]
    attribution: Text = ""
    tokenizer: RelativePath = TOKENIZER_FILE
    source_tokenizer: RelativePath | None = None
    """SentencePiece model of the source side, where it has one of its own."""
    source_vocab_size: int | None = Field(default=None, ge=5, le=MAX_VOCAB_SIZE)
    """Pieces of the source side, where they are not the target's."""
    source_prefix: tuple[Piece, ...] = Field(default=(), max_length=10)
    """Tokens before every source sentence, such as a language."""
    source_suffix: tuple[Piece, ...] = Field(default=(), max_length=10)
    """Tokens after every source sentence that the engine does not add itself."""
    target_prefix: tuple[Piece, ...] = Field(default=(), max_length=10)
    """Tokens that every translation starts with."""
    formality: FormalityTags | None = None
    """How to ask for a form of address; None for a model that cannot be asked."""
    missing_characters: Text = ""
    """Common characters that the source vocabulary lacks, or has and the model has hardly learnt:
    these, and what is cut into bytes, the model is not given."""
    reads_fragments: bool = False
    """Whether it has learnt headings and labels, which no mark ends; imported models have."""
    recipe: RelativePath | None = RECIPE_FILE
    """None for a model that was imported."""
    origin: Origin | None = None
    """Where an imported model comes from; None for one of Quickstudy's own."""

    @model_validator(mode="after")
    def _engines_agree(self) -> BundleInfo:
        names = [engine.name for engine in self.engines]
        if len(set(names)) != len(names):
            raise ValueError(f"engines: names must differ, got {names}")
        if self.default_engine not in names:
            raise ValueError(f"default_engine: {self.default_engine!r} is none of {names}")
        for engine in self.engines:
            if not engine.path.startswith(f"{ENGINES_FOLDER}/"):
                raise ValueError(f"engines: {engine.path!r} must lie in {ENGINES_FOLDER}/")
        if self.recipe is None and self.origin is None:
            raise ValueError("recipe: only an imported model has none")
        return self

    @property
    def keeps_original_folder(self) -> bool:
        """Whether its CTranslate2 engines read another toolkit's folder as it was."""
        return self.origin is not None and self.origin.format in ORIGINAL_FOLDERS


def _check_names(names: list[str]) -> None:
    """Raise ValueError if two names are one on some system, or a file lies inside another."""
    if MANIFEST_FILE in names[1:]:
        raise ValueError(f"files: {MANIFEST_FILE} cannot list itself")
    by_lowered = {name.lower(): name for name in names}
    for name in names:
        if (other := by_lowered[name.lower()]) != name:
            raise ValueError(f"files: {name} and {other} differ in case only")
    for name in by_lowered:
        parents = name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if (parent := "/".join(parents[:depth])) in by_lowered:
                raise ValueError(f"files: {parent} is both a file and a folder")


class Manifest(BundleInfo):
    """The whole of manifest.json: the info and every other file with its size and hash."""

    files: dict[RelativePath, FileEntry] = Field(max_length=MAX_FILES)
    total_bytes: int = Field(ge=0, le=MAX_TOTAL_BYTES)

    @model_validator(mode="after")
    def _files_agree(self) -> Manifest:
        optional = (self.recipe, self.source_tokenizer)
        for needed in (CARD_FILE, self.tokenizer, *filter(None, optional)):
            if needed not in self.files:
                raise ValueError(f"files: {needed} is not listed")
        _check_names([MANIFEST_FILE, *self.files])
        for engine in self.engines:
            if not self.engine_bytes(engine):
                raise ValueError(f"files: nothing is listed under {engine.path}/")
        total = sum(entry.bytes for entry in self.files.values())
        if total != self.total_bytes:
            raise ValueError(f"total_bytes: {self.total_bytes}, but the files add up to {total}")
        return self

    def engine_bytes(self, engine: EngineEntry) -> int:
        """Size in bytes of an engine's files."""
        inside = f"{engine.path}/"
        return sum(entry.bytes for path, entry in self.files.items() if path.startswith(inside))

    def shares_ctranslate2(self, engine: EngineEntry) -> bool:
        """Whether CTranslate2 reads a native engine's folder, too."""
        return engine.kind == "native" and f"{engine.path}/{NATIVE_FILE}" not in self.files

    def compiled_computes(self, engine: EngineEntry) -> bool:
        """Whether the compiled engine may compute an engine: its own, and int8 products of
        CTranslate2's weights in our own 7 bits or of an ONNX graph's."""
        if engine.kind == "native":
            return True
        if engine.compute != "int8" or self.keeps_original_folder:
            return False
        return engine.kind == "onnx" or (engine.precision == "int8-7bit" and not engine.shortlist)

    def supported_options(self, engine: EngineEntry) -> frozenset[str]:
        """Which of `SEARCH_OPTIONS` an engine supports by the library that it is made for, none if
        that only decodes greedily; and `FORMALITY`, where the model has tags for it. The compiled
        engine has all of a search."""
        asked = frozenset((FORMALITY,) if self.formality is not None else ())
        return self._search_options(engine) | asked

    def _search_options(self, engine: EngineEntry) -> frozenset[str]:
        if engine.kind in ("ctranslate2", "native"):
            return SEARCH_OPTIONS
        beam = f"{engine.path}/{BEAM_FILE}"
        has_beam = beam in self.files or beam + PACKED in self.files
        return frozenset(("beam_size",) if has_beam else ())

    def no_such_option(self, name: str, option: str, value: object) -> str:
        """What to tell someone who asks this of the engine `name`, which does not support it."""
        if option == FORMALITY:
            return (
                f"`{option}` is not supported for {self.target_lang}, in which {self.name} has one "
                "form of address: leave it out"
            )
        supported = {engine.name: self._search_options(engine) for engine in self.engines}
        lack = f"gives no {option}" if supported.get(name) else "only decodes greedily"
        others = [other for other, options in supported.items() if option in options]
        advice = ["leave it out"]
        if others:
            advice.append(f"use the bundle's engine {' or '.join(others)}")
        if any(self.compiled_computes(one) for one in self.engines if one.name == name):
            advice.append("build the compiled engine, which has it")
        return f"{option} is {value}, but the engine {name} of {self.name} {lack}: " + ", or ".join(
            advice
        )


def up_to_date(raw: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a manifest of an older format as one of this format.

    Format 1 had no `compute`, which followed from the precision; format 2 knew no imported models.
    The hashes are not touched: they are of the other files.
    """
    version = raw.get("format_version")
    if version not in (1, 2):
        return raw
    engines = raw.get("engines")
    if version == 1 and isinstance(engines, list):
        engines = [_with_compute(engine) for engine in engines]
    return {**raw, "format_version": FORMAT_VERSION, "engines": engines}


def _with_compute(engine: Any) -> Any:
    if not isinstance(engine, dict):
        return engine
    return {"compute": "float32" if engine.get("precision") == "float32" else "int8", **engine}


# --- strict JSON -------------------------------------------------------------------------------


MAX_DIGITS = 20


def strict_json(data: bytes) -> Any:
    """UTF-8 JSON → Python values.

    Raises ValueError for anything else, for a key that comes twice, numbers that are not finite
    or have more than MAX_DIGITS digits before the point, lone surrogates, and nesting so deep
    that Python's own limit is met.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} comes twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:30]} is too large")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {text[:30]}… has more than {MAX_DIGITS} digits")
    return int(text)

"""A pretrained model of another toolkit as a bundle, in our own engines. Needs torch.

The model becomes a `Transformer` of the same weights (`training.pretrained` reads them) and is
written for ONNX Runtime: in the bytes that it came in where it was quantised, else in 7 bits; with
its lexicon as a shortlist of each sentence, if it has one. The gate holds every engine against the
float32 model in torch with the whole vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import sentencepiece as spm
import torch

from export.onnx import OnnxModelInfo, to_onnx
from export.quality_gate import EvalSet, GateSettings, check_bundle
from export.runtime.bundle import Bundle, now, own_version, pieces, write_bundle
from export.runtime.manifest import (
    ENGINES_FOLDER,
    TOKENIZER_FILE,
    BundleError,
    BundleInfo,
    Decoding,
    EngineEntry,
    Origin,
)
from export.runtime.shortlist import SHORTLIST_FILE, Shortlist
from export.verify import check_translates
from training.checkpoint import build_model
from training.config.recipe import GateLimits
from training.model.transformer import Transformer, parameter_count
from training.pretrained.base import PretrainedModel
from training.pretrained.coverage import missing_characters

SOURCE_TOKENIZER_FILE = "source_tokenizer.model"
MAX_INPUT_TOKENS = 128
OUTPUT_RATIO = 2.5
"""Most output tokens a source token, where the model's files do not set it."""
INT8_IDENTICAL = 0.7
"""Least share of an int8 engine's lines that are those of float32. Two other engines that compute
these models in int8, Bergamot and fxtranslate, have 78 to 81 %, on another text."""
IMPORT_LIMITS = GateLimits(int8_identical=INT8_IDENTICAL, bleu_loss=1.0)
ENGINES = ("onnx-int8", "onnx-float32")


@dataclass(frozen=True)
class ImportOptions:
    """What the files of a model do not tell. Languages are tags such as `pt` or `pt-BR`."""

    licence: str | None = None
    source: str | None = None
    target: str | None = None
    name: str | None = None
    attribution: str = ""
    version: str = "1"


def import_pretrained(
    model: PretrainedModel,
    out: Path,
    options: ImportOptions,
    engines: Sequence[str] = ENGINES[:1],
    gate_text: EvalSet | None = None,
    limits: GateLimits = IMPORT_LIMITS,
    force: bool = False,
) -> Bundle:
    """Write the bundle of a pretrained model at `out`; the first of `engines` is its default.

    The gate translates `gate_text`, or by default the built-in sentences of the source's language
    if there are any. Raises BundleError where something must be given, GateError where an engine
    is too far from the model; a former bundle then stays as it was.
    """
    transformer = to_transformer(model)
    info = _info(model, transformer, options, engines)
    text = gate_text or built_in_sentences(info.source_lang)
    settings = None
    if text is not None:
        settings = GateSettings(text, limits, force, "the imported weights in float32")

    def fill(draft: Path) -> None:
        (draft / TOKENIZER_FILE).write_bytes(model.tokenizer)
        if model.source_tokenizer is not None:
            (draft / SOURCE_TOKENIZER_FILE).write_bytes(model.source_tokenizer)
        for entry in info.engines:
            _write_engine(draft / entry.path, entry, model, transformer, info)

    def check(draft: Bundle) -> BundleInfo:
        if settings is None:
            return info
        gate = check_bundle(draft, transformer, settings)
        return info.model_copy(update={"gate": gate})

    return write_bundle(out, info, fill=fill, verify=check_translates, check=check)


def to_transformer(model: PretrainedModel) -> Transformer:
    """The model in torch, in float32, for evaluation."""
    source_table = model.state.get("source_embedding.weight")
    transformer = build_model(
        model.config,
        len(model.state["embedding.weight"]),
        None if source_table is None else len(source_table),
    )
    transformer.load_state_dict({name: torch.from_numpy(w) for name, w in model.state.items()})
    return transformer.eval()


def built_in_sentences(language: str) -> EvalSet | None:
    """The gate's own sentences in a language; None where there are none."""
    primary = language.split("-")[0]
    file = resources.files("export") / "gate_sentences" / f"{primary}.txt"
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8").splitlines()
    return EvalSet(f"built-in sentences ({primary})", lines)


# --- what the bundle says of itself ------------------------------------------------------------


def _info(
    model: PretrainedModel,
    transformer: Transformer,
    options: ImportOptions,
    engines: Sequence[str],
) -> BundleInfo:
    source, target = languages_of(model, options)
    if options.licence is None:
        raise BundleError(
            "the model's files do not tell its licence: give --licence "
            "(Mozilla publishes Firefox's models under MPL-2.0)"
        )
    entries = _entries(model, engines)
    room = transformer.max_length - 1
    own = model.source_tokenizer
    return BundleInfo(
        name=options.name or model.name,
        version=options.version,
        created=now(),
        quickstudy_version=own_version(),
        description=f"Imported: {model.format} model {model.name}.",
        source_lang=source,
        target_lang=target,
        engines=entries,
        default_engine=entries[0].name,
        decoding=Decoding(
            max_input_tokens=min(MAX_INPUT_TOKENS, room),
            max_output_ratio=min(model.max_length_factor or OUTPUT_RATIO, 10),
            max_output_tokens=room,
        ),
        vocab_size=transformer.vocab_size,
        parameters=parameter_count(transformer),
        licence=options.licence,
        attribution=options.attribution,
        source_tokenizer=None if own is None else SOURCE_TOKENIZER_FILE,
        source_vocab_size=None if own is None else len(_pieces(own)),
        source_prefix=model.source_prefix,
        missing_characters=missing_characters(own or model.tokenizer),
        recipe=None,
        origin=Origin(
            format=model.format,
            name=model.name,
            version=model.version or "",
            files=model.files,
            changes=_changes(model, entries),
        ),
    )


def _pieces(sentencepiece: bytes) -> list[str]:
    return pieces(spm.SentencePieceProcessor(model_proto=sentencepiece))


def languages_of(model: PretrainedModel, options: ImportOptions) -> tuple[str, str]:
    """Source and target, as given or as the files say. Raises BundleError where neither does."""
    source, target = (
        given or (told or "").replace("_", "-")
        for given, told in zip((options.source, options.target), model.languages, strict=True)
    )
    missing = [f"--{side}" for side, tag in (("source", source), ("target", target)) if not tag]
    if missing:
        raise BundleError(f"the model's files do not tell its languages: give {', '.join(missing)}")
    for tag in (source, target):
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", tag):
            raise BundleError(f"{tag[:40]!r} is no language tag: give one such as pt or pt-BR")
    return source, target


def _changes(model: PretrainedModel, entries: Sequence[EngineEntry]) -> tuple[str, ...]:
    changes = [
        "rows of the embeddings and of the output bias are in another order, with <pad> and <s> "
        "added, and the SentencePiece model lists its pieces in that order",
        "written for ONNX Runtime",
    ]
    if any(entry.precision == "int8" for entry in entries):
        changes.append(
            "weights keep their bytes, but rows whose products could overflow 16 bits on CPUs "
            "without VNNI are quantised again to 7 bits, a scale a row; activations are quantised "
            "a position at a time, with scales found while translating"
        )
    if any(entry.precision == "int8-7bit" for entry in entries):
        changes.append("weights are quantised to 7 bits, a scale a row")
    if any(entry.shortlist for entry in entries):
        changes.append("the lexicon gives candidates of each sentence instead of each batch")
    return tuple(changes)


# --- engines -------------------------------------------------------------------------------------


def _entries(model: PretrainedModel, engines: Sequence[str]) -> tuple[EngineEntry, ...]:
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines or len(set(engines)) != len(engines):
        raise BundleError(
            f"engines: {list(engines)}; of an imported model choose from {list(ENGINES)}, each once"
        )
    int8 = EngineEntry(
        name="onnx-int8",
        kind="onnx",
        precision="int8" if model.format == "firefox" else "int8-7bit",
        compute="int8",
        path=f"{ENGINES_FOLDER}/onnx-int8",
        shortlist=model.lexicon is not None,
    )
    float32 = EngineEntry(
        name="onnx-float32",
        kind="onnx",
        precision="float32",
        compute="float32",
        path=f"{ENGINES_FOLDER}/onnx-float32",
    )
    return tuple({"onnx-int8": int8, "onnx-float32": float32}[name] for name in engines)


PRECISIONS = {"int8": "int8-own", "int8-7bit": "int8", "float32": "float32"}
"""What `to_onnx` calls the manifest's precisions."""


def _write_engine(
    folder: Path,
    entry: EngineEntry,
    model: PretrainedModel,
    transformer: Transformer,
    info: BundleInfo,
) -> None:
    to_onnx(
        transformer,
        _pieces(model.tokenizer),
        folder,
        PRECISIONS[entry.precision],  # type: ignore[arg-type]
        OnnxModelInfo(info.name, info.source_lang, info.target_lang),
        shortlist=entry.shortlist,
    )
    if entry.shortlist and (lexicon := model.lexicon) is not None:
        shortlist = Shortlist(lexicon.offsets, lexicon.targets, lexicon.always)
        (folder / SHORTLIST_FILE).write_bytes(shortlist.to_bytes())

"""A pretrained model of another toolkit as a bundle, in our own engines. Needs torch.

The model becomes a `Transformer` of the same weights (`training.pretrained` reads them) and is
written for ONNX Runtime or our compiled engine: in the bytes that it came in where it was
quantised, else in bytes of our own; with its lexicon as a shortlist of each sentence, if it has
one. The gate holds every engine against the float32 model in torch with the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece as spm
from pydantic import ValidationError

from export.native import to_native
from export.onnx import OnnxModelInfo, to_onnx
from export.plausibility import language_fault
from export.quality_gate import GateSettings, check_bundle
from export.runtime.bundle import Bundle, now, own_version, pieces, write_bundle
from export.runtime.manifest import (
    ENGINES_FOLDER,
    SOURCE_TOKENIZER_FILE,
    TOKENIZER_FILE,
    BundleError,
    BundleInfo,
    Decoding,
    EngineEntry,
    Origin,
)
from export.runtime.shortlist import SHORTLIST_FILE, Shortlist
from export.verify import check_translates
from training.model.transformer import Transformer, parameter_count
from training.pretrained.base import PretrainedModel
from training.pretrained.coverage import missing_characters
from training.transfer import to_transformer

MAX_INPUT_TOKENS = 128
OUTPUT_RATIO = 2.5
"""Most output tokens a source token, where the model's files do not set it."""
ENGINES = ("onnx-int8", "onnx-float32", "onnx-float32-shortlist", "native-int8")
DEFAULT_ENGINES = ("onnx-int8",)


@dataclass(frozen=True)
class Facts:
    """What a bundle says of a model beside what its files do: languages, licence, name."""

    source: str
    target: str
    licence: str
    name: str
    attribution: str = ""


def import_pretrained(
    model: PretrainedModel,
    out: Path,
    facts: Facts,
    engines: Sequence[str] = (),
    gate_settings: GateSettings | None = None,
) -> Bundle:
    """Write the bundle of a pretrained model at `out`; the first of `engines` is its default.

    Without `engines`, int8 as an ONNX graph, which the compiled engine computes, too.

    Raises BundleError for an unknown engine, for translations that are not in the target language,
    and for facts that no manifest can hold, GateError where an engine is further from the model
    than the gate allows; a former bundle then stays as it was.
    """
    transformer = to_transformer(model)
    entries = _entries(model, engines or DEFAULT_ENGINES)
    info = _info(model, transformer, facts, entries)

    def fill(draft: Path) -> None:
        (draft / TOKENIZER_FILE).write_bytes(model.tokenizer)
        if model.source_tokenizer is not None:
            (draft / SOURCE_TOKENIZER_FILE).write_bytes(model.source_tokenizer)
        for entry in info.engines:
            _write_engine(draft / entry.path, entry, model, transformer, info)

    def check(draft: Bundle) -> BundleInfo:
        if gate_settings is None:
            return info
        fault = language_fault(draft, gate_settings.held_out.src)
        if fault and not gate_settings.force:
            raise BundleError(f"{fault}. --force imports it all the same")
        gate = check_bundle(draft, transformer, gate_settings)
        return info.model_copy(update={"gate": gate})

    return write_bundle(out, info, fill=fill, verify=check_translates, check=check)


# --- what the bundle says of itself ------------------------------------------------------------


def _info(
    model: PretrainedModel,
    transformer: Transformer,
    facts: Facts,
    entries: tuple[EngineEntry, ...],
) -> BundleInfo:
    room = transformer.max_length - 1
    own = model.source_tokenizer
    try:
        return _bundle_info(model, transformer, facts, entries, room, own)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
        raise BundleError(f"the bundle cannot say this: {'; '.join(faults)}") from None


def _bundle_info(
    model: PretrainedModel,
    transformer: Transformer,
    facts: Facts,
    entries: tuple[EngineEntry, ...],
    room: int,
    own: bytes | None,
) -> BundleInfo:
    return BundleInfo(
        name=facts.name,
        created=now(),
        quickstudy_version=own_version(),
        description=f"Imported: {model.format} model {model.name}.",
        source_lang=facts.source,
        target_lang=facts.target,
        engines=entries,
        default_engine=entries[0].name,
        decoding=Decoding(
            max_input_tokens=min(MAX_INPUT_TOKENS, room - len(model.source_prefix)),
            max_output_ratio=min(model.max_length_factor or OUTPUT_RATIO, 10),
            max_output_tokens=room,
        ),
        vocab_size=transformer.vocab_size,
        parameters=parameter_count(transformer),
        licence=facts.licence,
        attribution=facts.attribution,
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


KINDS = {"onnx": "ONNX Runtime", "native": "Quickstudy's native engine"}


def _changes(model: PretrainedModel, entries: Sequence[EngineEntry]) -> tuple[str, ...]:
    changes = [
        "rows of the embeddings and of the output bias are in another order, with <pad> and <s> "
        "added, and the SentencePiece model lists its pieces in that order",
    ]
    kinds = {entry.kind: KINDS[entry.kind] for entry in entries}
    changes.append(f"written for {' and '.join(kinds.values())}")
    if any(entry.precision == "int8" for entry in entries):
        changes.append(
            "weights keep the bytes that they came in, if they did, but rows whose products could "
            "overflow 16 bits on CPUs without VNNI are quantised again, a scale a row; activations "
            "are quantised a position at a time, with scales found while translating"
        )
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
    if "onnx-float32-shortlist" in engines and model.lexicon is None:
        raise BundleError("engines: onnx-float32-shortlist needs a lexicon, and the model has none")
    return tuple(_entry(name, model) for name in engines)


def _entry(name: str, model: PretrainedModel) -> EngineEntry:
    own = name in ("onnx-int8", "native-int8")
    return EngineEntry(
        name=name,
        kind="native" if name == "native-int8" else "onnx",
        precision="int8" if own else "float32",
        compute="int8" if own else "float32",
        path=f"{ENGINES_FOLDER}/{name}",
        shortlist=model.lexicon is not None if own else name.endswith("-shortlist"),
    )


def _write_engine(
    folder: Path,
    entry: EngineEntry,
    model: PretrainedModel,
    transformer: Transformer,
    info: BundleInfo,
) -> None:
    names = _pieces(model.tokenizer)
    if entry.kind == "native":
        to_native(transformer, names, folder)
    else:
        to_onnx(
            transformer,
            names,
            folder,
            entry.precision,  # type: ignore[arg-type]
            OnnxModelInfo(info.name, info.source_lang, info.target_lang),
            shortlist=entry.shortlist,
            packed=entry.precision != "float32",
        )
    if entry.shortlist and (lexicon := model.lexicon) is not None:
        shortlist = Shortlist(lexicon.offsets, lexicon.targets, lexicon.always)
        (folder / SHORTLIST_FILE).write_bytes(shortlist.to_bytes())

"""From a trained model to a bundle that has been shown to translate. Needs torch.

`ENGINE_EXPORTERS` lists the engines that a bundle may hold; a new one is an entry there.
`upgrade_bundle` writes a bundle again from its own weights, in today's format or with other
engines.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentencepiece as spm
import torch

from export.ctranslate2 import (
    VMAP_FILE,
    ctranslate2_fault,
    from_ctranslate2,
    to_ctranslate2,
    write_vmap,
)
from export.lent_lexicon import LentLexicon
from export.lexical_shortlist import SHORTLIST_ALWAYS, SHORTLIST_CANDIDATES, lexical_shortlist
from export.native import to_native
from export.onnx import OnnxModelInfo, to_onnx
from export.quality_gate import (
    EvalSet,
    GateSettings,
    ScoreParity,
    check_bundle,
    check_scores,
    score_parity,
)
from export.quantization import on_coarser_grid
from export.runtime.bundle import Bundle, load_bundle, now, own_version, write_bundle
from export.runtime.manifest import (
    ENGINES_FOLDER,
    FORMAT_VERSION,
    RECIPE_FILE,
    SOURCE_TOKENIZER_FILE,
    TOKENIZER_FILE,
    BundleError,
    BundleInfo,
    Decoding,
    EngineEntry,
    FormalityTags,
    Metric,
)
from export.runtime.shortlist import SHORTLIST_FILE
from export.verify import SAMPLES, check_translates
from training.config.recipe import GateLimits
from training.data.lexical_table import (
    LexicalTable,
    NoSentencesError,
    Sentence,
    lexical_table,
)
from training.model.transformer import Transformer, parameter_count
from training.pretrained.coverage import missing_characters

TranslatedText = Callable[[], Iterable[Sentence]]
"""(source ids, translation's ids) of every training pair, without special tokens."""


@dataclass(frozen=True)
class ExportJob:
    """What an engine is exported from: the model, the target's and the source's pieces in the
    order of their ids, the manifest's content, and the translated text and the lexicon that
    shortlists are made from."""

    model: Transformer
    pieces: list[str]
    source_pieces: list[str]
    info: BundleInfo
    translated_text: TranslatedText | None = None
    lexicon: LentLexicon | None = None


@dataclass(frozen=True)
class EngineExporter:
    """An engine as the manifest names it, and what writes its folder. Engines that name the same
    folder share what the first of them writes; `add` writes what only this one needs."""

    entry: EngineEntry
    write: Callable[[ExportJob, Path], None]
    add: Callable[[ExportJob, Path], None] | None = None
    own_folder: str | None = None
    """Its folder for a model that CTranslate2 cannot compute, where that is another one."""

    def entry_for(self, model: Transformer) -> EngineEntry:
        """What the manifest says of the engine."""
        if self.own_folder is None or ctranslate2_fault(model) is None:
            return self.entry
        return self.entry.model_copy(update={"path": self.own_folder, "precision": "int8"})

    def export(self, job: ExportJob, draft: Path) -> None:
        """Write the engine into a bundle's folder."""
        folder = draft / self.entry_for(job.model).path
        if not folder.exists():
            self.write(job, folder)
        if self.add is not None:
            self.add(job, folder)


def _ctranslate2_float32(job: ExportJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "float32")


def _ctranslate2_int8(job: ExportJob, folder: Path) -> None:
    to_ctranslate2(job.model, job.pieces, folder, "int8")


def _translated_text(job: ExportJob) -> Iterable[Sentence]:
    if job.translated_text is None:
        raise BundleError(
            "a shortlist is made from translated text, and there is none: export from a recipe "
            "whose text is there"
        )
    return job.translated_text()


def _lexical_table(job: ExportJob) -> LexicalTable:
    try:
        return lexical_table(_translated_text(job), job.model.vocab_size)
    except NoSentencesError:
        raise BundleError(
            "a shortlist needs translated sentences: run the `label` stage first"
        ) from None


def _vmap(job: ExportJob, folder: Path) -> None:
    table = _lexical_table(job)
    write_vmap(folder / VMAP_FILE, table, job.pieces, SHORTLIST_CANDIDATES, SHORTLIST_ALWAYS)


def _native_int8(job: ExportJob, folder: Path) -> None:
    if ctranslate2_fault(job.model) is None:
        _ctranslate2_int8(job, folder)
    else:
        to_native(job.model, job.pieces, folder)


def _onnx_int8_shortlist(job: ExportJob, folder: Path) -> None:
    info = _model_info(job.info)
    to_onnx(job.model, job.pieces, folder, "int8", info, shortlist=True, packed=True)
    words = lexical_shortlist(
        _lexical_table(job), _translated_text(job), job.source_pieces, job.pieces, job.lexicon
    )
    (folder / SHORTLIST_FILE).write_bytes(words.to_bytes())


def _onnx_float32(job: ExportJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "float32", _model_info(job.info))


def _onnx_int8(job: ExportJob, folder: Path) -> None:
    to_onnx(job.model, job.pieces, folder, "int8", _model_info(job.info), packed=True)


def _onnx_int8_beam(job: ExportJob, folder: Path) -> None:
    info = _model_info(job.info)
    to_onnx(job.model, job.pieces, folder, "int8", info, ("greedy", "beam"), packed=True)


def _model_info(info: BundleInfo) -> OnnxModelInfo:
    return OnnxModelInfo(info.name, info.source_lang, info.target_lang)


ENGINE_EXPORTERS = {
    exporter.entry.name: exporter
    for exporter in (
        EngineExporter(
            EngineEntry(
                name="ctranslate2-int8",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        EngineExporter(
            EngineEntry(
                name="ctranslate2-int8-float32",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _ctranslate2_int8,
        ),
        EngineExporter(
            EngineEntry(
                name="ctranslate2-int8-shortlist",
                kind="ctranslate2",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
                shortlist=True,
            ),
            _ctranslate2_int8,
            add=_vmap,
        ),
        EngineExporter(
            EngineEntry(
                name="native-int8",
                kind="native",
                precision="int8-7bit",
                compute="int8",
                path=f"{ENGINES_FOLDER}/ctranslate2-int8",
            ),
            _native_int8,
            own_folder=f"{ENGINES_FOLDER}/native-int8",
        ),
        EngineExporter(
            EngineEntry(
                name="ctranslate2-float32",
                kind="ctranslate2",
                precision="float32",
                compute="float32",
                path=f"{ENGINES_FOLDER}/ctranslate2-float32",
            ),
            _ctranslate2_float32,
        ),
        EngineExporter(
            EngineEntry(
                name="onnx-int8",
                kind="onnx",
                precision="int8",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8",
            ),
            _onnx_int8,
        ),
        EngineExporter(
            EngineEntry(
                name="onnx-int8-shortlist",
                kind="onnx",
                precision="int8",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8-shortlist",
                shortlist=True,
            ),
            _onnx_int8_shortlist,
        ),
        EngineExporter(
            EngineEntry(
                name="onnx-int8-beam",
                kind="onnx",
                precision="int8",
                compute="int8",
                path=f"{ENGINES_FOLDER}/onnx-int8-beam",
            ),
            _onnx_int8_beam,
        ),
        EngineExporter(
            EngineEntry(
                name="onnx-float32",
                kind="onnx",
                precision="float32",
                compute="float32",
                path=f"{ENGINES_FOLDER}/onnx-float32",
            ),
            _onnx_float32,
        ),
    )
}


def engine_names() -> list[str]:
    """The name of every engine that a bundle can have."""
    return list(ENGINE_EXPORTERS)


def exporters_of(names: Sequence[str]) -> list[EngineExporter]:
    """The exporters of the engines named, each once. Raises BundleError for anything else."""
    unknown = [name for name in names if name not in ENGINE_EXPORTERS]
    if unknown or not names or len(set(names)) != len(names):
        raise BundleError(
            f"engines: {list(names)}; choose from {sorted(ENGINE_EXPORTERS)}, each once"
        )
    return [ENGINE_EXPORTERS[name] for name in names]


def export_bundle(
    *,
    model: Transformer,
    tokenizer_path: Path,
    source_tokenizer_path: Path | None = None,
    recipe_text: str,
    out: Path,
    name: str,
    version: str = "1",
    source_lang: str,
    target_lang: str,
    engines: Sequence[str] = ("ctranslate2-int8",),
    licence: str,
    attribution: str,
    description: str,
    metrics: Iterable[Metric] = (),
    beam_size: int = 1,
    coarser_embeddings: float = 1.0,
    max_input_tokens: int = 128,
    held_out: EvalSet | None = None,
    limits: GateLimits | None = None,
    force: bool = False,
    translated_text: TranslatedText | None = None,
    lexicon: LentLexicon | None = None,
    formality: FormalityTags | None = None,
    reads_fragments: bool = False,
    missing: str | None = None,
) -> Bundle:
    """Write the bundle of a model at `out`; the first of `engines` is its default engine.

    `source_tokenizer_path` is the source's, where it has one of its own. `engines` are names in
    `ENGINE_EXPORTERS`; `translated_text` is what a shortlist is made from, and `lexicon`, that of
    the model that this one started from, if it has one; `reads_fragments` says that the model has
    learnt text that no mark ends; `formality` are the tags that its sources were trained with.
    Embeddings of int8 engines have steps `coarser_embeddings` times as large.
    Before the bundle takes its place, the scores of a float32 engine are held against torch, every
    engine has translated, and none is further from torch on `held_out` than `limits` allow (`force`
    publishes it all the same and records it; without `held_out` nothing is compared). Raises
    BundleError, saying what to do; a former bundle then stays as it was.
    """
    exporters = exporters_of(engines)
    info = BundleInfo(
        name=name,
        version=version,
        created=now(),
        quickstudy_version=own_version(),
        description=description,
        source_lang=source_lang,
        target_lang=target_lang,
        engines=tuple(exporter.entry_for(model) for exporter in exporters),
        default_engine=exporters[0].entry.name,
        decoding=_decoding(model, max_input_tokens, beam_size),
        vocab_size=len(pieces_of(tokenizer_path)),
        parameters=parameter_count(model),
        metrics=tuple(metrics),
        licence=licence,
        attribution=attribution,
        formality=formality,
        reads_fragments=reads_fragments,
        **_source_side(source_tokenizer_path, missing),
    )
    gate_settings = GateSettings(held_out, limits or GateLimits(), force) if held_out else None
    return write_engines(
        model,
        tokenizer_path,
        recipe_text,
        Path(out),
        info,
        gate_settings,
        translated_text,
        source_tokenizer_path,
        lexicon,
        coarser_embeddings,
    )


def _source_side(tokenizer_path: Path | None, missing: str | None) -> dict[str, Any]:
    """What the manifest says of a source tokenizer of its own, and of what the source lacks."""
    if tokenizer_path is None:
        return {} if missing is None else {"missing_characters": missing}
    lacks = missing_characters(tokenizer_path.read_bytes()) if missing is None else missing
    return {
        "source_tokenizer": SOURCE_TOKENIZER_FILE,
        "source_vocab_size": len(pieces_of(tokenizer_path)),
        "missing_characters": lacks,
    }


def write_engines(
    model: Transformer,
    tokenizer_path: Path,
    recipe_text: str,
    out: Path,
    info: BundleInfo,
    gate_settings: GateSettings | None,
    translated_text: TranslatedText | None = None,
    source_tokenizer_path: Path | None = None,
    lexicon: LentLexicon | None = None,
    coarser_embeddings: float = 1.0,
) -> Bundle:
    """Write the engines that `info` names, and all else, as a bundle at `out`.

    The scores of a model that CTranslate2 cannot compute are not held against torch. Raises as
    `export_bundle` does.
    """
    model.eval()
    pieces = pieces_of(tokenizer_path)
    if ctranslate2_fault(model) is None:
        check_scores(engine_parity(model, tokenizer_path))

    def fill(draft: Path) -> None:
        shutil.copyfile(tokenizer_path, draft / TOKENIZER_FILE)
        if source_tokenizer_path is not None:
            shutil.copyfile(source_tokenizer_path, draft / SOURCE_TOKENIZER_FILE)
        (draft / RECIPE_FILE).write_text(recipe_text, encoding="utf-8")
        source = pieces_of(source_tokenizer_path) if source_tokenizer_path else pieces
        job = ExportJob(model, pieces, source, info, translated_text, lexicon)
        int8 = replace(job, model=_with_coarser_embeddings(model, coarser_embeddings))
        for exporter in exporters_of([engine.name for engine in info.engines]):
            exporter.export(int8 if exporter.entry.precision == "int8" else job, draft)

    def check(draft: Bundle) -> BundleInfo:
        if gate_settings is None:
            return info
        gate = check_bundle(draft, model, gate_settings)
        return info.model_copy(update={"gate": gate})

    return write_bundle(out, info, fill=fill, verify=check_translates, check=check)


def _with_coarser_embeddings(model: Transformer, factor: float) -> Transformer:
    """The model with embeddings on a coarser grid; itself for a factor of 1."""
    if factor == 1:
        return model
    coarser = copy.deepcopy(model)
    for table in (coarser.embedding, coarser.source_embedding):
        if table is not None:
            rounded = on_coarser_grid(table.weight.detach().numpy(), factor)
            table.weight.data.copy_(torch.from_numpy(rounded))
    return coarser


def pieces_of(tokenizer_path: Path) -> list[str]:
    """The pieces of a SentencePiece model in the order of their ids."""
    if not Path(tokenizer_path).is_file():
        raise BundleError(f"there is no tokenizer at {tokenizer_path}: run the tokenize stage")
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    return [tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())]


def engine_parity(
    model: Transformer, tokenizer_path: Path, samples: Sequence[str] = SAMPLES
) -> ScoreParity:
    """Log-probabilities of a throw-away float32 engine against torch: each sample given itself."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    pieces = pieces_of(tokenizer_path)
    ids = [tokenizer.encode(sample)[: model.max_length - 1] for sample in samples]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "float32"
        to_ctranslate2(model, pieces, folder, "float32")
        return score_parity(model, pieces, folder, ids, ids)


def _decoding(model: Transformer, max_input_tokens: int, beam_size: int) -> Decoding:
    room = model.max_length - 1  # EOS follows the source, BOS comes before the target
    if max_input_tokens > room:
        raise BundleError(
            f"export.max_input_tokens is {max_input_tokens}, but the model has {model.max_length} "
            f"positions: set it to {room} or less"
        )
    return Decoding(beam_size=beam_size, max_input_tokens=max_input_tokens, max_output_tokens=room)


# --- upgrading ---------------------------------------------------------------------------------


def upgrade_bundle(
    path: Path,
    out: Path,
    engines: Sequence[str] | None = None,
    gate_settings: GateSettings | None = None,
) -> Bundle:
    """Write a bundle in today's format at `out`, which may be `path`, with the engines named.

    The weights are those of its CTranslate2 engine, float32 where it has one, else 7-bit; the first
    engine is the default one; default: the engines it has. Scores of engines that stay are kept.
    Raises BundleError where it has no CTranslate2 engine and for an unknown engine, GateError where
    an engine is worse than the weights in torch.
    """
    bundle = load_bundle(path)
    former = bundle.manifest
    names = list(engines or (engine.name for engine in former.engines))
    exporters = exporters_of(names)
    fields = {name: getattr(former, name) for name in BundleInfo.model_fields}
    info = BundleInfo(
        **{
            **fields,
            "format_version": FORMAT_VERSION,
            "created": now(),
            "quickstudy_version": own_version(),
            "engines": tuple(exporter.entry for exporter in exporters),
            "default_engine": names[0],
            "gate": None,
        }
    )
    return write_engines(
        from_ctranslate2(weights_of(bundle)),
        bundle.tokenizer_path,
        bundle.recipe_text(),
        Path(out),
        info,
        gate_settings,
    )


def reference_of(path: Path) -> str:
    """What the engines of an upgraded bundle are held against, in words."""
    source = _source(load_bundle(path))
    return "the former bundle's " + ("float32" if source.exact else "7-bit") + " weights"


def weights_of(bundle: Bundle) -> Path:
    """The folder of the CTranslate2 model whose weights are nearest to the model's.

    Raises BundleError where there is none.
    """
    return bundle.path / _source(bundle).path


def _source(bundle: Bundle) -> EngineEntry:
    """The engine whose weights are nearest to the model's."""
    if bundle.manifest.origin is not None:
        raise BundleError(
            f"{bundle.path} holds an imported model as it was: "
            "import it again instead, with the options that you want"
        )
    usable = [engine for engine in bundle.manifest.engines if engine.kind == "ctranslate2"]
    if not usable:
        raise BundleError(
            f"{bundle.path} has no CTranslate2 engine to take the weights from: "
            "export it from its checkpoint"
        )
    return min(usable, key=lambda engine: not engine.exact)

"""Bundles of other people's CTranslate2 models, as they are: folders and Argos packages. No torch.

Files are copied, not changed. A bundle takes its place only once its model is known to the last
variable (`export.runtime.foreign_ctranslate2`), its SentencePiece models fit its vocabularies, and
every engine has translated.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sentencepiece as spm
from pydantic import ValidationError

from export.argos_package import MODEL_FOLDER, SENTENCEPIECE_FILE, TEXT_FILES, open_argos
from export.licences import MAX_TEXT_BYTES, licence_of
from export.runtime.bundle import (
    CHUNK_BYTES,
    Bundle,
    now,
    open_plain,
    own_version,
    read_sentencepiece,
    text_pieces,
    write_bundle,
)
from export.runtime.foreign_ctranslate2 import (
    LANGUAGE_TOKEN,
    LOST_LANGUAGE,
    ForeignModel,
    check_framing,
    check_room,
    framing_of,
    read_foreign_model,
)
from export.runtime.manifest import (
    ENGINES_FOLDER,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    QUANTISED,
    TOKENIZER_FILE,
    BundleError,
    BundleInfo,
    Compute,
    Decoding,
    EngineEntry,
    GateRecord,
    Origin,
    Precision,
    SourceFormat,
    SpecialTokens,
    printable,
)
from export.verify import check_translates

MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS = 128, 512
"""Where a model's positions set no lower ones."""
SOURCE_TOKENIZER_FILE = "source.model"
ORIGIN_FOLDER = "origin"
SENTENCEPIECE_NAME = re.compile(
    r".*\.spm|sentencepiece.*\.model|spm.*\.model|.*[._-]spm\.model|tokenizer\.model"
)
SOURCE_SPM, TARGET_SPM = "source.spm", "target.spm"
MIN_SHARED_PIECES = 0.5
"""Share of a tokenizer's pieces that its vocabulary has, if the two belong together."""
PADDING = ("<pad>", "<blank>")
COMMON_CHARACTERS = "".join(map(chr, range(0x21, 0x7F))) + "“”‘’„«»–—…€°"
VMAP_FILE = "vmap.txt"

Gate = Callable[[Bundle], GateRecord]


def import_ctranslate2(
    path: Path,
    out: Path,
    *,
    source: str,
    target: str,
    sentencepiece: Path | None = None,
    target_sentencepiece: Path | None = None,
    licence: str | None = None,
    name: str | None = None,
    description: str | None = None,
    attribution: str = "",
    source_prefix: Sequence[str] = (),
    source_suffix: Sequence[str] = (),
    target_prefix: Sequence[str] = (),
    beam_size: int = 1,
    gate: Gate | None = None,
) -> Bundle:
    """Write a bundle of a CTranslate2 folder at `out`; the folder stays as it is.

    `sentencepiece` is the model of the source, and of the target if that has none of its own; by
    default they are looked for in the folder. Prefixes and the suffix are tokens, such as
    languages; an empty `source_suffix` stands for what the model was trained with. The licence is
    read from README or LICENSE if it is not given. `gate` judges the bundle before it takes its
    place. Raises BundleError, saying what to do; a former bundle then stays as it was.
    """
    folder = Path(path)
    names = _names(folder)
    tokenizers = _tokenizers(folder, names, sentencepiece, target_sentencepiece)
    texts = [folder / text for text in TEXT_FILES if text in names]
    request = ImportRequest(
        folder=folder,
        names=names,
        format="ctranslate2",
        name=name or _name_of(folder.resolve().name, source, target),
        origin_name=folder.resolve().name,
        source=source,
        target=target,
        source_spm=tokenizers[0],
        target_spm=tokenizers[1],
        texts=tuple(texts),
        licence=licence or _licence(folder, licence_of(texts)),
        description=description,
        attribution=attribution,
        source_prefix=tuple(source_prefix),
        source_suffix=tuple(source_suffix),
        target_prefix=tuple(target_prefix),
        beam_size=beam_size,
    )
    return _write(request, out, gate)


def import_argos(
    path: Path,
    out: Path,
    *,
    source: str | None = None,
    target: str | None = None,
    licence: str | None = None,
    name: str | None = None,
    description: str | None = None,
    attribution: str = "",
    source_prefix: Sequence[str] = (),
    target_prefix: Sequence[str] = (),
    beam_size: int = 1,
    gate: Gate | None = None,
) -> Bundle:
    """Write a bundle of an Argos Translate package, a file or its unpacked folder, at `out`.

    Languages, version and target prefix are the package's unless they are given; all else is as
    for `import_ctranslate2`. Raises BundleError, saying what to do.
    """
    with open_argos(path) as package:
        source = source or package.text("from_code")
        target = target or package.text("to_code")
        if not source or not target:
            raise BundleError(f"{path} does not say its languages: give --source and --target")
        folder = package.folder / MODEL_FOLDER
        texts = [package.folder / text for text in TEXT_FILES if text in package.files]
        own_prefix = package.text("target_prefix")
        spm_path = package.folder / SENTENCEPIECE_FILE
        request = ImportRequest(
            folder=folder,
            names=_names(folder),
            format="argos",
            name=name or f"argos-{source}-{target}",
            origin_name=Path(path).resolve().name,
            version=package.text("package_version"),
            source=source,
            target=target,
            source_spm=spm_path,
            target_spm=spm_path,
            texts=tuple(texts),
            licence=licence or _licence(Path(path), licence_of(texts, package.metadata)),
            description=description,
            attribution=attribution,
            source_prefix=tuple(source_prefix),
            target_prefix=tuple(target_prefix) or ((own_prefix,) if own_prefix else ()),
            beam_size=beam_size,
        )
        return _write(request, out, gate)


@dataclass(frozen=True)
class ImportRequest:
    """A model to import: its folder and the names in it, its tokenizers, and what was asked for."""

    folder: Path
    names: frozenset[str]
    format: SourceFormat
    name: str
    origin_name: str
    source: str
    target: str
    source_spm: Path
    target_spm: Path
    texts: tuple[Path, ...]
    licence: str
    description: str | None
    attribution: str = ""
    version: str = ""
    source_prefix: tuple[str, ...] = ()
    source_suffix: tuple[str, ...] = ()
    target_prefix: tuple[str, ...] = ()
    beam_size: int = 1


@dataclass(frozen=True)
class CopiedFile:
    """A file, its path in the bundle, and its SHA-256 when it was read."""

    path: Path
    target: str
    sha256: str


# --- the bundle --------------------------------------------------------------------------------


def _write(request: ImportRequest, out: Path, gate: Gate | None) -> Bundle:
    model = read_foreign_model(request.folder, request.names)
    source, target = (read_sentencepiece(p) for p in (request.source_spm, request.target_spm))
    _check_fit(source, model.source_vocabulary, request.source_spm)
    _check_fit(target, model.target_vocabulary, request.target_spm)
    engines = _engines(model.variables.precision)
    copies = _copies(request, model, engines[0].path)
    info = _info(request, model, engines, copies, _missing_characters(source, model))

    def fill(draft: Path) -> None:
        for copy in copies:
            _copy(copy, draft / copy.target)

    def check(draft: Bundle) -> BundleInfo:
        return info if gate is None else info.model_copy(update={"gate": gate(draft)})

    return write_bundle(out, info, fill=fill, verify=check_translates, check=check)


def _engines(precision: Precision) -> tuple[EngineEntry, ...]:
    """As CTranslate2 computes with such weights by default; and, for integers, in float32."""
    name = f"ctranslate2-{precision}"

    def entry(ending: str, compute: Compute) -> EngineEntry:
        return EngineEntry(
            name=name + ending,
            kind="ctranslate2",
            precision=precision,
            compute=compute,
            path=f"{ENGINES_FOLDER}/{name}",
        )

    exact = (entry("-float32", "float32"),) if precision in QUANTISED else ()
    return (entry("", "default"), *exact)


def _copies(request: ImportRequest, model: ForeignModel, engine: str) -> tuple[CopiedFile, ...]:
    """Every file that the bundle takes over."""
    paths = {request.folder / name: f"{engine}/{name}" for name in model.files}
    paths[request.target_spm] = TOKENIZER_FILE
    if not _same_tokenizer(request):
        paths[request.source_spm] = SOURCE_TOKENIZER_FILE
    for text in request.texts:
        if text.lstat().st_size <= MAX_TEXT_BYTES:
            paths[text] = f"{ORIGIN_FOLDER}/{text.name}"
    total = sum(path.lstat().st_size for path in paths)
    if total > MAX_TOTAL_BYTES:
        raise BundleError(f"{request.folder} has {total:,} bytes, {MAX_TOTAL_BYTES:,} are served")
    return tuple(CopiedFile(path, target, _sha256(path)) for path, target in paths.items())


def _same_tokenizer(request: ImportRequest) -> bool:
    source, target = request.source_spm, request.target_spm
    return source == target or _sha256(source) == _sha256(target)


def _sha256(path: Path) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(copy: CopiedFile, target: Path) -> None:
    """Copy a file. Raises BundleError if it is not what it was when it was read first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open_plain(copy.path) as file, target.open("xb") as out:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != copy.sha256:
        raise BundleError(f"{copy.path} was changed while it was read: import it again")


def _info(
    request: ImportRequest,
    model: ForeignModel,
    engines: tuple[EngineEntry, ...],
    copies: tuple[CopiedFile, ...],
    missing_characters: str,
) -> BundleInfo:
    """What the manifest says. Raises BundleError where a prefix or a name cannot be used."""
    suffix = request.source_suffix
    if not suffix and model.needs_source_eos:
        suffix = (model.config.eos,)
    joint = model.source_vocabulary == model.target_vocabulary
    try:
        info = BundleInfo(
            name=request.name,
            version=request.version or "1",
            created=now(),
            quickstudy_version=own_version(),
            description=request.description or f"{request.origin_name}, imported as it was.",
            source_lang=request.source,
            target_lang=request.target,
            engines=engines,
            default_engine=engines[0].name,
            decoding=Decoding(beam_size=request.beam_size),
            special_tokens=_special_tokens(model),
            vocab_size=len(model.target_vocabulary),
            parameters=model.variables.parameters,
            licence=request.licence,
            attribution=_attribution(request),
            source_tokenizer=None if _same_tokenizer(request) else SOURCE_TOKENIZER_FILE,
            source_vocab_size=None if joint else len(model.source_vocabulary),
            source_prefix=request.source_prefix,
            source_suffix=suffix,
            target_prefix=request.target_prefix,
            missing_characters=missing_characters,
            recipe=None,
            origin=_origin(request, copies),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{where}: {printable(first['msg'])}") from error
    return _with_room(info, request, model)


def _with_room(info: BundleInfo, request: ImportRequest, model: ForeignModel) -> BundleInfo:
    """The info with the lengths that the model's positions leave room for."""
    try:
        check_framing(model, info)
        _check_languages(model, info)
        framing = framing_of(model, info, ())
        rooms = model.variables.positions
        longest_in = min(MAX_INPUT_TOKENS, (rooms["encoder"] or 1 << 16) - framing.added)
        reserved = len(info.target_prefix) + 1
        longest_out = min(MAX_OUTPUT_TOKENS, (rooms["decoder"] or 1 << 16) - reserved)
        if min(longest_in, longest_out) < 8:
            raise ValueError(f"it takes {longest_in} tokens and gives {longest_out}, 8 are needed")
        decoding = Decoding(
            beam_size=info.decoding.beam_size,
            max_input_tokens=longest_in,
            max_output_tokens=longest_out,
        )
        info = info.model_copy(update={"decoding": decoding})
        check_room(model, info)
    except ValueError as error:
        shown = printable(str(request.folder))
        raise BundleError(f"{shown} cannot be served like this: {error}") from error
    return info


def _check_languages(model: ForeignModel, info: BundleInfo) -> None:
    """A model of many languages has to be told which one to write.

    M2M100's converter takes the languages from Transformers, which since version 5 does not list
    them; fillers then have their places.
    """
    if model.lost_languages:
        raise ValueError(
            f"its vocabulary has {LOST_LANGUAGE} where M2M100 has its languages: convert it again "
            "with Transformers 4"
        )
    if not model.needs_target_language or info.target_prefix:
        return
    languages = [token for token in model.target_vocabulary if LANGUAGE_TOKEN.fullmatch(token)]
    shown = ", ".join(languages[:5])
    raise ValueError(
        f"its vocabulary has {len(languages)} languages ({shown} …): give --source-prefix and "
        "--target-prefix with the languages as they are written there"
    )


def _special_tokens(model: ForeignModel) -> SpecialTokens:
    present = [token for token in PADDING if token in model.target_vocabulary]
    config = model.config
    return SpecialTokens(
        pad=present[0] if present else PADDING[0], unk=config.unk, bos=config.bos, eos=config.eos
    )


def _origin(request: ImportRequest, copies: tuple[CopiedFile, ...]) -> Origin:
    changes: tuple[str, ...] = ()
    files: dict[str, str] = {}
    for copy in copies:
        name = _origin_path(copy.path, request)
        files[copy.target if name in files else name] = copy.sha256
    if VMAP_FILE in request.names:
        changes = (f"{VMAP_FILE} was left out: with it, sentences depend on what shares a batch",)
    return Origin(
        format=request.format,
        name=printable(request.origin_name)[:200] or request.name,
        version=request.version,
        files=files,
        changes=changes,
    )


def _origin_path(path: Path, request: ImportRequest) -> str:
    """How the file was called there; a tokenizer that lay elsewhere, by its own name."""
    top = request.folder.parent if request.format == "argos" else request.folder
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name


def _attribution(request: ImportRequest) -> str:
    names = ", ".join(text.name for text in request.texts)
    own = f"What came with it is in `{ORIGIN_FOLDER}/`: {names}." if names else ""
    return "\n\n".join(filter(None, (request.attribution, own)))


def _missing_characters(tokenizer: spm.SentencePieceProcessor, model: ForeignModel) -> str:
    """Common characters that the source side cannot read."""
    vocabulary = set(model.source_vocabulary)
    readings = tokenizer.encode(list(COMMON_CHARACTERS), out_type=str)
    return "".join(
        character
        for character, tokens in zip(COMMON_CHARACTERS, readings, strict=True)
        if not all(token in vocabulary or token == "▁" for token in tokens)
    )


# --- the folder --------------------------------------------------------------------------------


def _names(folder: Path) -> frozenset[str]:
    """The files right in a folder; what lies deeper is not read."""
    if not folder.is_dir():
        kind = "is a file: give the folder of a CTranslate2 model" if folder.is_file() else ""
        raise BundleError(f"{folder} {kind or 'is no folder: give that of a CTranslate2 model'}")
    with os.scandir(folder) as entries:
        names = frozenset(e.name for e in islice(entries, MAX_FILES + 1) if not e.is_dir())
    if len(names) > MAX_FILES:
        raise BundleError(f"{folder} holds over {MAX_FILES} files: give a folder of one model's")
    return names


def _tokenizers(
    folder: Path, names: Collection[str], source: Path | None, target: Path | None
) -> tuple[Path, Path]:
    """The SentencePiece models of source and target: those that are given, or the folder's."""
    if source is not None:
        return Path(source), Path(target or source)
    if target is not None:
        raise BundleError("--target-sentencepiece needs --sentencepiece, that of the source")
    candidates = sorted(name for name in names if SENTENCEPIECE_NAME.fullmatch(name))
    if set(candidates) == {SOURCE_SPM, TARGET_SPM}:
        return folder / SOURCE_SPM, folder / TARGET_SPM
    if len(candidates) == 1 and candidates[0] not in (SOURCE_SPM, TARGET_SPM):
        return folder / candidates[0], folder / candidates[0]
    held = printable(", ".join(candidates[:5])) or "no SentencePiece model"
    raise BundleError(
        f"{folder} holds {held}: give --sentencepiece (and --target-sentencepiece, where the "
        "target has its own) with the model that its text was split with"
    )


def _check_fit(tokenizer: spm.SentencePieceProcessor, vocabulary: list[str], path: Path) -> None:
    pieces = text_pieces(tokenizer)
    share = len(pieces.intersection(vocabulary)) / max(len(pieces), 1)
    if share < MIN_SHARED_PIECES:
        raise BundleError(
            f"{path} is not this model's: {share:.0%} of its pieces are in the vocabulary; "
            "give --sentencepiece with the model that its text was split with"
        )


def _licence(path: Path, licence: str | None) -> str:
    if licence is None:
        raise BundleError(f"{path} does not say under which licence it may be used: give --licence")
    return licence


def _name_of(folder: str, source: str, target: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:100]
    return plain or f"{source}-{target}"

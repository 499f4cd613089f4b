"""`quickstudy bundle import`: other people's models as bundles, whatever toolkit they come from.

Recognises what a path holds (`export.runtime.foreign`) and gives it to the importer of its kind: a
CTranslate2 folder or Argos package is copied and served as it is, any other model is written for
our own engines, which needs torch. A folder of several models gives a bundle of each.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from export.archives import unpacked
from export.argos_package import open_argos
from export.imported_ctranslate2 import import_argos, import_ctranslate2
from export.plausibility import language_fault
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.foreign import TOKENIZER, ForeignModel, recognise
from export.runtime.manifest import MANIFEST_FILE, BundleError, GateRecord, printable
from training.config.recipe import GateLimits

if TYPE_CHECKING:
    from export.quality_gate import EvalSet

MAX_DEPTH = 5
"""Of folders in which models are looked for."""
MAX_FOLDERS = 2000
ARCHIVES = (".whl", ".zip")
MODEL_FILES = (
    *("*.bin", "*.npz", "*.spm", "*.model", "*.safetensors", "*.json", "*.txt", "*.yml"),
    *("*.yaml", "README*", "LICEN*"),
)
"""What is unpacked of an archive."""


@dataclass(frozen=True)
class ImportOptions:
    """What a user says of a model that its files do not, or otherwise than they do."""

    source: str | None = None
    target: str | None = None
    licence: str | None = None
    name: str | None = None
    attribution: str = ""
    engines: tuple[str, ...] = ()
    sentencepiece: Path | None = None
    target_sentencepiece: Path | None = None
    source_prefix: tuple[str, ...] = ()
    source_suffix: tuple[str, ...] = ()
    target_prefix: tuple[str, ...] = ()
    text: Path | None = None
    references: Path | None = None
    force: bool = False


def import_models(
    path: Path, out: Path | None, options: ImportOptions, folder: Path = Path("models")
) -> Iterator[Bundle]:
    """Import every model at `path`, each as soon as the last is done.

    The bundle of one model is written at `out`, those of several in the folder `out`; by default in
    `folder`, each named by its languages. Raises BundleError, saying what was found and what to do;
    a former bundle then stays as it was.
    """
    with _models_in(Path(path), options.sentencepiece is not None) as models:
        if len(models) > 1 and (options.source or options.target or options.name):
            names = ", ".join(printable(place.name) for place, _ in models[:10])
            raise BundleError(
                f"{path} holds {len(models)} models ({names}): import them one by one to say what "
                "they are, or leave --source, --target and --name out"
            )
        targets = _Targets(out, folder, single=len(models) == 1)
        for place, model in models:
            yield import_model(place, model, targets.chooser(model), options)


@dataclass
class _Targets:
    """Where bundles are written: at `out`, or named by their languages in `out` or `folder`."""

    out: Path | None
    folder: Path
    single: bool
    written: set[Path] = field(default_factory=set)

    def chooser(self, model: ForeignModel) -> ChooseOut:
        """Raises BundleError where a bundle would be overwritten that nobody named."""
        if self.out is not None and not self.single and (self.out / MANIFEST_FILE).exists():
            raise BundleError(
                f"{self.out} is a bundle, and there are several models: give a folder for theirs"
            )

        def choose(source: str, target: str) -> Path:
            if self.out is not None and self.single:
                return self.out
            path = (self.out or self.folder) / f"{source}-{target}"
            if path in self.written:
                raise BundleError(
                    f"there are several models for {source} → {target}: import them one by one, "
                    "each with --out"
                )
            _check_replaceable(path, model)
            self.written.add(path)
            return path

        return choose


def _check_replaceable(path: Path, model: ForeignModel) -> None:
    """Raise BundleError for a bundle at `path` that was not imported from such a model."""
    if not (path / MANIFEST_FILE).exists():
        return
    manifest = load_bundle(path).manifest
    if manifest.origin is None or manifest.origin.format != model.format:
        raise BundleError(
            f"{path} holds another bundle, {manifest.name}: give --out FOLDER, or remove it first"
        )


@contextlib.contextmanager
def _models_in(path: Path, has_tokenizer: bool) -> Iterator[list[tuple[Path, ForeignModel]]]:
    """The models at a path: the one that it is, or those in the folder or archive; `has_tokenizer`
    where a SentencePiece model was given besides."""
    if path.suffix not in ARCHIVES or not path.is_file():
        model = recognise(path)
        if has_tokenizer and model is not None and model.missing == (TOKENIZER,):
            yield [(path, replace(model, missing=()))]
        else:
            yield _found(path, path)
        return
    with unpacked(path, _chosen) as folder:
        yield _found(folder, path)


def _chosen(names: list[str]) -> dict[str, str]:
    """The files of an archive that can belong to a model."""
    return {
        name: name
        for name in names
        if any(fnmatch(name.rpartition("/")[2], pattern) for pattern in MODEL_FILES)
    }


def _found(place: Path, given: Path) -> list[tuple[Path, ForeignModel]]:
    """Raises BundleError where there is no whole model."""
    if (model := recognise(place)) is not None:
        return [(place, _whole(model, given))]
    if not place.exists():
        raise BundleError(f"there is nothing at {given}: give the folder or file of a model")
    inside = [(folder, model) for folder in _folders(place) if (model := recognise(folder))]
    whole = [(folder, model) for folder, model in inside if model.format and not model.missing]
    if whole:
        return whole
    if inside:
        folder, model = inside[0]
        _whole(model, folder)
    raise BundleError(
        f"{given} holds no model that is known: give the folder of a Firefox, Bergamot, Marian, "
        "OPUS-MT (Hugging Face) or CTranslate2 model, or an .argosmodel file"
    )


def _whole(model: ForeignModel, given: Path) -> ForeignModel:
    if model.format is None or model.missing:
        raise BundleError(f"{given} is {model}")
    return model


def _folders(path: Path) -> Iterator[Path]:
    """The folders below a path, in order, links not followed."""
    waiting, seen = [(path, 0)], 0
    while waiting:
        parent, depth = waiting.pop(0)
        if not parent.is_dir() or depth == MAX_DEPTH:
            continue
        for child in sorted(parent.iterdir()):
            if child.is_dir() and not child.is_symlink():
                seen += 1
                if seen > MAX_FOLDERS:
                    raise BundleError(f"{path} holds over {MAX_FOLDERS} folders: give a model's")
                yield child
                waiting.append((child, depth + 1))


# --- one model -----------------------------------------------------------------------------------

ChooseOut = Callable[[str, str], Path]
"""Source and target language → where the bundle is written."""


def import_model(
    path: Path, model: ForeignModel, choose: ChooseOut, options: ImportOptions
) -> Bundle:
    """Import one model that was recognised. Raises BundleError as `import_models` does."""
    match model.format:
        case "argos":
            return _import_argos(path, choose, options)
        case "ctranslate2":
            return _import_ctranslate2(path, choose, options)
        case _:
            return _import_pretrained(path, choose, options)


def _import_argos(path: Path, choose: ChooseOut, options: ImportOptions) -> Bundle:
    _refuse(options, "an Argos package", ("engines", "sentencepiece", "target_sentencepiece"))
    with open_argos(path) as package:
        told = package.text("from_code"), package.text("to_code")
    source, target = languages_of(told, options, path)
    return import_argos(
        path,
        choose(source, target),
        source=source,
        target=target,
        licence=options.licence,
        name=options.name,
        attribution=options.attribution,
        source_prefix=options.source_prefix,
        target_prefix=options.target_prefix,
        gate=_gate_of_integers(options, source),
    )


def _import_ctranslate2(path: Path, choose: ChooseOut, options: ImportOptions) -> Bundle:
    _refuse(options, "a CTranslate2 folder", ("engines",))
    source, target = languages_of((None, None), options, path)
    return import_ctranslate2(
        path,
        choose(source, target),
        source=source,
        target=target,
        sentencepiece=options.sentencepiece,
        target_sentencepiece=options.target_sentencepiece,
        licence=options.licence,
        name=options.name,
        attribution=options.attribution,
        source_prefix=options.source_prefix,
        source_suffix=options.source_suffix,
        target_prefix=options.target_prefix,
        gate=_gate_of_integers(options, source),
    )


def _import_pretrained(path: Path, choose: ChooseOut, options: ImportOptions) -> Bundle:
    from export.imported import Facts, import_pretrained
    from export.quality_gate import GateSettings
    from training.pretrained.reader import read_pretrained

    not_theirs = ("sentencepiece", "target_sentencepiece", "source_suffix", "target_prefix")
    _refuse(options, "a model that is written for our own engines", not_theirs)
    model = read_pretrained(path, options.source_prefix)
    source, target = languages_of(model.languages, options, path)
    if not options.licence:
        raise BundleError(
            f"{path.name} does not say its licence: give --licence (Mozilla publishes Firefox's "
            "models under MPL-2.0)"
        )
    name = options.name or f"{model.format}-{source}-{target}"
    gate = None
    if (text := _text_of(options, source)) is not None:
        gate = GateSettings(text, LIMITS, options.force, "the imported weights in float32")
    facts = Facts(source, target, options.licence, name, options.attribution)
    return import_pretrained(model, choose(source, target), facts, options.engines or (), gate)


# --- what is asked for and what the files say ----------------------------------------------------


LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


def languages_of(
    told: tuple[str | None, str | None], options: ImportOptions, path: Path
) -> tuple[str, str]:
    """Source and target, as given or as the files say. Raises BundleError where neither does."""
    given = options.source, options.target
    tags = [tag or (other or "").replace("_", "-") for tag, other in zip(given, told, strict=True)]
    missing = [
        option for option, tag in zip(("--source", "--target"), tags, strict=True) if not tag
    ]
    if missing:
        raise BundleError(f"{path.name} does not say its languages: give {' and '.join(missing)}")
    for tag in tags:
        if not LANGUAGE.fullmatch(tag):
            shown = printable(tag)[:40]
            raise BundleError(f"{shown!r} is no language: give a tag such as pt or pt-BR")
    if tags[0] == tags[1]:
        raise BundleError(f"source and target are both {tags[0]}: give --source and --target")
    return tags[0], tags[1]


def _refuse(options: ImportOptions, what: str, names: Sequence[str]) -> None:
    """Raise BundleError for options that say nothing of such a model."""
    given = [
        f"--{name.replace('_', '-').removesuffix('s')}" for name in names if getattr(options, name)
    ]
    if given:
        raise BundleError(f"{', '.join(given)}: {what} takes none, leave it out")


# --- the gate's text and limits ------------------------------------------------------------------


INT8_IDENTICAL = 0.7
"""Least share of an int8 engine's lines that are those of float32. Two other engines that compute
Firefox's models in int8, Bergamot and fxtranslate, have 78 to 81 %, on another text."""
LIMITS = GateLimits(int8_identical=INT8_IDENTICAL, bleu_loss=1.0)
BUILT_IN = "built-in sentences ({})"


def built_in_sentences(language: str) -> list[str]:
    """The gate's own sentences in a language; none where there are none."""
    file = resources.files("export") / "gate_sentences" / f"{language.split('-')[0]}.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _text_of(options: ImportOptions, source: str) -> EvalSet | None:
    """The given text, or the built-in sentences of a language; None where there are none.

    Raises BundleError where a file cannot be used.
    """
    from export.quality_gate import EvalSet

    for option, path in (("--text", options.text), ("--ref", options.references)):
        if path is not None and not path.is_file():
            raise BundleError(f"{option} {path}: no file there, give one with a sentence a line")
    if options.text is None:
        sentences = built_in_sentences(source)
        return EvalSet(BUILT_IN.format(source), sentences) if sentences else None
    text = EvalSet.read(options.text, options.references)
    if not any(sentence.strip() for sentence in text.src):
        raise BundleError(f"--text {options.text}: it holds no sentences")
    return text


def _gate_of_integers(options: ImportOptions, source: str) -> Callable[[Bundle], GateRecord] | None:
    """What holds a CTranslate2 model's integers against float32, over the given text or the
    built-in sentences; None where there is no text."""
    from export.imported_gate import check_imported_engines
    from export.quality_gate import GateError

    if options.references is not None:
        raise BundleError("--ref: engines of CTranslate2 are held against float32, leave it out")
    text = _text_of(options, source)
    if text is None:
        return None

    def gate(draft: Bundle) -> GateRecord:
        if not options.force and (fault := language_fault(draft, text.src)):
            raise BundleError(f"{fault}. --force imports it all the same")
        record = check_imported_engines(draft, text.src, dataset=text.dataset, limits=LIMITS)
        if record.faults and not options.force:
            raise GateError(record)
        return record.model_copy(update={"forced": bool(record.faults)})

    return gate

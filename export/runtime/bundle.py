"""The bundle: the folder that is served. Write it whole, or load it checked; no torch.

```
manifest.json      what it is, and the size and SHA-256 of every other file
README.md          the model card, rendered from the manifest alone
tokenizer.model    SentencePiece
recipe.yaml        the recipe that made the model
engines/<name>/    e.g. ctranslate2-int8/{model.bin, config.json, shared_vocabulary.json}
```

Loading reads bytes and JSON only, from plain files: nothing in a bundle is executed or unpickled,
and no link or device is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from io import BufferedReader
from pathlib import Path

import sentencepiece as spm
from pydantic import ValidationError

from export.runtime.card import render_card
from export.runtime.foreign import advice
from export.runtime.manifest import (
    CARD_FILE,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MAX_FILES,
    MAX_FOLDER_DEPTH,
    MAX_MANIFEST_BYTES,
    MAX_TOKENIZER_BYTES,
    OLDEST_VERSION,
    BundleError,
    BundleInfo,
    Domain,
    EngineEntry,
    FileEntry,
    Manifest,
    Metric,
    printable,
    strict_json,
    up_to_date,
)
from quickstudy.atomic import atomic_folder, sha256_of

# --- files of a folder that is not trusted -----------------------------------------------------


OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # not through a link that took the file's place
    | getattr(os, "O_NONBLOCK", 0)  # not waiting for the other end of a pipe
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
CHUNK_BYTES = 1 << 20


def list_files(folder: Path) -> dict[str, Path]:
    """Every regular file under `folder` by relative path.

    Raises BundleError for links, pipes, devices and sockets, and as soon as there are too many
    entries or folders in folders.
    """
    files: dict[str, Path] = {}
    entries = 0
    waiting = [(folder, 0)]
    while waiting:
        parent, depth = waiting.pop()
        if depth > MAX_FOLDER_DEPTH:
            raise BundleError(f"{_shown(parent)} lies too deep for a bundle: {_NOT_OURS}")
        with os.scandir(parent) as directory:
            for entry in directory:
                entries += 1
                if entries > 2 * MAX_FILES:
                    raise BundleError(f"{folder} holds over {2 * MAX_FILES} entries: {_NOT_OURS}")
                path = Path(entry.path)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((path, depth + 1))
                elif stat.S_ISREG(mode):
                    files[path.relative_to(folder).as_posix()] = path
                else:
                    raise BundleError(
                        f"{_shown(path)} is a link or special file: a bundle holds plain files "
                        "only, copy the file itself into its place"
                    )
    return files


_NOT_OURS = "give the folder of a bundle, or export it again"


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; raises BundleError for anything else, and never waits."""
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device can have effects of its own
        raise BundleError(f"{_shown(path)} is a link or special file: copy the file itself")
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BundleError(f"{_shown(path)} is a link or special file: copy the file itself")
        yield file


def read_small(path: Path, limit: int) -> bytes:
    """The bytes of a plain file. Raises BundleError if there are more than `limit`."""
    with open_plain(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{_shown(path)} is larger than {limit} bytes: export the bundle again")
    return data


def check_file(path: Path, entry: FileEntry) -> None:
    """Raise BundleError unless the file has the size and SHA-256 of its entry."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(
                f"{path} has {size} bytes, its manifest says {entry.bytes}: "
                "the file is damaged or was changed, copy or export the bundle again"
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{path} has SHA-256 {digest}, its manifest says {entry.sha256}: "
            "the file is damaged or was changed, copy or export the bundle again"
        )


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target`, and the folders above it, with the content of `source`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _shown(path: Path) -> str:
    return printable(str(path))


# --- the bundle --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """A checked bundle on disk."""

    path: Path
    manifest: Manifest

    @property
    def tokenizer_path(self) -> Path:
        return self.path / self.manifest.tokenizer

    @property
    def source_tokenizer_path(self) -> Path:
        """The source's tokenizer: one of its own, or the joint one."""
        return self.path / (self.manifest.source_tokenizer or self.manifest.tokenizer)

    def engine(self, name: str | None = None) -> EngineEntry:
        """The engine of that name, or the default one. Raises BundleError if there is none."""
        wanted = name or self.manifest.default_engine
        for engine in self.manifest.engines:
            if engine.name == wanted:
                return engine
        names = ", ".join(engine.name for engine in self.manifest.engines)
        raise BundleError(f"{self.path} has no engine {wanted!r}: choose one of {names}")

    def recipe_text(self) -> str:
        """The recipe that made it. Raises BundleError for a model that was imported."""
        if self.manifest.recipe is None:
            raise BundleError(
                f"{self.path} was imported and has no recipe: "
                "use a bundle that `quickstudy export` wrote"
            )
        return (self.path / self.manifest.recipe).read_text(encoding="utf-8")

    def engine_path(self, name: str | None = None) -> Path:
        """Folder of the engine of that name, or of the default one."""
        return self.path / self.engine(name).path


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Every listed file must be there with its size and SHA-256; nothing else may be, and no
    symbolic link. Nothing is written, run or unpickled. Raises BundleError, and nothing else,
    saying what to do.
    """
    path = Path(path)
    if not (path / MANIFEST_FILE).exists() and (said := advice(path)):
        raise BundleError(said)
    if path.is_file():
        raise BundleError(f"{path} is a file: give a bundle's folder, which has {MANIFEST_FILE}")
    if not path.is_dir():
        raise BundleError(
            f"there is no bundle at {path}: export one with `quickstudy export`, "
            "or give the path of a bundle folder"
        )
    try:
        manifest = _read_manifest(path / MANIFEST_FILE)
        found = list_files(path)
        _check_listing(path, set(found) - {MANIFEST_FILE}, set(manifest.files))
        for name, entry in manifest.files.items():
            check_file(found[name], entry)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error}): see that its files are there and may be read"
        ) from error
    return Bundle(path, manifest)


def now() -> datetime:
    """This moment, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def own_version() -> str:
    """Quickstudy's version."""
    try:
        return metadata.version("quickstudy")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_bundle(
    out: Path,
    info: BundleInfo,
    *,
    fill: Callable[[Path], None],
    verify: Callable[[Bundle], None],
    check: Callable[[Bundle], BundleInfo] | None = None,
) -> Bundle:
    """Make a bundle at `out`, replacing a former one only once the new one is proven.

    `fill` writes tokenizer, recipe and engines into the empty folder it is given; the card is
    rendered from the manifest; the folder is loaded again and given to `check`, which returns what
    the bundle shall say of itself or raises, and to `verify`, which raises if an engine does not
    load or translate. Whatever raises, `out` stays as it was.
    """
    with replacing(out) as draft:
        fill(draft)
        _seal(draft, info)
        if check is not None:
            _seal(draft, check(load_bundle(draft)))
        verify(load_bundle(draft))
    return load_bundle(out)


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of the bundle at `out` when the block ends.

    Whatever raises, `out` stays as it was. Raises BundleError where something else lies there.
    """
    out = Path(out).resolve()
    _refuse_to_replace(out)
    with atomic_folder(out) as draft:
        yield draft


def update_metrics(path: Path, metrics: Iterable[Metric]) -> Bundle:
    """Replace a bundle's metrics, and its card with them; the other files are untouched."""
    return _update_info(path, {"metrics": tuple(metrics)})


def update_domains(path: Path, domains: Iterable[Domain]) -> Bundle:
    """Replace a bundle's scores by domain, and its card with them; the other files are
    untouched."""
    return _update_info(path, {"domains": tuple(domains)})


def _update_info(path: Path, changed: dict[str, object]) -> Bundle:
    """Change what a bundle says of itself: it is measured after its export.

    The new folder shares the old one's files by hard links where it can, and takes its place in
    one swap.
    """
    bundle = load_bundle(path)
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}
    info = BundleInfo.model_validate({**fields, **changed})

    def fill(draft: Path) -> None:
        for name in bundle.manifest.files:
            if name != CARD_FILE:
                link_or_copy(bundle.path / name, draft / name)

    return write_bundle(path, info, fill=fill, verify=lambda _: None)


def _seal(draft: Path, info: BundleInfo) -> None:
    """Write the card, then the manifest that lists it and every other file."""
    card = draft / CARD_FILE
    (draft / MANIFEST_FILE).unlink(missing_ok=True)
    card.write_text("", encoding="utf-8")
    card.write_text(render_card(_manifest_of(draft, info)), encoding="utf-8")
    text = _manifest_of(draft, info).model_dump_json(indent=2)
    (draft / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def _manifest_of(folder: Path, info: BundleInfo) -> Manifest:
    files = {
        name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for name, path in sorted(list_files(folder).items())
    }
    total = sum(entry.bytes for entry in files.values())
    fields = {name: getattr(info, name) for name in BundleInfo.model_fields}
    return Manifest(**fields, files=files, total_bytes=total)


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The bytes of a manifest.json of any format that is read, checked; `where` is for messages.

    Raises BundleError, saying what to do.
    """
    try:
        raw = strict_json(data)
    except ValueError as error:
        raise BundleError(f"{where} is not JSON ({error}): export the bundle again") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int or not OLDEST_VERSION <= version <= FORMAT_VERSION:
        scalar = isinstance(version, int | float | str | None)
        shown = repr(version)[:50] if scalar else f"a {type(version).__name__}"
        raise BundleError(
            f"{where}: format_version is {shown}, this quickstudy reads "
            f"{OLDEST_VERSION} to {FORMAT_VERSION}: install the version that wrote the bundle, "
            "or export it again with this one"
        )
    try:
        return Manifest.model_validate(up_to_date(raw))
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or 'manifest'}: {e['msg']}"
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        shown = printable("; ".join(problems[:10]))[:2000]
        raise BundleError(f"{where}: {shown}. Export the bundle again") from error


def _read_manifest(path: Path) -> Manifest:
    if path.is_symlink() or not path.is_file():
        inside = sorted(path.parent.glob(f"*/{path.name}"))
        advice = (
            f"it is a folder of bundles, give one of them, such as {inside[0].parent}"
            if inside
            else f"{path.parent} is not a bundle: {_NOT_OURS}"
        )
        raise BundleError(f"{path} is missing: {advice}")
    return parse_manifest(read_small(path, MAX_MANIFEST_BYTES), str(path))


def _check_listing(path: Path, present: set[str], listed: set[str]) -> None:
    if missing := sorted(listed - present):
        raise BundleError(
            f"{path} lacks {_names(missing)}: the copy is incomplete, copy or export it again"
        )
    if extra := sorted(present - listed):
        raise BundleError(
            f"{path} holds files that its manifest does not list: {_names(extra)}. "
            "Remove them, or export the bundle again"
        )


def _names(paths: list[str]) -> str:
    shown = [printable(path) for path in paths[:5]]
    return ", ".join(shown) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _refuse_to_replace(out: Path) -> None:
    """Raise BundleError where `out` holds something that may not be overwritten."""
    if not out.exists():
        return
    try:
        raw = strict_json(read_small(out / MANIFEST_FILE, MAX_MANIFEST_BYTES))
        is_bundle = {"format_version", "engines", "files"} <= set(raw)
    except (OSError, ValueError, TypeError):
        is_bundle = False
    if not is_bundle:
        raise BundleError(f"{out} exists and is not a bundle: remove it or choose another folder")


def load_tokenizer(bundle: Bundle) -> spm.SentencePieceProcessor:
    """The tokenizer of a bundle, of its target side where the two differ.

    Raises BundleError if it is no SentencePiece model, has another number of pieces than the
    manifest says, or other special pieces at ids 0 to 3. Where the engines keep the vocabulary of
    the folder that was imported, ids are CTranslate2's own, and pieces are compared by nothing.
    """
    manifest = bundle.manifest
    path = bundle.tokenizer_path
    tokenizer = read_sentencepiece(path)
    if manifest.keeps_original_folder:
        return tokenizer
    if tokenizer.get_piece_size() != manifest.vocab_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.get_piece_size()} pieces, the manifest says "
            f"{manifest.vocab_size}: export with the tokenizer the model was trained with"
        )
    tokens = manifest.special_tokens
    wanted = [tokens.pad, tokens.unk, tokens.bos, tokens.eos]
    first_pieces = [tokenizer.id_to_piece(index) for index in range(4)]
    if first_pieces != wanted:
        raise BundleError(
            f"{path} begins with the pieces {first_pieces}, the manifest says {wanted}: "
            "export with the tokenizer the model was trained with"
        )
    return tokenizer


def load_source_tokenizer(
    bundle: Bundle, target: spm.SentencePieceProcessor
) -> spm.SentencePieceProcessor:
    """The tokenizer of the source side; `target` itself, where both sides share it.

    Raises BundleError if it is no SentencePiece model.
    """
    name = bundle.manifest.source_tokenizer
    return target if name is None else read_sentencepiece(bundle.path / name)


def read_sentencepiece(path: Path) -> spm.SentencePieceProcessor:
    """A SentencePiece model from a plain file. Raises BundleError for anything else."""
    try:
        data = read_small(path, MAX_TOKENIZER_BYTES)
        return spm.SentencePieceProcessor(model_proto=data)
    except (OSError, RuntimeError) as error:
        raise BundleError(
            f"{path} is not a SentencePiece model ({error}): "
            "give the one that the model was trained with"
        ) from error


def pieces(tokenizer: spm.SentencePieceProcessor) -> list[str]:
    """The pieces of a tokenizer in the order of their ids."""
    return [tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())]


def text_pieces(tokenizer: spm.SentencePieceProcessor) -> set[str]:
    """The pieces of a tokenizer that stand for text: no control symbols, no unknown piece."""
    return {
        tokenizer.id_to_piece(index)
        for index in range(tokenizer.get_piece_size())
        if not (tokenizer.is_control(index) or tokenizer.is_unknown(index))
    }

"""The bundle: the folder that is served. Write it whole, or load it checked; no torch.

```
manifest.json      what it is, and the size and SHA-256 of every other file
README.md          the model card
tokenizer.model    SentencePiece
recipe.yaml        the recipe that made the model
engines/<name>/    e.g. ctranslate2-int8/{model.bin, config.json, shared_vocabulary.json}
```

Loading reads bytes and JSON only: nothing in a bundle is ever executed or unpickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from export.card import render_card
from export.errors import BundleError
from export.manifest import (
    CARD_FILE,
    FORMAT_VERSION,
    MANIFEST_FILE,
    OLDEST_VERSION,
    BundleInfo,
    EngineEntry,
    FileEntry,
    Manifest,
    Metric,
    up_to_date,
)

MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A checked bundle on disk."""

    path: Path
    manifest: Manifest

    @property
    def tokenizer_path(self) -> Path:
        return self.path / self.manifest.tokenizer

    def engine(self, name: str | None = None) -> EngineEntry:
        """The engine of that name, or the default one. Raises BundleError if there is none."""
        wanted = name or self.manifest.default_engine
        for engine in self.manifest.engines:
            if engine.name == wanted:
                return engine
        names = ", ".join(engine.name for engine in self.manifest.engines)
        raise BundleError(f"{self.path} has no engine {wanted!r}: choose one of {names}")

    def engine_path(self, name: str | None = None) -> Path:
        """Folder of the engine of that name, or of the default one."""
        return self.path / self.engine(name).path


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Every listed file must be there with its size and SHA-256; nothing else may be, and no
    symbolic link. Raises BundleError, saying what to do.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(
            f"there is no bundle at {path}: export one with `quickstudy export`, "
            "or give the path of a bundle folder"
        )
    manifest = _read_manifest(path / MANIFEST_FILE)
    found = _list_files(path)
    found.pop(MANIFEST_FILE)
    _check_listing(path, set(found), set(manifest.files))
    for name, entry in manifest.files.items():
        _check_file(found[name], entry)
    return Bundle(path, manifest)


def write_bundle(
    out: Path,
    info: BundleInfo,
    *,
    fill: Callable[[Path], None],
    verify: Callable[[Bundle], None],
    judge: Callable[[Bundle], BundleInfo] | None = None,
) -> Bundle:
    """Make a bundle at `out`, replacing a former one only once the new one is proven.

    `fill` writes tokenizer, recipe and engines into the empty folder it is given; the card is
    rendered from the manifest; the folder is loaded again and given to `judge`, which returns what
    the bundle shall say of itself or raises, and to `verify`, which raises if an engine does not
    load or translate. Whatever raises, `out` stays as it was.
    """
    out = Path(out).resolve()
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise BundleError(f"{out} exists and is not a bundle: remove it or choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        draft.chmod(0o755)
        fill(draft)
        _seal(draft, info)
        if judge is not None:
            _seal(draft, judge(load_bundle(draft)))
        verify(load_bundle(draft))
        _swap(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return load_bundle(out)


def update_metrics(path: Path, metrics: Iterable[Metric]) -> Bundle:
    """Replace a bundle's metrics, and its card with them; the other files are untouched.

    Evaluation comes after export. The new folder shares the old one's files by hard links
    where it can, and takes its place in one swap.
    """
    bundle = load_bundle(path)
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}
    info = BundleInfo(**{**fields, "metrics": tuple(metrics)})

    def fill(draft: Path) -> None:
        for name in bundle.manifest.files:
            if name != CARD_FILE:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(bundle.path / name, draft / name)

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
        for name, path in sorted(_list_files(folder).items())
    }
    total = sum(entry.bytes for entry in files.values())
    fields = {name: getattr(info, name) for name in BundleInfo.model_fields}
    return Manifest(**fields, files=files, total_bytes=total)


def _swap(draft: Path, out: Path) -> None:
    """Put `draft` in the place of `out`; if that fails, `out` comes back."""
    if not out.exists():
        draft.rename(out)
        return
    former = draft.with_suffix(".former")
    out.rename(former)
    try:
        draft.rename(out)
    except OSError:
        former.rename(out)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _read_manifest(path: Path) -> Manifest:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing: {path.parent} is not a bundle, export it again")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes: export it again")
    try:
        raw = from_json(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): export the bundle again") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int or not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, this quickstudy reads {OLDEST_VERSION} to "
            f"{FORMAT_VERSION}: install the version that wrote the bundle, or export it again "
            "with this one"
        )
    try:
        return Manifest.model_validate(up_to_date(raw))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'manifest'}: {e['msg']}"
            for e in error.errors()
        )
        raise BundleError(f"{path}: {problems}. Export the bundle again") from error


def _list_files(folder: Path) -> dict[str, Path]:
    """Every regular file under `folder` by relative path; anything else raises BundleError."""
    files: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                files[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise BundleError(
                    f"{path} is a link or special file: a bundle holds plain files only, "
                    "copy the file itself into its place"
                )
    return files


def _check_listing(path: Path, found: set[str], listed: set[str]) -> None:
    if missing := sorted(listed - found):
        raise BundleError(
            f"{path} lacks {', '.join(missing)}: the copy is incomplete, copy or export it again"
        )
    if extra := sorted(found - listed):
        raise BundleError(
            f"{path} holds files that its manifest does not list: {', '.join(extra)}. "
            "Remove them, or export the bundle again"
        )


def _check_file(path: Path, entry: FileEntry) -> None:
    size = path.stat().st_size
    if size != entry.bytes:
        raise BundleError(
            f"{path} has {size} bytes, its manifest says {entry.bytes}: "
            "the file is damaged or was changed, copy or export the bundle again"
        )
    digest = sha256_of(path)
    if digest != entry.sha256:
        raise BundleError(
            f"{path} has SHA-256 {digest}, its manifest says {entry.sha256}: "
            "the file is damaged or was changed, copy or export the bundle again"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

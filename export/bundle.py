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

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from export.card import render_card
from export.errors import BundleError
from export.files import check_file, link_or_copy, list_files, read_small, sha256_of
from export.limits import MAX_MANIFEST_BYTES, printable
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
from export.strict_json import strict_json


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
    symbolic link. Nothing is written, run or unpickled. Raises BundleError, and nothing else,
    saying what to do.
    """
    path = Path(path)
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
    with replacing(out) as draft:
        fill(draft)
        _seal(draft, info)
        if judge is not None:
            _seal(draft, judge(load_bundle(draft)))
        verify(load_bundle(draft))
    return load_bundle(out)


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of the bundle at `out` when the block ends.

    Whatever raises, `out` stays as it was. Raises BundleError where something else lies there.
    """
    from training.atomic import atomic_folder  # what only reads bundles has no training/

    out = Path(out).resolve()
    _refuse_to_replace(out)
    with atomic_folder(out) as draft:
        yield draft


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
        raise BundleError(f"{path} is missing: {path.parent} is not a bundle, export it again")
    return parse_manifest(read_small(path, MAX_MANIFEST_BYTES), str(path))


def _check_listing(path: Path, found: set[str], listed: set[str]) -> None:
    if missing := sorted(listed - found):
        raise BundleError(
            f"{path} lacks {_names(missing)}: the copy is incomplete, copy or export it again"
        )
    if extra := sorted(found - listed):
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

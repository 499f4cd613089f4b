"""Push bundles to where others find them, and pull them from there.

A place is `bentoml:NAME[:TAG]`, the BentoML model store of this machine (a model there holds a
bundle in its folder `bundle`), or a folder anywhere that fsspec reaches (a path, `file:///…`,
`s3://bucket/prefix`, `memory://…`), with `#TAG` at its end. `export.oci` does the latter.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from export.oci import Transfer, pull_layout, push_layout
from export.runtime.bundle import Bundle, load_bundle, replacing
from export.runtime.manifest import MANIFEST_FILE, MAX_DOWNLOAD_BYTES, BundleError, Manifest

if TYPE_CHECKING:
    from bentoml import Model


__all__ = ["Transfer", "pull", "push"]

BENTOML = "bentoml:"


def push(path: Path, destination: str, tag: str | None = None) -> Transfer:
    """Copy the bundle at `path` to a place, under `tag`, by default its name and version.

    A reader of the place sees all of it or nothing. Raises BundleError, saying what to do.
    """
    if destination.startswith(BENTOML):
        return push_model(path, destination.removeprefix(BENTOML), tag)
    return push_layout(path, *_parted(destination, tag))


def pull(
    source: str, out: Path, tag: str | None = None, max_bytes: int = MAX_DOWNLOAD_BYTES
) -> tuple[Bundle, Transfer]:
    """Copy a bundle from a place to `out`, checked, in the place of a former bundle there.

    No more than `max_bytes` are taken, and no more than the bundle declares. Whatever raises,
    `out` stays as it was. Raises BundleError, saying what to do.
    """
    if source.startswith(BENTOML):
        return pull_model(source.removeprefix(BENTOML), out, tag, max_bytes)
    url, tag = _parted(source, tag)
    return pull_layout(url, out, tag, max_bytes)


def _parted(place: str, tag: str | None) -> tuple[str, str | None]:
    url, mark, fragment = place.rpartition("#")
    return (url, tag or fragment) if mark else (place, tag)


# --- the BentoML model store -------------------------------------------------------------------


FOLDER = "bundle"


def push_model(path: Path, name: str, tag: str | None) -> Transfer:
    """Save the bundle at `path` as the model NAME[:TAG], by default its own name and version."""
    import bentoml

    bundle = load_bundle(path)
    manifest = bundle.manifest
    wanted = _tag_of(name or manifest.name, tag or manifest.version)
    files = len(manifest.files) + 1
    if (stored := _found(wanted)) is not None:
        if not _same(bundle, stored):
            raise BundleError(
                f"the BentoML store already has another {wanted}: give another tag, or remove it "
                f"with `bentoml models delete {wanted}`"
            )
        return Transfer(f"bentoml:{wanted}", files, manifest.total_bytes, 0, 0)
    labels = {"source_lang": manifest.source_lang, "target_lang": manifest.target_lang}
    try:
        with bentoml.models.create(wanted, labels=labels) as model:
            shutil.copytree(bundle.path, Path(model.path) / FOLDER)
            load_bundle(Path(model.path) / FOLDER)
    except (bentoml.exceptions.BentoMLException, OSError) as error:
        raise BundleError(f"bentoml:{wanted} cannot be written ({error})") from error
    return Transfer(f"bentoml:{wanted}", files, manifest.total_bytes, files, manifest.total_bytes)


def pull_model(name: str, out: Path, tag: str | None, max_bytes: int) -> tuple[Bundle, Transfer]:
    """Copy the bundle of the model NAME[:TAG] to `out`, the latest without a tag."""
    wanted = _tag_of(name, tag)
    model = _found(wanted)
    if model is None:
        raise BundleError(
            f"the BentoML store has no {wanted}: `bentoml models list` shows what it has"
        )
    source = load_bundle(Path(model.path) / FOLDER)
    manifest = source.manifest
    if manifest.total_bytes > max_bytes:
        raise BundleError(
            f"bentoml:{wanted} has {manifest.total_bytes:,} bytes, at most {max_bytes:,} are "
            "taken: allow more with --max-gib"
        )
    with replacing(out) as draft:
        for file in (MANIFEST_FILE, *manifest.files):
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path / file, draft / file)
        load_bundle(draft)
    files = len(manifest.files) + 1
    moved = manifest.total_bytes
    return load_bundle(out), Transfer(f"bentoml:{model.tag}", files, moved, files, moved)


def _tag_of(name: str, tag: str | None) -> str:
    """NAME[:TAG] as BentoML takes it. Raises BundleError."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml

    text = name if ":" in name or tag is None else f"{name}:{tag}"
    try:
        return str(bentoml.Tag.from_taglike(text))
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        raise BundleError(
            f"bentoml:{text}: {error}. Write bentoml:NAME or bentoml:NAME:TAG, in lower-case "
            "letters, digits, '.', '_' and '-'"
        ) from error


def _found(tag: str) -> Model | None:
    import bentoml

    try:
        model = bentoml.models.get(tag)
        exact = str(model.tag) == tag  # a version that only begins so is found, too
        return model if exact or ":" not in tag or tag.endswith(":latest") else None
    except bentoml.exceptions.NotFound:
        return None
    except (bentoml.exceptions.BentoMLException, OSError, ValueError) as error:
        raise BundleError(
            f"bentoml:{tag} cannot be read ({error}): remove it with "
            f"`bentoml models delete {tag}` and push again"
        ) from error


def _same(bundle: Bundle, stored: Model) -> bool:
    try:
        stored_manifest: Manifest = load_bundle(Path(stored.path) / FOLDER).manifest
    except BundleError:
        return False
    return stored_manifest == bundle.manifest

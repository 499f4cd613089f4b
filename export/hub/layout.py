"""Bundles in a folder that fsspec reaches, as an OCI image layout; see docs/bundle.md.

```
oci-layout            marks the folder
index.json            tag → image manifest
blobs/sha256/<hash>   image manifests and files of bundles, each once
```

Files go first, then the image manifest, then the index: a reader sees a bundle whole or not at all.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from export.bundle import Bundle, load_bundle, parse_manifest, replacing
from export.errors import BundleError
from export.files import check_file, link_or_copy, read_small
from export.hub.oci import (
    EMPTY,
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    MANIFEST_TYPE,
    MAX_JSON_BYTES,
    TAG,
    Descriptor,
    Index,
    as_json,
    described,
    files_of,
    image_of,
    parse_index,
)
from export.hub.remote import Remote
from export.hub.transfer import Transfer
from export.limits import MAX_MANIFEST_BYTES, printable
from export.manifest import MANIFEST_FILE, FileEntry, Manifest


def push_layout(path: Path, url: str, tag: str | None) -> Transfer:
    """Copy the bundle at `path` into the layout at `url`; blobs that are there are not sent."""
    bundle = load_bundle(path)
    tag = _checked_tag(tag or f"{bundle.manifest.name}-{bundle.manifest.version}")
    remote = Remote(url)
    _prepare(remote, tag)
    manifest_json = read_small(bundle.path / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    image = image_of(bundle.manifest, manifest_json)
    files = files_of(image, url)
    sent: list[int] = []
    for name, layer in files.items():
        if remote.size(_blob(layer)) != layer.size:
            remote.put(bundle.path / name, _blob(layer))
            sent.append(layer.size)
    for data in (EMPTY, image):
        remote.write(_blob(described(data, "")), data)
    tagged = _read_index(remote).with_tag(tag, described(image, MANIFEST_TYPE))
    remote.write(INDEX_FILE, as_json(tagged.model_dump()))
    total = sum(layer.size for layer in files.values())
    return Transfer(f"{url}#{tag}", len(files), total, len(sent), sum(sent))


def pull_layout(url: str, out: Path, tag: str | None, max_bytes: int) -> tuple[Bundle, Transfer]:
    """Copy a bundle from the layout at `url` to `out`; files that a former one has are not fetched.

    Without `tag`, the layout must hold one bundle only.
    """
    remote = Remote(url)
    if not remote.exists(LAYOUT_FILE):
        raise BundleError(f"{url} holds no bundles: it has no {LAYOUT_FILE}, push one first")
    index = _read_index(remote)
    tag = _chosen(index, tag, url)
    image = _fetch(remote, _descriptor(index, tag, url), MAX_JSON_BYTES)
    files = files_of(image, f"{url}#{tag}")
    total = sum(layer.size for layer in files.values())
    if total > max_bytes:
        raise BundleError(
            f"{url}#{tag} has {total:,} bytes, at most {max_bytes:,} are taken: "
            "allow more with --max-gib, if you trust it"
        )
    manifest_json = _fetch(remote, files[MANIFEST_FILE], MAX_MANIFEST_BYTES)
    manifest = parse_manifest(manifest_json, f"{url}#{tag}: {MANIFEST_FILE}")
    _agree(manifest, files, f"{url}#{tag}")
    with replacing(out) as draft:
        (draft / MANIFEST_FILE).write_bytes(manifest_json)
        fetched = _fill(remote, manifest, draft, Path(out))
        load_bundle(draft)
    transfer = Transfer(f"{url}#{tag}", len(files), total, len(fetched), sum(fetched))
    return load_bundle(out), transfer


def _prepare(remote: Remote, tag: str) -> None:
    """Make a new layout, or see that there is one in which `tag` may be given."""
    if remote.exists(LAYOUT_FILE):
        if tag in _read_index(remote).foreign_tags():
            raise BundleError(f"{remote.url}: {tag} names something else there: give another tag")
    elif remote.empty():
        remote.write(LAYOUT_FILE, as_json(LAYOUT))
    else:
        raise BundleError(
            f"{remote.url} holds other things and no {LAYOUT_FILE}: choose an empty folder"
        )


def _read_index(remote: Remote) -> Index:
    """The index of a layout; a new one has none yet."""
    if remote.size(INDEX_FILE) is None:
        return Index()
    return parse_index(remote.read(INDEX_FILE, MAX_JSON_BYTES), f"{remote.url}: {INDEX_FILE}")


def _checked_tag(tag: str) -> str:
    if not TAG.fullmatch(tag):
        raise BundleError(
            f"{tag!r} cannot be a tag: use up to 128 ASCII letters, digits, '.', '_' and '-', "
            "with --tag or behind '#'"
        )
    return tag


def _chosen(index: Index, tag: str | None, url: str) -> str:
    tags = index.tags()
    shown = printable(", ".join(tags[-20:])) or "none"
    if tag is None and len(tags) == 1:
        return tags[0]
    if tag is None:
        raise BundleError(f"{url} holds {len(tags)} bundles: name one with --tag or #TAG: {shown}")
    if tags.count(tag) != 1:
        raise BundleError(f"{url} has no bundle {tag!r}: it has {shown}")
    return tag


def _descriptor(index: Index, tag: str, url: str) -> Descriptor:
    try:
        return index.descriptor(tag)
    except ValueError as error:
        raise BundleError(f"{url}: {INDEX_FILE} makes no sense for {tag!r}: push again") from error


def _agree(manifest: Manifest, files: dict[str, Descriptor], where: str) -> None:
    """Raise BundleError unless the layers are the files of the bundle's own manifest."""
    layers = {name: (one.size, one.sha256) for name, one in files.items() if name != MANIFEST_FILE}
    listed = {name: (entry.bytes, entry.sha256) for name, entry in manifest.files.items()}
    if layers != listed:
        raise BundleError(
            f"{where}: its layers are not the files that its {MANIFEST_FILE} lists: push it again, "
            "if it is yours"
        )


def _fill(remote: Remote, manifest: Manifest, draft: Path, former: Path) -> list[int]:
    """Put every file into `draft`, from `former` where it is there unchanged; sizes fetched."""
    fetched = [(draft / MANIFEST_FILE).stat().st_size]
    seen: dict[str, Path] = {}
    for name, entry in manifest.files.items():
        target = draft / name
        if _unchanged(former / name, entry):
            link_or_copy(former / name, target)
        elif entry.sha256 in seen:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(seen[entry.sha256].read_bytes())
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(remote, entry, target)
            fetched.append(entry.bytes)
        seen[entry.sha256] = target
    return fetched


def _unchanged(path: Path, entry: FileEntry) -> bool:
    try:
        check_file(path, entry)
    except (OSError, BundleError):
        return False
    return True


def _fetch_file(remote: Remote, entry: FileEntry, target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for chunk in remote.chunks(_blob_of(entry.sha256), entry.bytes):
            digest.update(chunk)
            file.write(chunk)
    _check_digest(digest.hexdigest(), entry.sha256, remote)


def _fetch(remote: Remote, wanted: Descriptor, limit: int) -> bytes:
    """The bytes of a small blob, checked."""
    if wanted.size > limit:
        raise BundleError(f"{remote.url}: {wanted.digest} declares over {limit} bytes")
    data = remote.read(_blob(wanted), wanted.size)
    _check_digest(hashlib.sha256(data).hexdigest(), wanted.sha256, remote)
    return data


def _check_digest(found: str, wanted: str, remote: Remote) -> None:
    if found != wanted:
        raise BundleError(
            f"{remote.url}: {_blob_of(wanted)} is damaged, its SHA-256 is {found}: "
            "delete it there and push the bundle again"
        )


def _blob(descriptor: Descriptor) -> str:
    return _blob_of(descriptor.sha256)


def _blob_of(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"

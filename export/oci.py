"""Bundles in a folder that fsspec reaches, as an OCI image layout; see docs/bundle.md.

```
oci-layout            marks the folder
index.json            tag → image manifest
blobs/sha256/<hash>   image manifests and files of bundles, each once
```

A bundle is an artifact: an empty config and a layer for each file, whose path is the annotation
`org.opencontainers.image.title`, as `oras` writes and reads it. Files are written first, then the
image manifest, then the index, so readers see a bundle whole or not at all.

Source: https://github.com/opencontainers/image-spec, image-layout.md, image-index.md, manifest.md
and descriptor.md, version 1.1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from export.runtime.bundle import (
    CHUNK_BYTES,
    Bundle,
    check_file,
    link_or_copy,
    load_bundle,
    parse_manifest,
    read_small,
    replacing,
)
from export.runtime.manifest import (
    MANIFEST_FILE,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    MAX_TOTAL_BYTES,
    BundleError,
    FileEntry,
    Manifest,
    printable,
    strict_json,
)
from quickstudy.errors import explain

LAYOUT_FILE = "oci-layout"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
INDEX_FILE = "index.json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
BUNDLE_TYPE = "application/vnd.quickstudy.bundle"
FILE_TYPE = "application/octet-stream"
EMPTY = b"{}"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
MAX_JSON_BYTES = 4 << 20

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Keys that are not ours are kept, as the specification asks."""

    model_config = ConfigDict(frozen=True, extra="allow")


Part = TypeVar("Part", bound=_Part)


class Descriptor(_Part):
    """A blob: its type, SHA-256 and size in bytes."""

    mediaType: str
    digest: Digest
    size: int = Field(ge=0, le=MAX_TOTAL_BYTES)
    annotations: dict[str, str] = Field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The hash in hexadecimal."""
        return self.digest.removeprefix("sha256:")


class ImageManifest(_Part):
    """A bundle: a descriptor for each of its files."""

    schemaVersion: Literal[2]
    artifactType: Literal["application/vnd.quickstudy.bundle"]
    layers: tuple[Descriptor, ...] = Field(max_length=MAX_FILES + 1)


class Index(_Part):
    """The tags of a layout; entries that are no bundles are left alone."""

    schemaVersion: Literal[2] = 2
    mediaType: str = INDEX_TYPE
    manifests: tuple[dict[str, Any], ...] = ()

    def tags(self) -> list[str]:
        """Names of the bundles, in the order of the index."""
        return [_ref_name(entry) for entry in self.manifests if _is_bundle(entry)]

    def foreign_tags(self) -> set[str]:
        """Names of what is no bundle."""
        return {_ref_name(entry) for entry in self.manifests if not _is_bundle(entry)}

    def descriptor(self, tag: str) -> Descriptor:
        """Of the manifest that has that tag. Raises ValueError if it makes no sense."""
        entry = next(e for e in self.manifests if _is_bundle(e) and _ref_name(e) == tag)
        return Descriptor.model_validate(entry)

    def with_tag(self, tag: str, manifest: Descriptor) -> Index:
        """This index with `tag` naming that manifest, and no other."""
        entry = {
            **manifest.model_dump(exclude={"annotations"}),
            "artifactType": BUNDLE_TYPE,
            "annotations": {REF_NAME: tag},
        }
        others = tuple(e for e in self.manifests if _ref_name(e) != tag)
        return self.model_copy(update={"manifests": (*others, entry)})


def _annotations(entry: dict[str, Any]) -> dict[str, Any]:
    found = entry.get("annotations")
    return found if isinstance(found, dict) else {}


def _ref_name(entry: dict[str, Any]) -> str:
    return str(_annotations(entry).get(REF_NAME, ""))


def _is_bundle(entry: dict[str, Any]) -> bool:
    """Whether an entry may be one; tools that copy a layout leave its `artifactType` out."""
    kind = entry.get("artifactType", BUNDLE_TYPE)
    return (
        kind == BUNDLE_TYPE and entry.get("mediaType") == MANIFEST_TYPE and bool(_ref_name(entry))
    )


def described(data: bytes, media_type: str) -> Descriptor:
    """The descriptor of bytes."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(mediaType=media_type, digest=digest, size=len(data))


def image_of(manifest: Manifest, manifest_json: bytes) -> bytes:
    """A bundle as the JSON of an image manifest; the same bundle gives the same bytes."""
    own = described(manifest_json, FILE_TYPE)
    files = {MANIFEST_FILE: (own.digest, own.size)} | {
        name: (f"sha256:{entry.sha256}", entry.bytes) for name, entry in manifest.files.items()
    }
    layers = [
        {"mediaType": FILE_TYPE, "digest": digest, "size": size, "annotations": {TITLE: name}}
        for name, (digest, size) in sorted(files.items())
    ]
    image = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": BUNDLE_TYPE,
        "config": described(EMPTY, EMPTY_TYPE).model_dump(exclude={"annotations"}),
        "layers": layers,
        "annotations": {
            "org.opencontainers.image.title": manifest.name,
            "org.opencontainers.image.version": manifest.version,
            "org.opencontainers.image.created": manifest.created.isoformat(),
        },
    }
    return as_json(image)


def as_json(value: Any) -> bytes:
    """JSON as it is stored."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def parse_index(data: bytes, where: str) -> Index:
    """An index.json, checked. Raises BundleError."""
    return _parse(Index, data, where)


def files_of(data: bytes, where: str) -> dict[str, Descriptor]:
    """The files of a bundle by path, from the JSON of an image manifest. Raises BundleError.

    The paths are strangers' words: they are safe once they agree with a bundle's manifest.
    """
    image = _parse(ImageManifest, data, where)
    files = {layer.annotations.get(TITLE, ""): layer for layer in image.layers}
    if len(files) != len(image.layers) or MANIFEST_FILE not in files:
        raise BundleError(
            f"{where}: a title is missing or comes twice, or none is {MANIFEST_FILE}: push again"
        )
    return files


def _parse(kind: type[Part], data: bytes, where: str) -> Part:
    try:
        return kind.model_validate(strict_json(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        shown = printable(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")[:500]
        raise BundleError(f"{where} holds no bundle as quickstudy pushes it ({shown})") from error
    except ValueError as error:
        raise BundleError(f"{where} is not JSON ({error}): push the bundle again") from error


# --- a folder that fsspec reaches --------------------------------------------------------------


EXTRA = "pip install 'quickstudy[hub]'"
WHOLE_BY_NATURE = {
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "obs", "oci", "memory"),
}
"""Protocols where a file appears when its upload ends; elsewhere it is renamed into place."""


class Remote:
    """The folder at a URL. Names are relative, and made by us; every failure is a BundleError."""

    def __init__(self, url: str) -> None:
        """Raises BundleError if there is no such protocol, or what it needs is not installed."""
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise BundleError(f"{url}: fsspec is not installed: {EXTRA}") from error
        self.url = url
        with self._said("is not a place for bundles"):
            self._fs, self._root = url_to_fs(url, use_listings_cache=False)

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of that name."""
        with self._said("cannot be read"):
            return bool(self._fs.exists(self._path(name)))

    def empty(self) -> bool:
        """Whether the folder holds nothing, or is not there."""
        with self._said("cannot be read"):
            return not self._fs.exists(self._root) or not self._fs.ls(self._root, detail=False)

    def size(self, name: str) -> int | None:
        """Size in bytes of a plain file, None if there is none of that name."""
        with self._said(f"{name} cannot be read"):
            try:
                info: dict[str, Any] = self._fs.info(self._path(name))
            except FileNotFoundError:
                return None
            if info.get("type") != "file" or info.get("islink"):
                raise BundleError(f"{self.url}: {name} is a link or no file: push the bundle again")
            return int(info["size"])

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file. Raises BundleError if it is missing or has more than `limit`."""
        return b"".join(self.chunks(name, limit))

    def chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of a file in pieces, never more than `limit`: then BundleError is raised."""
        size = self.size(name)
        if size is None:
            raise BundleError(f"{self.url} has no {name}: push the bundle again")
        left = limit
        with self._said(f"{name} cannot be read"), self._fs.open(self._path(name), "rb") as file:
            while chunk := file.read(min(CHUNK_BYTES, left + 1)):
                if len(chunk) > left:
                    raise BundleError(
                        f"{self.url}: {name} has more than the {limit} bytes that were declared: "
                        "push the bundle again, if it is yours"
                    )
                left -= len(chunk)
                yield chunk

    def put(self, source: Path, name: str) -> None:
        """Copy a local file to `name`."""
        with self._said(f"{name} cannot be written"), self._arriving(name) as path:
            self._fs.put_file(str(source), path)

    def write(self, name: str, data: bytes) -> None:
        """Write bytes to `name`, in the place of what is there."""
        with self._said(f"{name} cannot be written"), self._arriving(name) as path:
            self._fs.pipe_file(path, data)

    @contextlib.contextmanager
    def _arriving(self, name: str) -> Iterator[str]:
        """Where to write so that `name` is there whole or not at all."""
        final = self._path(name)
        protocols = self._fs.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        if names & WHOLE_BY_NATURE:  # which have no folders to make, but might make a bucket
            yield final
            return
        self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        draft = f"{final}.{secrets.token_hex(4)}.draft"
        try:
            yield draft
            self._fs.mv(draft, final)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(draft)
            raise

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Turn whatever a backend raises into a BundleError."""
        try:
            yield
        except BundleError:
            raise
        except Exception as error:  # backends have exceptions of their own
            reason = explain(error) if isinstance(error, OSError) else None
            reason = reason or f"{type(error).__name__}: {error}"
            raise BundleError(f"{self.url}: {what} ({reason})") from error


# --- push and pull -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """A bundle's files and bytes, and how many of them had to be moved."""

    place: str
    files: int
    total_bytes: int
    moved_files: int
    moved_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.files} files of {self.total_bytes / 1e6:.2f} MB, "
            f"{self.moved_files} of {self.moved_bytes / 1e6:.2f} MB moved"
        )


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


def _check_digest(digest: str, expected: str, remote: Remote) -> None:
    if digest != expected:
        raise BundleError(
            f"{remote.url}: {_blob_of(expected)} is damaged, its SHA-256 is {digest}: "
            "delete it there and push the bundle again"
        )


def _blob(descriptor: Descriptor) -> str:
    return _blob_of(descriptor.sha256)


def _blob_of(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"

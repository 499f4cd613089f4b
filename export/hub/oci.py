"""The JSON of an OCI image layout that holds bundles.

Source: https://github.com/opencontainers/image-spec, image-layout.md, image-index.md, manifest.md
and descriptor.md, version 1.1. A bundle is an artifact: an empty config, a layer a file, whose
path is the annotation `org.opencontainers.image.title`, as `oras` writes and reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from export.errors import BundleError
from export.limits import MAX_FILES, MAX_TOTAL_BYTES, printable
from export.manifest import MANIFEST_FILE, Manifest
from export.strict_json import strict_json

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

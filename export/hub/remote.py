"""A folder that fsspec reaches: read with limits, written so that no file is ever half there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.errors import BundleError
from export.files import CHUNK_BYTES
from quickstudy_errors import explain

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

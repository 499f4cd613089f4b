"""Where bundles are kept for others: push and pull.

A place is `bentoml:NAME[:TAG]`, the BentoML model store of this machine, or a folder anywhere that
fsspec reaches (a path, `file:///…`, `s3://bucket/prefix`, `memory://…`), `#TAG` at its end.
"""

from __future__ import annotations

from pathlib import Path

from export.bundle import Bundle
from export.hub.transfer import Transfer
from export.limits import MAX_DOWNLOAD_BYTES

__all__ = ["Transfer", "pull", "push"]

BENTOML = "bentoml:"


def push(path: Path, destination: str, tag: str | None = None) -> Transfer:
    """Copy the bundle at `path` to a place, under `tag`, by default its name and version.

    A reader of the place sees all of it or nothing. Raises BundleError, saying what to do.
    """
    if destination.startswith(BENTOML):
        from export.hub.bentoml_store import push_model

        return push_model(path, destination.removeprefix(BENTOML), tag)
    from export.hub.layout import push_layout

    return push_layout(path, *_parted(destination, tag))


def pull(
    source: str, out: Path, tag: str | None = None, max_bytes: int = MAX_DOWNLOAD_BYTES
) -> tuple[Bundle, Transfer]:
    """Copy a bundle from a place to `out`, checked, in the place of a former bundle there.

    No more than `max_bytes` are taken, and no more than the bundle declares. Whatever raises,
    `out` stays as it was. Raises BundleError, saying what to do.
    """
    if source.startswith(BENTOML):
        from export.hub.bentoml_store import pull_model

        return pull_model(source.removeprefix(BENTOML), out, tag, max_bytes)
    from export.hub.layout import pull_layout

    url, tag = _parted(source, tag)
    return pull_layout(url, out, tag, max_bytes)


def _parted(place: str, tag: str | None) -> tuple[str, str | None]:
    url, mark, fragment = place.rpartition("#")
    return (url, tag or fragment) if mark else (place, tag)

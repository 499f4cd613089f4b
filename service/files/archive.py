"""Zips of XML from strangers: read within limits, and written with some members anew."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from service.files.unit import FileError

MAX_MEMBERS = 5_000
MAX_UNPACKED = 300 << 20
"""Bytes of all members together."""
MAX_XML = 32 << 20
"""Bytes of a member that is read as XML, and of those that are translated together; it takes about
ten times as much memory."""
MAX_RATIO = 200
"""How many times larger than the zip its members may be, together, from MIN_RATIO_SIZE on."""
MIN_RATIO_SIZE = 8 << 20
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


class Archive:
    """A zip in memory. Names of members are only ever looked up, never used as paths."""

    def __init__(self, data: bytes) -> None:
        """Raises FileError for a zip that is damaged, encrypted, too large or deceptive."""
        self.data = data
        with _clear_errors():
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self.members = {info.filename: info for info in self._zip.infolist()}
            _check(self._zip.infolist(), len(data))

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        """A member to be read as XML. Raises FileError if it is not there or too large."""
        info = self.members.get(name)
        if info is None:
            raise FileError(f"the file is incomplete: it has no {name!r}; save it again")
        if info.file_size > MAX_XML:
            raise FileError(f"{name!r} in the file is larger than {MAX_XML >> 20} MB; part it")
        with _clear_errors():
            return self._zip.read(info)

    def check_parts(self, names: Iterable[str]) -> None:
        """Raise FileError if members to be translated are too large together."""
        if sum(self.members[name].file_size for name in names if name in self) > MAX_XML:
            raise FileError(
                f"the text of the file is larger than {MAX_XML >> 20} MB with its markup; part it"
            )

    def write(self, changed: Mapping[str, bytes]) -> bytes:
        """The zip with other content for some members; all members stay in their order."""
        buffer = io.BytesIO()
        with _clear_errors(), zipfile.ZipFile(buffer, "w") as new:
            for name, info in self.members.items():
                written = zipfile.ZipInfo(name, info.date_time)
                written.compress_type = info.compress_type
                written.external_attr, written.create_system = (
                    info.external_attr,
                    info.create_system,
                )
                if name in changed:
                    new.writestr(written, changed[name])
                    continue
                written.file_size = info.file_size
                with self._zip.open(info) as source, new.open(written, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 16)
        return buffer.getvalue()


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise FileError(f"the file's zip is damaged ({error}); save it again") from error


def _check(members: list[zipfile.ZipInfo], packed: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise FileError(f"the file has more than {MAX_MEMBERS} parts")
    if len({info.filename for info in members}) < len(members):
        raise FileError("the file has two parts of the same name; save it again")
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_UNPACKED:
        raise FileError(f"the file is larger than {MAX_UNPACKED >> 20} MB when it is unpacked")
    if unpacked > max(MIN_RATIO_SIZE, MAX_RATIO * packed):
        raise FileError("the file is packed suspiciously tight; save it again")
    for info in members:
        name = info.filename
        if name.startswith(("/", "\\")) or "\\" in name or ".." in name.split("/") or ":" in name:
            raise FileError(f"the file has a part with an unsafe name: {name[:60]!r}")
        if info.flag_bits & ENCRYPTED:
            raise FileError("the file is encrypted; save it without a password")
        if info.compress_type not in COMPRESSIONS:
            raise FileError("the file is packed in an unusual way; save it again")

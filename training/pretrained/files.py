"""The files of a pretrained model that is not trusted: plain, of limited size, never code.

Only plain files at the top of a folder are opened, links are not followed, every file has a limit
in bytes, and nothing is unpickled or run.
"""

from __future__ import annotations

import hashlib
import os
import re
import reprlib
import stat
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from quickstudy.errors import QuickstudyError

MAX_MODEL_BYTES = 8 << 30
MAX_LEXICON_BYTES = 1 << 30
MAX_TOKENIZER_BYTES = 64 << 20
MAX_VOCABULARY_BYTES = 32 << 20
"""Of a vocabulary in JSON or YAML."""
MAX_SETTINGS_BYTES = 1 << 20
MAX_FILES = 1000


class PretrainedError(QuickstudyError, ValueError):
    """A folder that holds no pretrained model that can be read; the message says what was found."""


@dataclass(frozen=True)
class Folder:
    """The plain files at the top of a folder; remembers the SHA-256 of those that were read."""

    path: Path
    names: tuple[str, ...]
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """List `path`. Raises PretrainedError where it is no folder or has too many files."""
        if not path.is_dir():
            raise PretrainedError(f"{path}: no folder there; give the folder of a model")
        names: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir():
                    names.append(entry.name)
                if len(names) > MAX_FILES:
                    raise PretrainedError(f"{path}: over {MAX_FILES} files, no model's folder")
        return cls(path, tuple(sorted(names)))

    def matching(self, *patterns: str) -> list[str]:
        """Names that fit any of the patterns (`*`, `?`), sorted."""
        return [name for name in self.names if any(fnmatch(name, p) for p in patterns)]

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a plain file. Raises PretrainedError for links, devices and large files."""
        path = self.path / name
        refusal = PretrainedError(
            f"{path}: a link or special file; copy the file itself there (`cp -L`)"
        )
        if name != Path(name).name:
            raise PretrainedError(f"{path}: only files at the top of the folder are read")
        try:
            if not stat.S_ISREG(path.lstat().st_mode):  # opening a device can have effects
                raise refusal
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise refusal
                if status.st_size > limit:
                    raise PretrainedError(
                        f"{path}: {status.st_size} bytes, at most {limit} are read of such a file"
                    )
                data = file.read(status.st_size)
        except OSError as error:
            raise PretrainedError(f"{path}: cannot be read ({error.strerror})") from None
        self.digests[name] = hashlib.sha256(data).hexdigest()
        return data


def read_yaml(data: bytes, origin: str) -> dict[str, Any]:
    """A YAML mapping whose scalars are all strings. Raises PretrainedError for anything else."""
    try:
        text = data.decode("utf-8")
        # S506 does not apply: this loader builds strings, lists and dictionaries only.
        value = yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise PretrainedError(f"{origin}: no YAML ({shown(str(error))})") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise PretrainedError(f"{origin}: no YAML mapping of names to values")
    return value


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def shown(value: Any) -> str:
    """A value of a stranger's file for a message: short and printable."""
    return "".join(c if c.isprintable() else "?" for c in _SHORT.repr(value))


def plain_name(name: Any, otherwise: str) -> str:
    """`name` if it can name a bundle, else `otherwise` made so that it can."""
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", otherwise).strip("-._")[:100] or "model"


def language(code: Any) -> str | None:
    """A language as bundles name it (`en`, `zh-Hant`), or None where `code` is none."""
    if isinstance(code, str) and re.fullmatch(r"[a-z]{2,3}([_-][A-Za-z0-9]{1,20})?", code):
        return code.replace("_", "-")
    return None

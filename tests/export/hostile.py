"""Seeded harm to bundles: what a fault, a mistake or a stranger may have done to one."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
MODEL = "engines/ctranslate2-int8/model.bin"

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 10**19, 0.5, 1e308, "", " ", "0", "1"),
    *("../x", "/etc/passwd", "a\\b", "a\0b", "CON", "aux.txt", "README.md", MANIFEST, "."),
    *("é", "e\u0301", "\u202egnp.exe", "x" * 5000, "%n%s", "engines", "\x1b[2J", "../" * 50),
    *([], {}, [[]], {"a": {}}, ["../x"], {"../x": 1}, [1] * 2000),
)
TEXTS = (
    *(b"NaN", b"Infinity", b"1e999", b"-1e999", b"9" * 5000, b'"\\ud800"', b"\xff\xfe", b"\0"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf", b"//", b"{}", b'"format_version": 2,'),
)
PATHS = (
    *("../x", "../../tmp/x", "/tmp/x", "a/../../x", "./x", "a//b", "a/", "C:x", "C:\\x", "\\x"),
    *("con", "NUL.txt", "x.", "x ", ".x", "readme.md", "Manifest.json", "README.md/x", "x\n"),
    *(
        "e\u0301",
        "\u212a",
        "\u2025/x",
        "\uff0e\uff0e/x",
        "a" * 300,
        "/".join("abcdefghij"),
        "",
        "~",
    ),
)

Harm = Callable[[random.Random, Path], object]


def read(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_bytes())


def write(folder: Path, raw: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def list_again(folder: Path) -> None:
    """Make the manifest list the files as they are now: right sizes and hashes."""
    raw = read(folder)
    for name, entry in raw["files"].items():
        data = (folder / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    raw["total_bytes"] = sum(entry["bytes"] for entry in raw["files"].values())
    write(folder, raw)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(value, key) for key, _ in items]
    for _, child in list(items) if isinstance(value, dict) else list(enumerate(value)):
        if isinstance(child, dict | list):
            found.extend(nodes(child))
    return found


def change_tree(rng: random.Random, folder: Path) -> None:
    """Replace, remove or add values anywhere in the manifest."""
    raw = read(folder)
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(nodes(raw))
        action = rng.choice(("replace", "remove", "add", "copy"))
        if action == "remove":
            container.pop(key)
        elif action == "add" and isinstance(container, dict):
            container[rng.choice(PATHS)] = rng.choice(VALUES)
        elif action == "copy":
            other, other_key = rng.choice(nodes(raw))
            container[key] = json.loads(json.dumps(other[other_key]))
        else:
            container[key] = rng.choice(VALUES)
    write(folder, raw)


def change_text(rng: random.Random, folder: Path) -> None:
    """Put odd bytes into the manifest, in the place of some of its own."""
    data = bytearray((folder / MANIFEST).read_bytes())
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data))
        data[start : start + rng.choice((0, 1, 20))] = rng.choice(TEXTS)
    (folder / MANIFEST).write_bytes(data)


def rename_listed(rng: random.Random, folder: Path) -> None:
    """List a file under another path, and put a file there where the system allows it."""
    raw = read(folder)
    name, path = rng.choice(sorted(raw["files"])), rng.choice(PATHS)
    if rng.random() < 0.5:
        raw["files"][path] = raw["files"].pop(name)
    else:
        raw["files"][path] = {**raw["files"][name], "bytes": 0}
    for key in ("tokenizer", "recipe"):
        if raw[key] == name and rng.random() < 0.5:
            raw[key] = path
    write(folder, raw)
    try:
        if (folder / path).resolve().is_relative_to(folder) and rng.random() < 0.5:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).open("xb").close()
    except (OSError, ValueError):  # the system itself refuses the name
        pass


def change_bytes(rng: random.Random, folder: Path) -> None:
    """Flip, cut or lengthen a file; half of the time the manifest follows."""
    name = rng.choice(sorted(read(folder)["files"]))
    (folder / name).write_bytes(damaged(rng, (folder / name).read_bytes()))
    if rng.random() < 0.5:
        list_again(folder)


def damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            del changed[rng.randrange(len(changed) + 1) :]
        case 1:
            changed += rng.randbytes(rng.randint(1, 100))
        case 2:
            for _ in range(rng.randint(1, 20)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 3:
            start = rng.randrange(len(changed))
            changed[start : start + 64] = rng.randbytes(64)
        case 4:
            start = rng.randrange(min(2000, len(changed)))
            changed[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def change_folder(rng: random.Random, folder: Path) -> None:
    """Links, pipes, missing and surplus files, odd names."""
    name = rng.choice([MANIFEST, *sorted(read(folder)["files"])])
    victim, outside = folder / name, folder.parent / "outside.txt"
    match rng.randrange(10):
        case 0:
            victim.unlink()
        case 1:
            victim.unlink()
            victim.symlink_to(rng.choice((outside, Path("/dev/zero"), Path("../outside.txt"))))
        case 2:
            victim.unlink()
            os.mkfifo(victim)
        case 3:
            (folder / "extra").symlink_to(folder.parent)
        case 4:
            (folder / "a/b/c/d/e/f/g/h/i/j/k").mkdir(parents=True)
        case 5:
            Path(os.fsdecode(bytes(folder) + b"/\xff\x1b[2J")).write_text("x")
        case 6:
            victim.unlink()
            victim.mkdir()
        case 7:
            os.link(victim, folder / "twin")
        case 8:
            (folder / "engines").rename(folder.parent / "moved")
            (folder / "engines").symlink_to(folder.parent / "moved")
        case 9:
            os.mkfifo(folder / "pipe")


def model_variable(data: bytes, name: str) -> int:
    """Where in a model.bin the rank of a variable stands."""
    key = struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
    return data.index(key) + len(key)


def change_model(rng: random.Random, folder: Path) -> None:
    """Change what model.bin says of a variable, or its values; sizes and hashes follow."""
    from export.runtime.ctranslate2_format import read_table

    data = bytearray((folder / MODEL).read_bytes())
    entries = read_table(folder / MODEL).entries
    name = rng.choice(sorted(entries))
    entry = entries[name]
    head = model_variable(bytes(data), name) + 1
    width = {"float32": 4, "int16": 2, "int8": 1}[entry.dtype]
    match rng.randrange(5):
        case 0:
            dims = list(entry.shape) or [1]
            dims[rng.randrange(len(dims))] = rng.choice((0, 1, 7, 1 << 16, 1 << 31, (1 << 32) - 1))
            data[head : head + 4 * len(entry.shape)] = struct.pack(
                f"<{len(entry.shape)}I", *dims[: len(entry.shape)]
            )
        case 1:
            shape = entry.shape[::-1]
            data[head : head + 4 * len(shape)] = struct.pack(f"<{len(shape)}I", *shape)
        case 2:
            data[head + 4 * len(entry.shape)] = rng.randrange(8)
        case 3:
            count = len(data[entry.offset :]) if not entry.shape else 40
            for _ in range(min(count, 40)):
                at = entry.offset + width * rng.randrange(max(1, _elements(entry.shape)))
                value = rng.choice((float("nan"), float("inf"), 3e38, -3e38, 0.0, 1e-45))
                data[at : at + width] = (
                    struct.pack("<f", value) if width == 4 else rng.randbytes(width)
                )
        case 4:
            data = bytearray(damaged(rng, bytes(data)))
    (folder / MODEL).write_bytes(data)
    list_again(folder)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def write_model(
    path: Path,
    arrays: dict[str, Any],
    spec: str = "TransformerSpec",
    revision: int = 7,
    version: int = 6,
) -> None:
    """Write arrays as a well-formed model.bin without aliases."""
    types = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text(spec), struct.pack("<II", revision, len(arrays))]
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        kind = struct.pack("<BI", types[str(array.dtype)], array.nbytes)
        parts += [text(name), shape, kind, array.tobytes()]
    path.write_bytes(b"".join([*parts, struct.pack("<I", 0)]))


def change_small_files(rng: random.Random, folder: Path) -> None:
    """Damage tokenizer, vocabulary or configuration of an engine; sizes and hashes follow."""
    engine = "engines/ctranslate2-int8"
    names = ("tokenizer.model", f"{engine}/config.json", f"{engine}/shared_vocabulary.json")
    path = folder / rng.choice((*names, names[0]))
    path.write_bytes(damaged(rng, path.read_bytes()))
    list_again(folder)


def change_onnx(rng: random.Random, folder: Path) -> None:
    """Damage the ONNX graph, mostly where its nodes stand; size and hash follow."""
    path = folder / "engines/onnx-int8/greedy.onnx.gz"
    if rng.random() < 0.2:
        path.write_bytes(damaged(rng, path.read_bytes()))
        list_again(folder)
        return
    data = bytearray(gzip.decompress(path.read_bytes()))
    if rng.random() < 0.5:
        data = bytearray(damaged(rng, bytes(data)))
    else:
        for _ in range(rng.randint(1, 10)):
            data[rng.randrange(min(len(data), 20_000))] = rng.randrange(256)
    path.write_bytes(gzip.compress(data, 1))
    list_again(folder)


HARMS: tuple[Harm, ...] = (change_tree, change_text, rename_listed, change_bytes, change_folder)
ENGINE_HARMS: tuple[Harm, ...] = (change_model, change_small_files, change_onnx)

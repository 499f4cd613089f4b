"""An Argos package is unpacked within its bounds, or refused; nothing is written elsewhere."""

from __future__ import annotations

import random
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from export.argos_package import open_argos
from export.imported_ctranslate2 import import_argos
from export.runtime.bundle import BundleError
from tests.export import foreign
from tests.export.hostile import damaged
from tests.export.test_bundle_fuzz import tree

CASES = 100
METADATA = '{"from_code": "en", "to_code": "de", "package_version": "1"}'
FILES = {
    "top/metadata.json": METADATA,
    "top/README.md": "License: MIT",
    "top/sentencepiece.model": "not read yet",
    "top/model/model.bin": "weights",
    "top/model/config.json": "{}",
    "top/stanza/x.pt": "pickle",
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders lie where the test can see what is left of them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def package(path: Path, files: dict[str, str], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        for member, data in more:
            archive.writestr(member, data)
    return path


def refused(path: Path, message: str, scratch: Path) -> None:
    before = tree(path.parent)
    with pytest.raises(BundleError, match=message), open_argos(path):
        pass
    after = tree(path.parent)
    assert after.keys() == before.keys()
    assert not list(scratch.iterdir())


def test_what_is_read_is_unpacked_and_removed(tmp_path: Path, scratch: Path) -> None:
    with open_argos(package(tmp_path / "a.argosmodel", FILES)) as opened:
        assert opened.files == {
            *("metadata.json", "README.md", "sentencepiece.model"),
            *("model/model.bin", "model/config.json"),
        }
        assert opened.text("from_code") == "en"
        assert opened.text("target_prefix") == ""
        assert (opened.folder / "model/model.bin").read_text() == "weights"
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())


def test_a_package_needs_no_top_folder(tmp_path: Path) -> None:
    plain = {name.removeprefix("top/"): text for name, text in FILES.items()}
    with open_argos(package(tmp_path / "a.argosmodel", plain)) as opened:
        assert "model/model.bin" in opened.files


def test_an_unpacked_package_is_read_where_it_is(tmp_path: Path, scratch: Path) -> None:
    with zipfile.ZipFile(package(tmp_path / "a.argosmodel", FILES)) as archive:
        archive.extractall(tmp_path)
    with open_argos(tmp_path / "top") as opened:
        assert opened.folder == tmp_path / "top"
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("top/metadata.json"), "has no metadata.json at its top, only top"),
        (lambda f: f.update({"other/metadata.json": "{}"}), "has 2 files metadata.json"),
        (lambda f: f.update({"top/metadata.json": "{"}), "metadata.json is not JSON"),
        (lambda f: f.update({"top/metadata.json": "[]"}), "is not a JSON object"),
        (lambda f: f.update({"top/metadata.json": '{"type": "sbd"}'}), "a package of type 'sbd'"),
        (
            lambda f: (f.pop("top/model/model.bin"), f.pop("top/model/config.json")),
            "has metadata.json, but no model/ folder",
        ),
        (lambda f: f.pop("top/sentencepiece.model"), "the package is not whole"),
        (
            lambda f: f.update({"top/bpe.model": f.pop("top/sentencepiece.model")}),
            r"splits words with bpe\.model \(Moses and subword-nmt\)",
        ),
    ],
)
def test_packages_that_are_not_whole(
    tmp_path: Path, scratch: Path, change: Callable[[dict[str, str]], object], message: str
) -> None:
    files = dict(FILES)
    change(files)
    refused(package(tmp_path / "a.argosmodel", files), message, scratch)


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "top/../../x", "/tmp/x", "//x", "top//x", "./x", "C:/x", "top/model/.."),
        *("..\\x", "top\\model\\x", "top/./model/model.bin", ""),
    ],
)
def test_a_name_that_leads_outside(tmp_path: Path, scratch: Path, name: str) -> None:
    member = zipfile.ZipInfo("placeholder")
    member.filename = name
    path = package(tmp_path / "a.argosmodel", FILES, (member, b"x"))
    refused(path, "outside|no plain path", scratch)


@pytest.mark.parametrize("name", ["top/model/a b", "top/model/é", "top/model/con", "top/model/x."])
def test_a_name_that_no_bundle_may_hold(tmp_path: Path, scratch: Path, name: str) -> None:
    path = package(tmp_path / "a.argosmodel", {**FILES, name: "x"})
    refused(path, "not a plain relative path|device on Windows", scratch)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_links_and_devices(tmp_path: Path, scratch: Path, kind: int) -> None:
    member = zipfile.ZipInfo("top/model/vocabulary.txt")
    member.external_attr = (kind | 0o777) << 16
    path = package(tmp_path / "a.argosmodel", FILES, (member, b"/etc/passwd"))
    refused(path, "a link or special file", scratch)


def test_bombs(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package(tmp_path / "ratio.argosmodel", {**FILES, "top/model/x": "0" * (2 << 20)})
    refused(path, "is made to do harm", scratch)
    many = {f"top/x{number}": "" for number in range(1001)}
    refused(package(tmp_path / "many.argosmodel", {**FILES, **many}), "over 1000 files", scratch)
    monkeypatch.setattr("export.archives.MAX_DOWNLOAD_BYTES", 20)
    refused(package(tmp_path / "large.argosmodel", FILES), "unpacks to 6 files of", scratch)


def test_a_member_that_is_longer_than_it_declares(tmp_path: Path, scratch: Path) -> None:
    """A short CRC-32 of the first bytes is what an attacker would give."""
    path = package(tmp_path / "a.argosmodel", {**FILES, "top/model/x": "y" * 5000})
    data = bytearray(path.read_bytes())
    sizes = struct.pack("<L", 5000)
    for _ in range(data.count(sizes)):
        at = data.index(sizes)
        data[at : at + 4] = struct.pack("<L", 9)
    path.write_bytes(data)
    refused(path, "not a whole zip file|longer than it declares", scratch)


def test_a_name_twice(tmp_path: Path, scratch: Path) -> None:
    member = zipfile.ZipInfo("top/model/MODEL.bin")
    path = package(tmp_path / "a.argosmodel", FILES, (member, b"x"))
    refused(path, "twice", scratch)


def test_an_encrypted_package(tmp_path: Path, scratch: Path) -> None:
    path = package(tmp_path / "a.argosmodel", FILES)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    refused(path, "is encrypted", scratch)


def test_other_compression(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "a.argosmodel"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("top/metadata.json", METADATA)
    refused(path, "in a way that is not read", scratch)


def test_a_large_directory_is_not_read(tmp_path: Path, scratch: Path) -> None:
    path = package(tmp_path / "a.argosmodel", FILES)
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    for changed in (
        data[: end + 12] + struct.pack("<L", 1 << 30) + data[end + 16 :],
        data[: end + 10] + struct.pack("<H", 0xFFFF) + data[end + 12 :],
        data[:end] + locator + data[end:],
    ):
        path.write_bytes(changed)
        refused(path, "over 1000 files, or 4 GiB", scratch)


def test_what_is_no_zip_file(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "a.argosmodel"
    for data in (b"", b"PK\x05\x06", b"x" * 100_000):
        path.write_bytes(data)
        refused(path, "is no zip file", scratch)
    with pytest.raises(BundleError, match="there is no Argos package"), open_argos(tmp_path / "no"):
        pass
    link = tmp_path / "link.argosmodel"
    link.symlink_to(package(tmp_path / "real", FILES))
    refused(link, "is a link or special file", scratch)


def test_a_damaged_package_is_imported_or_refused(tmp_path: Path, scratch: Path) -> None:
    english = foreign.train_sentencepiece(tmp_path / "en.model")
    folder = foreign.make_folder(tmp_path / "model", english, quantization="int8")
    whole = foreign.make_argos(tmp_path / "whole.argosmodel", folder, english).read_bytes()
    path = tmp_path / "a.argosmodel"
    said: list[str] = []
    for seed in range(CASES):
        rng = random.Random(seed)
        data = damaged(rng, whole)
        if seed % 2:  # the directory at the end says where everything lies
            changed = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                changed[-rng.randrange(1, 700)] = rng.randrange(256)
            data = bytes(changed)
        path.write_bytes(data)
        try:
            import_argos(path, tmp_path / "out", licence="MIT")
        except BundleError as error:
            said.append(str(error))
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert not list(scratch.iterdir()), f"seed {seed}"
    assert CASES / 2 < len(said) < CASES
    assert all(message.isprintable() for message in said)

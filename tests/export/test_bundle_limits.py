"""Names, JSON and files that a bundle may not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.runtime.bundle import (
    Bundle,
    BundleError,
    list_files,
    load_bundle,
    open_plain,
    read_small,
)
from export.runtime.manifest import (
    MAX_FILES,
    FileEntry,
    Manifest,
    path_fault,
    printable,
    strict_json,
)


@pytest.mark.parametrize(
    "name",
    ["README.md", "engines/ctranslate2-int8/model.bin", "a", "a_b-c.d.e", "_x", "conx", "x1"],
)
def test_plain_names(name: str) -> None:
    assert path_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/x", "a/../b", "a//b", "a/", "./a", "a/./b", ".hidden", "a/.b"),
        *("a\\b", "C:x", "a\0b", "a\nb", "a b", "x.", "é", "e\u0301", "\u202ex", "\uff0e\uff0e/x"),
        *("con", "NUL", "aux.txt", "a/COM1.x", "LPT9", "x" * 101, "/".join("abcdefghi")),
        *("/".join(["x" * 60] * 4), "~", "*", "$(x)", "-x"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    assert path_fault(name)


def test_what_is_printed_cannot_steer_a_terminal() -> None:
    assert printable("en → de: „Grüße“ 你好") == "en → de: „Grüße“ 你好"
    shown = printable("a\x1b[2Jb\u202ec\u200bd\r\n\udc80")
    assert shown == "a\\x1b[2Jb\\u202ec\\u200bd\\r\\n\\udc80"


def test_json_with_one_meaning() -> None:
    assert strict_json('{"a": [1, -2.5e3, "ü", null, true]}'.encode()) == {
        "a": [1, -2500.0, "ü", None, True]
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' comes twice"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"[1e999]", "1e999 is too large"),
        (b"[" + b"9" * 21 + b"]", "more than 20 digits"),
        (b'["\\ud800"]', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\xff", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} x", "Extra data"),
    ],
)
def test_other_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json(data)


def listed(manifest: Manifest, *more: str) -> dict[str, object]:
    """A manifest as JSON with empty files added to its list."""
    raw = manifest.model_dump(mode="json")
    raw["files"].update({name: {"bytes": 0, "sha256": "0" * 64} for name in more})
    return raw


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["readme.md"], "differ in case only"),
        (["MANIFEST.json"], "differ in case only"),
        (["manifest.json"], "cannot list itself"),
        (["README.md/x"], "README.md is both a file and a folder|readme.md is both"),
        ([f"x{index}" for index in range(MAX_FILES)], f"at most {MAX_FILES}"),
    ],
)
def test_lists_that_fit_no_disk_are_refused(
    pristine_bundle: Bundle, names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest.model_validate(listed(pristine_bundle.manifest, *names))


def test_sizes_have_limits(pristine_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="less than or equal"):
        FileEntry(bytes=1 << 40, sha256="0" * 64)
    raw = listed(pristine_bundle.manifest)
    with pytest.raises(ValueError, match="vocab_size"):
        Manifest.model_validate({**raw, "vocab_size": 1_000_001})
    with pytest.raises(ValueError, match="licence"):
        Manifest.model_validate({**raw, "licence": "x" * 10_001})


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * 10)
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_small(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(BundleError, match="larger than 9"):
        read_small(tmp_path / "file", 9)
    for name in ("link", "pipe", ""):
        with (
            pytest.raises(BundleError, match="is a link or special file"),
            open_plain(tmp_path / name),
        ):
            pass


def test_a_folder_of_too_much_is_not_walked(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    for index in range(2 * MAX_FILES + 1):
        (tmp_path / "wide" / str(index)).mkdir()
    with pytest.raises(BundleError, match="holds over"):
        list_files(tmp_path / "wide")
    (tmp_path / "deep" / "/".join("a" * 20)).mkdir(parents=True)
    with pytest.raises(BundleError, match="too deep"):
        list_files(tmp_path / "deep")


def test_a_hard_link_is_a_plain_file(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "recipe.yaml").rename(tmp_path / "elsewhere.yaml")
    (bundle.path / "recipe.yaml").hardlink_to(tmp_path / "elsewhere.yaml")
    assert load_bundle(bundle.path).manifest == bundle.manifest


def test_a_folder_that_may_not_be_read_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BundleError, match=r"cannot be read .*Permission denied"):
        load_bundle(bundle.path)

"""Writes are whole or absent, also after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy.atomic import atomic_folder, atomic_write
from quickstudy.errors import QuickstudyError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_and_fail(folder: Path) -> None:
    (folder / "lost").touch()
    raise FileNotFoundError


def test_write_makes_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "note.txt"
    atomic_write(path, "grün")
    assert path.read_bytes() == "grün".encode()
    atomic_write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["note.txt"]


def test_write_leaves_usual_permissions(tmp_path):
    atomic_write(tmp_path / "note", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "note").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failed_write_keeps_the_former_file(tmp_path):
    path = tmp_path / "note.txt"
    atomic_write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "\ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_pipe_or_device_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(QuickstudyError, match="a pipe"):
        atomic_write(path, "x")
    with pytest.raises(QuickstudyError, match="a pipe"), atomic_folder(path):
        pass
    assert path.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_an_empty_name_is_refused():
    with pytest.raises(IsADirectoryError):
        atomic_write("", "x")


def test_folder_appears_only_at_the_end_and_replaces(tmp_path):
    path = tmp_path / "deep" / "out"
    for content in ("one", "two"):
        with atomic_folder(path) as draft:
            (draft / content).write_text(content)
            assert draft.parent == path.parent
            assert not (path / content).exists()
        assert names(path) == [content]
    assert names(path.parent) == ["out"]


def test_failed_folder_keeps_the_former_one(tmp_path):
    path = tmp_path / "out"
    with atomic_folder(path) as draft:
        (draft / "kept").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(path) as draft:
        write_and_fail(draft)
    assert names(path) == ["kept"]
    assert names(tmp_path) == ["out"]


KILLED = """
import os, signal, sys
from quickstudy.atomic import atomic_folder
with atomic_folder(sys.argv[1]) as draft:
    (draft / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_drafts_of_a_killed_process_are_removed_by_the_next_write(tmp_path):
    path = tmp_path / "out"
    code = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode
    assert code == -signal.SIGKILL
    assert [name.endswith(".draft") for name in names(tmp_path)] == [True]
    with atomic_folder(path) as draft:
        (draft / "whole").touch()
    assert names(tmp_path) == ["out"]
    assert names(path) == ["whole"]


def test_drafts_in_use_and_other_names_are_left_alone(tmp_path):
    other = tmp_path / ".output.12345678.draft"
    other.touch()
    with atomic_folder(tmp_path / "out") as first:
        with atomic_folder(tmp_path / "out") as second:
            (second / "second").touch()
        (first / "first").touch()
    assert names(tmp_path / "out") == ["first"]
    assert names(tmp_path) == [".output.12345678.draft", "out"]


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path):
    former = tmp_path / ".out.0123abcd.former"
    former.mkdir()
    (former / "kept").touch()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "out"):
        raise KeyError
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["kept"]


def test_no_descriptor_is_left_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    atomic_write(tmp_path / "note", "x")
    for _ in range(3):
        with atomic_folder(tmp_path / "out"):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before

"""Disks that are full or cannot be written: one line, exit code 1, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from export.hub import push
from export.runtime.bundle import Bundle
from quickstudy import cli
from quickstudy.atomic import atomic_folder, atomic_write
from quickstudy.errors import ADVICE, explain, writing
from tests.export.conftest import bundle, pristine_bundle, tokenizer_path  # noqa: F401
from tests.training.conftest import corpus  # noqa: F401
from tests.training.test_trainer import make_run
from training.checkpoint import save_tensors
from training.data.cleaning import DuplicateFinder
from training.trainer import train

ROOT = Path(__file__).parents[1]
TINY = str(ROOT / "recipes" / "tiny.yaml")
RESULTS = str(ROOT / "benchmarks" / "results" / "bench-en-de" / "results.json")
LEFTOVERS = ("**/.*.draft", "**/.*.former", "**/*.tmp", "**/*.arrow", "**/bundle/*")


Said = Callable[..., str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command that fails; → the one line that it ends with."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        err = capsys.readouterr().err
        assert ended.value.code == 1, err
        lines = [line for line in err.splitlines() if line.startswith("quickstudy: ")]
        assert lines == err.splitlines()[-1:], err
        return lines[0]

    return run


def leftovers(folder: Path) -> list[Path]:
    return [path for pattern in LEFTOVERS for path in folder.glob(pattern)]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes; also of processes that are started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory of some options; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")

    def make(options: str) -> Path:
        if mount is None or os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield make
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle) -> str:  # noqa: F811
    """A place with one bundle."""
    push(bundle.path, str(tmp_path / "store"))
    return str(tmp_path / "store")


WRITERS = {
    "run": lambda disk, store: ("run", TINY, "--runs", str(disk)),
    "pull": lambda disk, store: ("bundle", "pull", store, str(disk / "bundle")),
    "recombine": lambda disk, store: (
        *("recombine", str(ROOT / "recipes" / "tiny" / "train.en")),
        *("--out", str(disk / "new.en"), "--sentences", "2000"),
    ),
    "report": lambda disk, store: ("bench", "report", RESULTS, "--out", str(disk / "report")),
    "keys": lambda disk, store: ("keys", "add", "me", "--file", str(disk / "keys.db")),
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("options", ["size=16k", "size=64k,ro"], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_is_one_line(
    mounted: Callable[[str], Path], store: str, said: Said, command: str, options: str
) -> None:
    disk = mounted(options)
    line = said(*WRITERS[command](disk, store))
    assert str(disk) in line
    assert ".draft" not in line
    reason = "the file system is read-only" if "ro" in options else "the disk is full"
    assert reason in line or command == "keys"  # SQLite has words of its own
    assert not leftovers(disk)


@pytest.mark.parametrize("command", WRITERS)
def test_a_folder_that_is_a_file_is_one_line(
    tmp_path: Path, store: str, said: Said, command: str
) -> None:
    (tmp_path / "file").touch()
    line = said(*WRITERS[command](tmp_path / "file", store))
    assert str(tmp_path / "file") in line
    assert "choose" in line or "name a file" in line


def test_a_file_that_grows_past_its_limit_is_one_line(tmp_path: Path, said: Said) -> None:
    with limited(50_000):
        line = said("prepare", TINY, "--runs", str(tmp_path))
    assert str(tmp_path / "tiny" / "corpus") in line
    assert "raise `ulimit -f`" in line
    assert not leftovers(tmp_path)


@pytest.mark.slow
def test_printing_to_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "quickstudy", "recipe", "schema"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("quickstudy: ")
    assert "the disk is full" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_training_names_the_file_that_cannot_be_written(
    corpus: Path,  # noqa: F811
    tmp_path: Path,
    processes: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = make_run(corpus, tmp_path / "run", processes=processes)
    with limited(20_000), pytest.raises(OSError, match="File too large") as caught:
        train(run)
    assert str(tmp_path / "run" / "resume-00000005" / "state.safetensors") in str(
        explain(caught.value)
    )
    assert "Traceback" not in capfd.readouterr().err
    assert not leftovers(tmp_path)


def test_a_line_names_the_file_and_what_to_do() -> None:
    assert explain(OSError(errno.ENOSPC, "x", "a/b")) == f"a/b: {ADVICE[errno.ENOSPC]}"
    assert explain(OSError(errno.EROFS, "x", "from", None, "to")) == f"to: {ADVICE[errno.EROFS]}"
    nameless = explain(OSError(errno.EDQUOT, "Quota exceeded"))
    assert nameless == f"Quota exceeded: {ADVICE[errno.EDQUOT]}"
    assert explain(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert explain(OSError("no number")) is None


def test_errors_without_a_file_name_the_one_being_written() -> None:
    with pytest.raises(OSError, match="full") as caught, writing("out/file"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == "out/file"
    with pytest.raises(OSError, match="full") as caught, writing("out/file"):
        raise OSError(errno.ENOSPC, "full", "another")
    assert caught.value.filename == "another"
    with pytest.raises(OSError, match=r"^words$"), writing("out/file"):
        raise OSError("words")


def test_drafts_are_called_by_what_they_become(tmp_path: Path) -> None:
    with limited(100), pytest.raises(OSError, match="too large") as caught:
        atomic_write(tmp_path / "note", "x" * 200)
    assert caught.value.filename == str(tmp_path / "note")
    (tmp_path / "big").write_bytes(b"x" * 200)
    for write in (
        lambda path: path.write_bytes(b"x" * 200),
        lambda path: shutil.copyfile(tmp_path / "big", path),
    ):
        with (
            limited(100),
            pytest.raises(OSError, match="too large") as caught,
            atomic_folder(tmp_path / "folder") as draft,
        ):
            write(draft / "one")
        line = str(explain(caught.value))
        assert line.startswith(str(tmp_path / "folder"))
        assert ".draft" not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big"]


def test_weights_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with limited(1000), pytest.raises(OSError, match="File too large") as caught:
        save_tensors(path, {"a": torch.zeros(1000)})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert not list(tmp_path.iterdir())
    save_tensors(path, {"a": torch.zeros(1000)})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_marks_of_duplicates_raise_where_a_mapped_page_would_kill(tmp_path: Path) -> None:
    finder = DuplicateFinder(tmp_path / "work", parts=8)
    finder.add([(f"a {number % 700}", "b") for number in range(1000)])
    with limited(900), pytest.raises(OSError, match="too large"):
        finder.marks()
    assert finder.marks().sum() == 300

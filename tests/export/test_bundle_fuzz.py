"""Whatever lies in a folder, loading it gives a bundle or a BundleError, and changes nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export.bundle import Bundle, BundleError, load_bundle
from tests.export import hostile

ROOT = Path(__file__).parents[2]
CASES = 120
ENGINE_CASES = 80


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of change of everything under a folder, links not followed."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent, name)
            info = path.lstat()
            found[str(path)] = (info.st_mode, info.st_size, info.st_mtime_ns)
    return found


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Fail if the block waits (for a pipe) or needs more than a second of processor time."""

    def ring(*_: object) -> None:
        raise AssertionError("it hangs")

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    start = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("harm", hostile.HARMS, ids=lambda harm: harm.__name__)
def test_a_harmed_bundle_loads_or_is_refused(
    tmp_path: Path, pristine_bundle: Bundle, harm: hostile.Harm
) -> None:
    said: list[str] = []
    for seed in range(CASES):
        case = tmp_path / str(seed)
        case.mkdir()
        (case / "outside.txt").write_text("mine")
        shutil.copytree(pristine_bundle.path, case / "bundle")
        harm(random.Random(seed), case / "bundle")
        before = tree(case)
        with no_longer_than(20):
            try:
                load_bundle(case / "bundle")
            except BundleError as error:
                said.append(str(error))
            except BaseException as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert tree(case) == before, f"seed {seed}"
        shutil.rmtree(case)
    assert len(said) > CASES / 3, "harm is to be noticed"
    assert all(message.isprintable() for message in said), "a terminal could be steered"


def test_an_engine_with_harmed_files_loads_or_is_refused(
    tmp_path: Path, pristine_bundle: Bundle
) -> None:
    """In a process of its own: a crash would end it with a signal."""
    paths = []
    for seed in range(ENGINE_CASES):
        paths.append(tmp_path / str(seed))
        shutil.copytree(pristine_bundle.path, paths[-1])
        harm = hostile.ENGINE_HARMS[seed % 3 == 2]
        harm(random.Random(seed), paths[-1])
    before = tree(tmp_path)
    code = [sys.executable, "-m", "tests.export.load_hostile", *map(str, paths)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout.splitlines()[-1] + done.stderr[-2000:]
    outcomes = [line.split(" ")[1] for line in done.stdout.splitlines()]
    assert len(outcomes) == ENGINE_CASES
    odd = [line for line in done.stdout.splitlines() if line.split()[1] not in OUTCOMES]
    assert not odd, odd
    assert outcomes.count("BundleError") > ENGINE_CASES / 2
    assert tree(tmp_path) == before


OUTCOMES = {"ok", "ok,", "BundleError"}

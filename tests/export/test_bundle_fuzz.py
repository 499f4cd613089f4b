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

from export.exporter import pieces_of
from export.runtime.bundle import Bundle, BundleError, load_bundle
from tests.export import hostile, tiny

ROOT = Path(__file__).parents[2]
CASES = 120
ENGINE_CASES = 90


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


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    """A bundle with a CTranslate2 and an ONNX engine, of random weights."""
    model = tiny.random_model(len(pieces_of(tokenizer_path)))
    return tiny.make_bundle(
        tmp_path_factory.mktemp("kinds") / "tiny",
        tokenizer_path,
        model=model,
        engines=["ctranslate2-int8", "onnx-int8"],
    )


def test_an_engine_with_harmed_files_loads_or_is_refused(tmp_path: Path, two_kinds: Bundle) -> None:
    """In a process of its own: a crash would end it with a signal."""
    paths = [tmp_path / "cases" / str(seed) for seed in range(ENGINE_CASES)]
    for seed, path in enumerate(paths):
        shutil.copytree(two_kinds.path, path)
        harm = hostile.ENGINE_HARMS[seed % len(hostile.ENGINE_HARMS)]
        harm(random.Random(seed), path)
    before = tree(tmp_path / "cases")
    out = tmp_path / "outcomes.txt"
    code = [sys.executable, "-m", "tests.export.load_hostile", str(out), *map(str, paths)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=300)
    lines = out.read_text().splitlines()
    assert done.returncode == 0, f"{lines[-1]}\n{done.stderr[-2000:]}"
    assert len(lines) == 2 * ENGINE_CASES
    odd = [line for line in lines if line.split()[2] not in ("ok", "ok,", "BundleError")]
    assert not odd, odd
    refused = sum(line.split()[2] == "BundleError" for line in lines)
    assert refused > ENGINE_CASES / 2, "harm is to be noticed"
    assert tree(tmp_path / "cases") == before

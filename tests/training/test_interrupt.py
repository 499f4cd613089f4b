"""Ctrl-C: one line that says what the same command does next, and no word from child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quickstudy.pipeline import build_stages
from training.config.io import load_recipe
from training.distributed import Orphaned, ParentWatch, die_with_parent, unreached, wait_for
from training.run import Run
from training.stage import run_stage

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "recipes" / "tiny.yaml")
CHILDREN = r"""
import multiprocessing, os, sys, time
from training.distributed import wait_for

def child():
    os.write(1, b"child\n")
    time.sleep(60)

def both():
    children = [multiprocessing.get_context("spawn").Process(target=child) for _ in range(2)]
    for one in children:
        one.start()
    print("started", flush=True)
    for one in children:
        one.join()

if __name__ == "__main__":
    try:
        wait_for(both)
    except KeyboardInterrupt:
        print("interrupted", len(multiprocessing.active_children()))
        sys.exit(130)
"""


def interrupt(
    command: list[str], after: str, seconds: float = 0.0
) -> tuple[subprocess.Popen[str], str, str]:
    """Start a command in a group of its own, and send its group SIGINT so long after a line.

    → the ended process, what was said up to then, what it said after.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    stop = threading.Timer(120, process.kill)
    stop.start()
    try:
        before = ""
        for line in process.stdout:
            before += line
            if after in line:
                break
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        process.wait()
    finally:
        stop.cancel()
    return process, before, rest


@pytest.mark.slow
@pytest.mark.parametrize("after", ["started", "child"])
def test_children_end_without_a_word(tmp_path: Path, after: str) -> None:
    """Also while they are starting, when no code of ours runs in them yet."""
    script = tmp_path / "script.py"
    script.write_text(CHILDREN)
    process, _, rest = interrupt([sys.executable, str(script)], after)
    assert process.returncode == 130
    assert rest.replace("child\n", "") == "interrupted 0\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "processes", "after", "seconds"),
    [("run", 2, "teacher: training on", 1.0), ("teacher", 1, "teacher:   1% step 5", 0.0)],
    ids=["while processes start", "one process at work"],
)
def test_training_says_that_the_same_command_goes_on(
    prepared: Path, stage: str, processes: int, after: str, seconds: float
) -> None:
    sets = (f"teacher.training.processes={processes}", "teacher.training.log_every=5")
    options = [TINY, "--runs", str(prepared), *(word for one in sets for word in ("--set", one))]
    command = [sys.executable, "-m", "quickstudy", stage, *options]
    process, _, rest = interrupt(command, after, seconds)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert rest.endswith(
        "quickstudy: interrupted: finished work is kept; run the same command again to continue\n"
    )
    assert rest.count("interrupted") == 1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder in which the tiny recipe's teacher comes next."""
    folder = tmp_path_factory.mktemp("runs")
    stages = build_stages(Run(load_recipe(TINY), folder / "tiny"))
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)
    return folder


@pytest.mark.slow
def test_what_does_not_go_on_says_so() -> None:
    """A command that waits for its input."""
    command = [
        sys.executable,
        "-u",
        "-c",
        "import sys; from quickstudy import cli; print('go'); cli.main()",
    ]
    bundle = ROOT / "models" / "everyday" / "en-de"
    process, _, rest = interrupt([*command, "translate", str(bundle)], "go", 1.0)
    assert process.returncode == 130
    assert rest == "quickstudy: interrupted: run the same command again to start over\n"


def test_what_the_task_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        wait_for(fail)


def test_the_signal_is_held_back_only_within_the_block() -> None:
    def blocked() -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with unreached():
        assert blocked()
        with pytest.raises(KeyError), unreached():
            raise KeyError
        assert blocked()
    assert not blocked()


def test_a_process_that_starts_after_its_parent_ended_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class System:
        prctl = staticmethod(lambda option, value: 0)

    monkeypatch.setattr("training.distributed.ctypes.CDLL", lambda name: System)
    die_with_parent(os.getppid())
    gone = os.getppid() + 1
    with pytest.raises(Orphaned):
        die_with_parent(gone)
    monkeypatch.setattr("training.distributed._spawning_process", lambda: gone)
    with pytest.raises(Orphaned):
        die_with_parent()
    with pytest.raises(Orphaned):
        ParentWatch().check()

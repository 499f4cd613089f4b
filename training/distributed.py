"""Processes, devices and precision of a training run, through Lightning Fabric.

Ctrl-C reaches a terminal's whole process group, but only the first process handles it: processes
started within `unreached` never see it, so they print no traceback; the first process ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from quickstudy.errors import QuickstudyError
from quickstudy.machine import usable_cores
from training.config.recipe import RecipeError, TrainingConfig

GRACE = 5.0
"""Seconds that a process is given to end before it is killed."""


@contextlib.contextmanager
def unreached() -> Iterator[None]:
    """Keep SIGINT from the processes and threads that this thread starts within the block: they
    inherit its signal mask. One that comes meanwhile is raised after the block."""
    resource_tracker.ensure_running()  # which, when it starts, lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_children() -> None:
    """End every process that `multiprocessing` started from here, and wait until they are gone."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(GRACE)
        if child.is_alive():
            child.kill()


def wait_for(task: Callable[[], None]) -> None:
    """Run `task`, which starts processes by `multiprocessing` and waits for them; raise what it
    raises. On Ctrl-C its processes end, and KeyboardInterrupt is raised."""
    failures: list[BaseException] = []
    done = threading.Event()  # a join that Ctrl-C has interrupted takes the thread for ended

    def work() -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    # A thread, since the processes are to inherit its mask while Ctrl-C wakes this one.
    with unreached():
        threading.Thread(target=work, daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        end_children()
        done.wait(GRACE)
        raise
    if failures:
        raise failures[0]


MOST_PROCESSES = 8


def process_count(config: TrainingConfig) -> int:
    """Processes on this machine: one a GPU, else one a core (`training.processes`)."""
    if config.processes != "auto":
        return config.processes
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return min(usable_cores(), MOST_PROCESSES)


def thread_count(processes: int) -> int:
    """Threads of each process: OMP_NUM_THREADS where set, else an equal share of the cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else max(1, usable_cores() // processes)


def precision(config: TrainingConfig) -> str:
    """bf16-mixed where the processor multiplies in bf16, else 32-true."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("avx512_bf16") else "32-true"


def _started_by_launcher() -> bool:
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first_process() -> bool:
    """Whether this process keeps a run's notes: true but in torchrun's other processes."""
    return not _started_by_launcher() or os.environ.get("RANK", "0") == "0"


def is_other_process() -> bool:
    """Whether this is another than the first process of a training that has several."""
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return known and torch.distributed.get_rank() > 0


def launch(config: TrainingConfig, function: Callable[..., Any], *arguments: Any) -> None:
    """Run `function(fabric, *arguments)` in every process of the run.

    Started plainly, the processes are spawned here; started by torchrun (several machines), this
    process is one of them already. Raises TrainingError where a process is killed.
    """
    count = process_count(config)
    nodes = 1
    if _started_by_launcher():
        count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        nodes = int(os.environ["WORLD_SIZE"]) // count
    several = count * nodes > 1
    strategy: Any = "auto"
    if several:
        strategy = DDPStrategy(
            start_method="popen" if _started_by_launcher() else "spawn",
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=count,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision(config),  # type: ignore[arg-type]
    )
    _quieten()
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    # A partial, since Fabric walks through plain arguments and refuses frozen dataclasses.
    task = partial(
        _in_process, function=function, count=count, arguments=arguments, failures=failures
    )
    if not several or _started_by_launcher():
        fabric.launch(task)
        return
    try:
        wait_for(lambda: fabric.launch(task))
    except ProcessRaisedException:
        if failures.empty():
            raise
        raise failures.get() from None
    except ProcessExitedException as error:
        raise TrainingError(
            f"a training process ended by itself ({error.signal_name or error.exit_code}; out of "
            "memory?): run the same command again, which goes on from its last save, with fewer "
            "processes or a smaller batch_tokens where it ends again"
        ) from None


def keep_memory() -> None:
    """Let the C library keep freed memory instead of giving it back to the system (glibc only).

    A training step frees and takes the same large buffers again; getting them from the system anew
    costs a page fault every 4 KB, 10 to 15 % of a step on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    mallopt(arena_max, 1)
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def settle_gpu() -> None:
    """Keep attention off cuDNN, which plans anew for every shape, and text's change with every
    batch; the other kernels need no plans."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def _quieten() -> None:
    """Keep the notes of Fabric and torch on their own workings out of the log."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning_fabric")


def _in_process(
    fabric: Fabric,
    function: Callable[..., Any],
    count: int,
    arguments: tuple[Any, ...],
    failures: Any,
) -> None:
    _quieten()
    if count > 1 and not _started_by_launcher():
        die_with_parent()
    settle_gpu()
    if fabric.device.type == "cpu":
        keep_memory()
        torch.set_num_threads(thread_count(count))
    try:
        function(fabric, *arguments)
    except (QuickstudyError, OSError) as error:
        # Else a spawned process's error reaches the user as a traceback in a string.
        failures.put(error)
        raise


class TrainingError(QuickstudyError, RuntimeError):
    """Training that cannot go on; the message says where and what to do."""


class Orphaned(RuntimeError):
    """The process that started this one is gone."""


def _spawning_process() -> int | None:
    """Number of the process that spawned this one by `multiprocessing`."""
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.pid


def die_with_parent(parent: int | None = None) -> None:
    """Have the system kill this process when its parent is gone (Linux), so that a killed run
    leaves none behind to write into its folder.

    `parent` is the parent's process number; default: that of the process that spawned this one.
    Raises Orphaned where it is gone already, as the system tells of later ends alone.
    """
    set_parent_death_signal = 1
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    parent = _spawning_process() if parent is None else parent
    if parent is not None and os.getppid() != parent:
        raise Orphaned("the process that started this one is gone")


class ParentWatch:
    """Ends a spawned process whose parent was killed, so that a resumed run is alone.

    A process that a shell started goes on when the shell ends (`nohup … &`).
    """

    def __init__(self) -> None:
        launched = os.getppid() if _started_by_launcher() else None
        self._parent = _spawning_process() or launched

    def check(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            raise Orphaned("the process that started this training is gone")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder of a run. Raises RecipeError where another process is at work in it.

    The lock lies beside the folder, which may be renamed meanwhile, and ends with its process.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(
                f"{folder}: another process is at work here; wait for it or stop it"
            ) from None
        yield

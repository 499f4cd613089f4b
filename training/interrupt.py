"""Ctrl-C reaches a terminal's whole process group; here it is for the first process alone.

Processes started within `unreached` never see it, so that they print no traceback of their own.
The first process ends them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

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

    def work() -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    # A thread, since the processes are to inherit its mask while Ctrl-C wakes this one.
    thread = threading.Thread(target=work, daemon=True)
    with unreached():
        thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        end_children()
        thread.join(GRACE)
        raise
    if failures:
        raise failures[0]

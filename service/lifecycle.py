"""How the service starts and stops, whatever server runs it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

from fastapi import FastAPI

from export.errors import BundleError
from service.traces import Traces
from service.translator import Translator

SWITCH_S = 0.0002
"""Seconds after which the event loop hands over Python's lock, 0.005 by default. A translating
thread needs it for moments between the engine's calls, and would wait that long for each."""

YOUNG_OBJECTS = 20_000
"""New objects after which Python looks for garbage among them, 700 by default: less than some
requests on their way have, which it would look through again and again."""

logger = logging.getLogger("quickstudy.service")


def load(app: FastAPI) -> None:
    """Open what the settings name: keys, jobs, bundles.

    Raises KeyFileError, JobsFolderError, BundleError.
    """
    _ = app.state.access.keys
    _ = app.state.jobs.store
    app.state.translator = Translator.load(app.state.settings)


async def start(app: FastAPI) -> None:
    """In the running event loop: heed signals, go on with the jobs of the last service.

    SIGHUP loads the bundles again; SIGTERM stops step by step (`service/stopping.py`).
    """
    loop = asyncio.get_running_loop()
    app.state.stopping.at_sigterm(app.state.translator.close_now)
    loop.add_signal_handler(signal.SIGHUP, lambda: _keep(loop.create_task(_reload(app))))
    app.state.jobs.start(app.state.translator)
    sys.setswitchinterval(SWITCH_S)
    # To look through what has been loaded takes a tenth of a second, in which nothing is answered.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


async def stop(app: FastAPI, traces: Traces) -> None:
    """End the queue's workers and the jobs, and close what `load` opened."""
    await asyncio.gather(app.state.jobs.close(), app.state.translator.close())
    app.state.access.close()
    await asyncio.to_thread(traces.close)


async def _reload(app: FastAPI) -> None:
    try:
        await app.state.translator.swap()
    except BundleError as error:
        logger.error("a bundle cannot be loaded, serving the former ones: %s", error)


_tasks: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """Hold a task until it is done: the loop itself does not."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)

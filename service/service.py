"""The BentoML service. All it does is join a FastAPI app with a loaded model."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
# uvicorn, which BentoML starts, would put what X-Forwarded-For says in the place of a local peer's
# address. Whom to believe is for QUICKSTUDY_TRUSTED_PROXIES alone to say.
os.environ["FORWARDED_ALLOW_IPS"] = ""

import bentoml

from export.errors import BundleError
from service.api.app import create_app, guarded
from service.bento import direct_service
from service.logs import configure_logs
from service.settings_report import SettingsError, read_settings
from service.traces import TracesError, open_traces
from service.translator import Translator

logger = logging.getLogger("quickstudy.service")

try:
    SETTINGS = read_settings()
    traces = open_traces()
    app = create_app(SETTINGS)
except (SettingsError, TracesError) as error:
    sys.exit(f"quickstudy: {error}")
configure_logs(SETTINGS.log_format, SETTINGS.log_level)
TIMEOUT_S = 10
"""BentoML keeps memory for each request this long; our own limit, `timeout_s`, comes before."""

served = guarded(app, SETTINGS, traces)


@bentoml.service(
    name="quickstudy",
    workers=1,
    traffic={"timeout": TIMEOUT_S},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    service_class=direct_service(served),
)
@bentoml.asgi_app(served, path="/")
class Translation:
    """Translates by the bundles that are set, in one process with as many threads as set."""

    def __init__(self) -> None:
        _ = app.state.access.keys  # a key file that cannot be used stops the start
        _ = app.state.jobs.store  # so does a folder for jobs
        app.state.translator = Translator.load(SETTINGS)

    @bentoml.on_startup
    async def watch_for_signals(self) -> None:
        """Load the bundles again when a SIGHUP comes; stop step by step when a SIGTERM does."""
        loop = asyncio.get_running_loop()
        app.state.stopping.at_sigterm(app.state.translator.close_now)
        loop.add_signal_handler(signal.SIGHUP, lambda: _keep(loop.create_task(_reload())))

    @bentoml.on_startup
    async def go_on_with_jobs(self) -> None:
        """Work on the files that the last service did not finish."""
        app.state.jobs.start(app.state.translator)

    async def __is_ready__(self) -> bool:
        translator: Translator = app.state.translator
        return await translator.ready()

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Stop the queue's workers, and the jobs."""
        await asyncio.gather(app.state.jobs.close(), app.state.translator.close())
        app.state.access.close()
        await asyncio.to_thread(traces.close)


async def _reload() -> None:
    try:
        await app.state.translator.swap()
    except BundleError as error:
        logger.error("a bundle cannot be loaded, serving the former ones: %s", error)


_tasks: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """Hold a task until it is done: the loop itself does not."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)

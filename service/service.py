"""The app as a BentoML service: `bentoml serve service.service:Translation`.

BentoML starts and stops the process; the app answers every request, in front of BentoML's own
routes. `quickstudy serve` runs the same app without BentoML (`service/server.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
# uvicorn, which BentoML starts, would replace a local peer's address by what X-Forwarded-For says.
# QUICKSTUDY_TRUSTED_PROXIES alone decides whom to trust.
os.environ["FORWARDED_ALLOW_IPS"] = ""

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from quickstudy.errors import QuickstudyError
from service.app import create_app, guarded, load, start, stop
from service.observability import configure_logs
from service.settings import read_settings
from service.tracing import open_traces

try:
    SETTINGS = read_settings()
    traces = open_traces()
    app = create_app(SETTINGS)
except QuickstudyError as error:
    sys.exit(f"quickstudy: {error}")
configure_logs(SETTINGS.log_format, SETTINGS.log_level)
TIMEOUT_S = 60
"""Seconds until a response must have begun, for slow uploads too: BentoML's limit for a request.
Our own limits, such as `timeout_s`, apply earlier."""

served = guarded(app, SETTINGS, traces)


class AnswerAll:
    """Middleware: the app answers every HTTP request, BentoML gets the rest (its lifespan)."""

    def __init__(self, app: ASGIApp) -> None:
        self._bentoml = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (served if scope["type"] == "http" else self._bentoml)(scope, receive, send)


@bentoml.service(
    name="quickstudy",
    workers=1,
    traffic={"timeout": TIMEOUT_S},
    tracing={"excluded_urls": [".*"]},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Translation:
    """Translates with the bundles of the settings, in one process."""

    def __init__(self) -> None:
        load(app)

    @bentoml.on_startup
    async def start(self) -> None:
        """Handle signals, and resume jobs."""
        await start(app)

    async def __is_ready__(self) -> bool:
        ready: bool = await app.state.translator.ready()
        return ready

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Stop the scheduler and the jobs."""
        await stop(app, traces)


cast("bentoml.Service[Any]", Translation).add_asgi_middleware(AnswerAll)

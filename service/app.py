"""The FastAPI app: the HTTP shapes joined together.

How the service starts and stops, whatever server runs it.

The routes that all the load comes by, without what a framework does around every request.

FastAPI describes and serves every route. It takes about as long to find it, to solve dependencies
and to copy the answer as our own code takes for the request. A direct route goes from the bytes of
the body to those of the answer, and leaves to FastAPI what is not plainly a valid request, so that
one place says what is wrong.

`/schema.json`, by which `bentoml.SyncHTTPClient` finds methods: `client.translate(text=…)`.

BentoML's own would list no method, since our routes are those of a mounted app.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Lifespan, Message, Receive, Scope, Send

from export.runtime.manifest import BundleError
from service.api import deepl, documents, libretranslate, native, ops
from service.auth import Access
from service.errors import ApiError, add_error_handlers, error_response
from service.jobs.queue import Jobs
from service.middleware import GracefulShutdown, RequestMiddleware
from service.observability import own_version
from service.settings import Settings
from service.tracing import NO_TRACES, Traces
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

    SIGHUP loads the bundles again; SIGTERM stops step by step (`service/middleware.py`).
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


FastRoute = Callable[[Request], Awaitable[Response | None]]
"""Answers a POST of JSON; None: FastAPI is to do it. May raise ApiError."""


class FastPath:
    """The app, with some POST routes answered directly, by their path."""

    def __init__(self, app: FastAPI, routes: Mapping[str, FastRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive)
        try:
            response = await route(request)
        except ApiError as error:
            response = error_response(scope["path"], error)
        if response is not None:
            await response(scope, receive, send)
            return
        unread: list[Message] = [
            {"type": "http.request", "body": await request.body(), "more_body": False}
        ]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value).partition(b";")[0].strip().lower() == b"application/json"
    return False


router = APIRouter(include_in_schema=False)


def bento_schema() -> dict[str, Any]:
    """The routes that are methods of BentoML's client."""
    return {
        "name": "quickstudy",
        "type": "service",
        "routes": [
            _route("translate", native.TranslateRequest, native.TranslateResponse),
            _route("detect", native.DetectRequest, native.DetectResponse),
        ],
    }


@router.get("/schema.json")
async def schema() -> dict[str, Any]:
    """The methods of BentoML's client."""
    return bento_schema()


def _route(name: str, request: type[BaseModel], response: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": name,
        "route": f"/v1/{name}",
        "doc": request.__doc__,
        "input": request.model_json_schema(),
        "output": response.model_json_schema(),
    }


CORS_MAX_AGE_S = 3600
PATHS = frozenset(
    (
        "/",
        "/docs",
        "/docs.json",
        "/openapi.json",
        "/schema.json",
        "/livez",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/translate",
        "/v1/translate/stream",
        "/v1/detect",
        "/v1/models",
        "/v1/languages",
        "/admin/models",
        *documents.PATHS,
        *deepl.PATHS,
        *deepl.DOCUMENT_PATHS,
        *libretranslate.PATHS,
    )
)
"""The paths that metrics tell apart."""
UPLOADS = frozenset((documents.UPLOAD_PATH, deepl.UPLOAD_PATH, libretranslate.UPLOAD_PATH))
"""Where files come in."""


FAST_PATHS: dict[str, FastRoute] = {
    "/v1/translate": native.translate_directly,
    "/translate": libretranslate.translate_directly,
    "/v2/translate": deepl.translate_directly,
}
"""Routes that do not pass FastAPI, unless it has middleware (CORS)."""


def create_app(
    settings: Settings,
    translator: Translator | None = None,
    lifespan: Lifespan[FastAPI] | None = None,
) -> FastAPI:
    """An app whose `state.translator` answers; until it is set, requests get 503."""
    app = FastAPI(
        title="Quickstudy",
        summary="Fast machine translation by a distilled model.",
        version=own_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.translator = translator
    app.state.access = Access(settings)
    app.state.jobs = Jobs(settings, app.state.access.refund_later)
    app.state.stopping = GracefulShutdown(settings.drain_s, settings.grace_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Content-Disposition", "Location", "Retry-After", "X-Request-ID"],
            max_age=CORS_MAX_AGE_S,
        )
    add_error_handlers(app)
    for each in (
        native.router,
        documents.router,
        libretranslate.router,
        deepl.router,
        ops.admin_router,
        ops.probes_router,
        ops.pages_router,
        router,
    ):
        app.include_router(each)
    return app


def guarded(app: FastAPI, settings: Settings, traces: Traces = NO_TRACES) -> RequestMiddleware:
    """The app as it is to be served."""
    upload_bytes = settings.max_file_bytes + settings.max_body_bytes
    return RequestMiddleware(
        app if app.user_middleware else FastPath(app, FAST_PATHS),
        settings.max_body_bytes,
        PATHS,
        uploads=dict.fromkeys(UPLOADS, upload_bytes),
        traces=traces,
        stopping=app.state.stopping,
    )

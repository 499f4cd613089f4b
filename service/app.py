"""The app: every API in one FastAPI app, with its middleware, and how it starts and stops.

`create_app` makes the FastAPI app and `guarded` wraps it in the middleware that a server needs.
`load`, `start` and `stop` are for the server around it: `service/server.py` (uvicorn) or
`service/service.py` (BentoML).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from export.runtime.manifest import BundleError
from service.api import deepl, deepl_glossaries, documents, libretranslate, native, ops
from service.auth import Access
from service.errors import add_error_handlers
from service.glossaries import GlossaryStore
from service.jobs.queue import Jobs
from service.middleware import FastPath, FastRoute, GracefulShutdown, RequestMiddleware
from service.observability import own_version
from service.settings import Settings, deprecated, unknown
from service.suggestions import SuggestionStore
from service.tracing import RequestTraces
from service.translator import Translator

SWITCH_S = 0.0002
"""Seconds after which the event loop hands over Python's lock; Python's default is 0.005. A thread
that translates needs the lock briefly between the engine's calls, and would wait that long each
time."""

YOUNG_OBJECTS = 20_000
"""New objects after which Python collects garbage among them; Python's default is 700. Requests in
progress hold more than that, and would be searched again and again."""

logger = logging.getLogger("quickstudy.service")


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
        *deepl_glossaries.PATHS,
        *libretranslate.PATHS,
    )
)
"""The paths that metrics distinguish."""
UPLOADS = frozenset((documents.UPLOAD_PATH, deepl.UPLOAD_PATH, libretranslate.UPLOAD_PATH))
"""Paths that receive files."""


FAST_PATHS: dict[str, FastRoute] = {
    "/v1/translate": native.translate_fast,
    "/translate": libretranslate.translate_fast,
    "/v2/translate": deepl.translate_fast,
}
"""Routes that are answered without FastAPI, unless it has middleware (CORS)."""


router = APIRouter(include_in_schema=False)


@router.get("/schema.json")
async def schema() -> dict[str, Any]:
    """The methods of `bentoml.SyncHTTPClient`, as in `client.translate(text=…)`. BentoML's own
    schema would list none, because our routes are those of a mounted app."""
    return {
        "name": "quickstudy",
        "type": "service",
        "routes": [
            _client_method("translate", native.TranslateRequest, native.TranslateResponse),
            _client_method("detect", native.DetectRequest, native.DetectResponse),
        ],
    }


def _client_method(
    name: str, request: type[BaseModel], response: type[BaseModel]
) -> dict[str, Any]:
    return {
        "name": name,
        "route": f"/v1/{name}",
        "doc": request.__doc__,
        "input": request.model_json_schema(),
        "output": response.model_json_schema(),
    }


def create_app(
    settings: Settings,
    translator: Translator | None = None,
    lifespan: Lifespan[FastAPI] | None = None,
) -> FastAPI:
    """The FastAPI app. `state.translator` translates; until it is set, requests get 503."""
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
    app.state.glossaries = GlossaryStore(
        lambda: app.state.jobs.folder.glossaries,
        settings.max_glossaries,
        settings.glossaries_bytes,
        has_keys=settings.keys_file is not None,
    )
    app.state.suggestions = (
        SuggestionStore(settings.suggestions_file, settings.max_suggestions)
        if settings.suggestions_file
        else None
    )
    app.state.shutdown = GracefulShutdown(settings.drain_s, settings.shutdown_grace_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Content-Disposition", "Location", "Retry-After", "X-Request-ID"],
            max_age=CORS_MAX_AGE_S,
        )
    add_error_handlers(app)
    for api_router in (
        native.router,
        documents.router,
        libretranslate.router,
        deepl.router,
        deepl_glossaries.router,
        ops.admin_router,
        ops.probes_router,
        ops.pages_router,
        router,
    ):
        app.include_router(api_router)
    return app


def guarded(
    app: FastAPI, settings: Settings, traces: RequestTraces | None = None
) -> RequestMiddleware:
    """The app with its middleware, as a server needs it."""
    upload_bytes = settings.max_file_bytes + settings.max_body_bytes
    return RequestMiddleware(
        app if app.user_middleware else FastPath(app, FAST_PATHS),
        settings.max_body_bytes,
        PATHS,
        uploads=dict.fromkeys(UPLOADS, upload_bytes),
        traces=traces,
        shutdown=app.state.shutdown,
    )


def load(app: FastAPI) -> None:
    """Open what the settings name: keys, suggestions, jobs, bundles.

    Raises KeyFileError, SuggestionFileError, JobsFolderError, BundleError.
    """
    for sentence in [*deprecated(), *unknown()]:
        logger.warning(sentence)
    _ = app.state.access.keys
    if app.state.suggestions is not None:
        app.state.suggestions.open()
    _ = app.state.jobs.store
    app.state.translator = Translator.load(app.state.settings)


async def start(app: FastAPI) -> None:
    """In the running event loop: handle signals, and resume the jobs of the previous run.

    SIGHUP reloads the bundles; SIGTERM shuts down gracefully (`service/middleware.py`).
    """
    loop = asyncio.get_running_loop()
    app.state.shutdown.at_sigterm(app.state.translator.close_now)
    loop.add_signal_handler(signal.SIGHUP, lambda: _keep(loop.create_task(_reload(app))))
    app.state.jobs.start(app.state.translator)
    sys.setswitchinterval(SWITCH_S)
    # Searching what was loaded would take a tenth of a second, in which nothing is answered.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


async def stop(app: FastAPI, traces: RequestTraces | None) -> None:
    """Stop the scheduler and the jobs, and close what `load` opened."""
    app.state.glossaries.close()
    await asyncio.gather(app.state.jobs.close(), app.state.translator.close())
    app.state.access.close()
    if app.state.suggestions is not None:
        app.state.suggestions.close()
    if traces is not None:
        await asyncio.to_thread(traces.close)


async def _reload(app: FastAPI) -> None:
    try:
        await app.state.translator.swap()
    except BundleError as error:
        logger.error("a bundle cannot be loaded, still serving the former ones: %s", error)


_tasks: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """Keep a reference to a task until it is done: the loop itself does not."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)

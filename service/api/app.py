"""The FastAPI app: the HTTP shapes joined together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.api import admin, bento_schema, deepl, libretranslate, native, pages, probes, stream
from service.api.access import Access
from service.api.errors import add_error_handlers
from service.api.guard import Guard
from service.settings import Settings
from service.stopping import Stopping
from service.traces import NO_TRACES, Traces
from service.translator import Translator

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
        *deepl.PATHS,
        *libretranslate.PATHS,
    )
)
"""The paths that metrics tell apart."""


def create_app(settings: Settings, translator: Translator | None = None) -> FastAPI:
    """An app whose `state.translator` answers; until it is set, requests get 503."""
    app = FastAPI(
        title="Quickstudy",
        summary="Fast machine translation by a distilled model.",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.translator = translator
    app.state.access = Access(settings)
    app.state.stopping = Stopping(settings.drain_s, settings.grace_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
            max_age=CORS_MAX_AGE_S,
        )
    add_error_handlers(app)
    for router in (native, stream, libretranslate, deepl, admin, probes, pages, bento_schema):
        app.include_router(router.router)
    return app


def guarded(app: FastAPI, max_body_bytes: int, traces: Traces = NO_TRACES) -> Guard:
    """The app as it is to be served."""
    return Guard(app, max_body_bytes, PATHS, traces, app.state.stopping)


def _version() -> str:
    try:
        return version("quickstudy")
    except PackageNotFoundError:
        return "0"

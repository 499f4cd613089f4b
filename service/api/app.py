"""The FastAPI app: the HTTP shapes joined together."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from service.api import (
    admin,
    bento_schema,
    deepl,
    deepl_documents,
    files,
    libretranslate,
    libretranslate_files,
    native,
    pages,
    probes,
    stream,
)
from service.api.access import Access
from service.api.direct import FastPath, FastRoute
from service.api.errors import add_error_handlers
from service.api.guard import RequestMiddleware
from service.jobs.jobs import Jobs
from service.metrics import own_version
from service.settings import Settings
from service.stopping import GracefulShutdown
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
        *files.PATHS,
        *deepl.PATHS,
        *deepl_documents.PATHS,
        *libretranslate.PATHS,
    )
)
"""The paths that metrics tell apart."""
UPLOADS = frozenset(
    (files.UPLOAD_PATH, deepl_documents.UPLOAD_PATH, libretranslate_files.UPLOAD_PATH)
)
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
    for router in (
        native,
        stream,
        files,
        libretranslate,
        libretranslate_files,
        deepl,
        deepl_documents,
        admin,
        probes,
        pages,
        bento_schema,
    ):
        app.include_router(router.router)
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

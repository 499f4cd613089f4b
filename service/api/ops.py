"""Routes for operators and browsers: probes, metrics, model swaps, and the web pages.

Only administrators may swap the served bundles. The pages (two panes to translate in, and the API's
documentation) load nothing from other hosts, and only their own scripts and styles.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field

from export.runtime.manifest import BundleError
from service.api.native import ModelList, model_list
from service.deps import ERRORS, AccessDep, TranslatorDep
from service.errors import ApiError, ErrorBody
from service.observability import exposition

probes_router = APIRouter(tags=["probes"])


class Status(BaseModel):
    """A probe's answer."""

    status: str


@probes_router.get("/livez")
@probes_router.get("/healthz")
async def healthz() -> Status:
    """Whether the process lives."""
    return Status(status="ok")


@probes_router.get("/readyz", responses={503: {"model": ErrorBody}})
async def readyz(request: Request, translator: TranslatorDep) -> Status:
    """Whether a translation has succeeded, and the service is not stopping."""
    if request.app.state.shutdown.has_begun:
        raise ApiError.later(503, "stopping", "the service is stopping: ask another one", 1)
    if not await translator.ready():
        raise ApiError(503, "not_ready", "no translation has succeeded: see the log")
    return Status(status="ready")


@probes_router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={status: {"model": ErrorBody} for status in (401, 403, 429)},
)
async def metrics(request: Request, access: AccessDep) -> PlainTextResponse:
    """Metrics in Prometheus' text format."""
    access.check_metrics(request)
    return PlainTextResponse(exposition(), media_type=CONTENT_TYPE_LATEST)


admin_router = APIRouter(prefix="/admin", tags=["administration"])


class SwapRequest(BaseModel):
    """Which bundles to serve from now on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"models": ["/models/en-de"]}, {}]}
    )

    models: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Bundle folders on the service's disk, the default one first; "
        "those of the settings, read again, if left out.",
    )


@admin_router.post(
    "/models",
    responses={
        400: ERRORS[400],
        401: {"model": ErrorBody, "description": "No key."},
        403: {"model": ErrorBody, "description": "Not an administrator's key."},
        415: ERRORS[415],
        429: {"model": ErrorBody, "description": "Too many wrong keys came from this address."},
        422: {"model": ErrorBody, "description": "A bundle cannot be served; nothing changed."},
    },
)
async def swap(
    request: Request, access: AccessDep, translator: TranslatorDep, body: SwapRequest
) -> ModelList:
    """Load bundles, prove them and put them in the place of the served ones.

    Requests that have begun end with the former ones. If one cannot be loaded, nothing changes.
    """
    access.check_admin(request)
    try:
        models = await translator.swap([Path(folder) for folder in body.models or []])
    except BundleError as error:
        raise ApiError(422, "bad_bundle", str(error), "models") from error
    return model_list(models.models)


pages_router = APIRouter(include_in_schema=False)

UI_FOLDER = Path(__file__).resolve().parents[1] / "ui"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
FILES = {
    path.name: path.read_bytes()
    for path in sorted(UI_FOLDER.iterdir())
    if path.suffix in MEDIA_TYPES
}
TAGS = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in FILES.items()}
"""Entity tags: a browser that has a file asks for it again, and gets 304 if it is the same."""
READ = ["GET", "HEAD"]


def _file(name: str, request: Request) -> Response:
    if name not in FILES:
        raise HTTPException(404)
    headers = {**HEADERS, "ETag": TAGS[name]}
    known = request.headers.get("If-None-Match", "").replace("W/", "")
    if TAGS[name] in {tag.strip() for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(FILES[name], media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@pages_router.api_route("/", methods=READ)
async def index(request: Request) -> Response:
    """The page to translate in."""
    return _file("index.html", request)


@pages_router.api_route("/docs", methods=READ)
async def docs(request: Request) -> Response:
    """The API's documentation, drawn from /openapi.json."""
    return _file("docs.html", request)


@pages_router.api_route("/docs.json", methods=READ)
async def docs_json(request: Request) -> Response:
    """The OpenAPI document, where BentoML has it."""
    return JSONResponse(request.app.openapi())


@pages_router.api_route("/ui/{name}", methods=READ)
async def ui_file(name: str, request: Request) -> Response:
    """A style sheet or a script of the pages."""
    return _file(name, request)

"""What operators ask: is the process alive, does it translate, and how is it doing?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from service.api.errors import ApiError, ErrorBody
from service.api.work import AccessDep, TranslatorDep
from service.metrics import exposition

router = APIRouter(tags=["probes"])


class Status(BaseModel):
    """A probe's answer."""

    status: str


@router.get("/livez")
@router.get("/healthz")
async def healthz() -> Status:
    """Whether the process lives."""
    return Status(status="ok")


@router.get("/readyz", responses={503: {"model": ErrorBody}})
async def readyz(request: Request, translator: TranslatorDep) -> Status:
    """Whether a translation has succeeded, and the service is not stopping."""
    if request.app.state.stopping.begun:
        raise ApiError.later(503, "stopping", "the service is stopping: ask another one", 1)
    if not await translator.ready():
        raise ApiError(503, "not_ready", "no translation has succeeded: see the log")
    return Status(status="ready")


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={status: {"model": ErrorBody} for status in (401, 403, 429)},
)
async def metrics(request: Request, door: AccessDep) -> PlainTextResponse:
    """Metrics in Prometheus' text format."""
    door.check_metrics(request)
    return PlainTextResponse(exposition(), media_type=CONTENT_TYPE_LATEST)

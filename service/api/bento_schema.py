"""`/schema.json`, by which `bentoml.SyncHTTPClient` finds methods: `client.translate(text=…)`.

BentoML's own would list no method, since our routes are those of a mounted app.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import native

router = APIRouter(include_in_schema=False)
OWN_PATHS = ("/schema.json", "/livez", "/healthz", "/readyz")


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


class OwnPaths:
    """Middleware that sends paths to `own` which BentoML would answer itself, and not as we do."""

    def __init__(self, app: ASGIApp, own: ASGIApp) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"] in OWN_PATHS
        await (self._own if ours else self._app)(scope, receive, send)


def _route(name: str, request: type[BaseModel], response: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": name,
        "route": f"/v1/{name}",
        "doc": request.__doc__,
        "input": request.model_json_schema(),
        "output": response.model_json_schema(),
    }

"""`/schema.json`, by which `bentoml.SyncHTTPClient` finds methods: `client.translate(text=…)`.

BentoML's own would list no method, since our routes are those of a mounted app.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import native

PATH = "/schema.json"


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


class BentoSchema:
    """Middleware that answers `GET /schema.json`, and passes on everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._response = JSONResponse(bento_schema())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mine = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "GET"
        await (self._response if mine else self._app)(scope, receive, send)


def _route(name: str, request: type[BaseModel], response: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": name,
        "route": f"/v1/{name}",
        "doc": request.__doc__,
        "input": request.model_json_schema(),
        "output": response.model_json_schema(),
    }

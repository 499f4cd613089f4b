"""`/schema.json`, by which `bentoml.SyncHTTPClient` finds methods: `client.translate(text=…)`.

BentoML's own would list no method, since our routes are those of a mounted app.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from service.api import native

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

"""The routes that all the load comes by, without what a framework does around every request.

FastAPI describes and serves every route. It takes about as long to find it, to solve dependencies
and to copy the answer as our own code takes for the request. A direct route goes from the bytes of
the body to those of the answer, and leaves to FastAPI what is not plainly a valid request, so that
one place says what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.api.errors import ApiError, error_response

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

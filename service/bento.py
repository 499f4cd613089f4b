"""A BentoML service of which BentoML starts, watches and stops the process, and answers nothing.

Around an app that is mounted, BentoML makes spans, keeps an access log and holds a timer and its
memory for each request's whole time limit, which takes a third of a request's processor time. The
app has all of that itself. So HTTP requests go to it directly; what starts and stops the service
still goes through BentoML.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, ClassVar

import bentoml
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.one_write import in_one_write

SWITCH_S = 0.0002
"""Seconds after which the event loop hands over Python's lock, 0.005 by default. A translating
thread needs it for moments between the engine's calls, and would wait that long for each."""

YOUNG_OBJECTS = 20_000
"""New objects after which Python looks for garbage among them, 700 by default: less than some
requests on their way have, which it would look through again and again."""


class DirectService(bentoml.Service[Any]):
    """A service whose HTTP requests all go to `own`, which is to be set on a subclass."""

    own: ClassVar[ASGIApp]

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """What uvicorn serves."""
        sys.setswitchinterval(SWITCH_S)
        return around(super().to_asgi(is_main), type(self).own)


def direct_service(own: ASGIApp) -> type[DirectService]:
    """The `service_class` of `bentoml.service` for an app."""
    return type("DirectService", (DirectService,), {"own": staticmethod(own)})


def around(inner: ASGIApp, own: ASGIApp) -> ASGIApp:
    """HTTP requests to `own`, all else (start and stop) to `inner`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            in_one_write(send)
            await own(scope, receive, send)
        else:
            await inner(scope, receive, _freezing(send))

    return app


def _freezing(send: Send) -> Send:
    """Have the garbage collector leave alone what is there when the service has started: to look
    through it takes a tenth of a second, in which no request is answered."""

    async def freeze_at_start(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG_OBJECTS)
        await send(message)

    return freeze_at_start

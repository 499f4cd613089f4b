"""The process that translates: the app on uvicorn, with what bounds connections.

The supervisor starts it with a listening socket, and a pipe into which it writes once a translation
has succeeded.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import uvicorn
from fastapi import FastAPI

from quickstudy_errors import QuickstudyError, explain
from service.api.app import create_app, guarded
from service.connections import BoundedProtocol, ConnectionTable, connection_limit
from service.lifecycle import load, start, stop
from service.logs import configure_logs
from service.settings_report import read_settings
from service.traces import Traces, open_traces

CANNOT_START = 78
"""Exit status when what is wrong has been said, in one line (EX_CONFIG of sysexits.h)."""
READY_POLL_S = 0.5

logger = logging.getLogger("quickstudy.service")


def serve(listener: socket.socket, ready_fd: int | None) -> None:
    """Serve by the settings of the environment until SIGTERM.

    Raises QuickstudyError for what the operator can mend.
    """
    settings = read_settings()
    traces = open_traces()
    configure_logs(settings.log_format, settings.log_level)
    app = create_app(settings, lifespan=_lifespan(traces, ready_fd))
    load(app)
    table = ConnectionTable(connection_limit(settings.max_connections), settings.head_timeout_s)
    protocol = type("Protocol", (BoundedProtocol,), {"table": table})
    config = uvicorn.Config(
        guarded(app, settings, traces),
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Serve on an inherited socket; exit status `CANNOT_START` after a line that says why."""
    parser = argparse.ArgumentParser(prog="service.server", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--ready-fd", type=int, help="where to tell that it translates")
    chosen = parser.parse_args()
    try:
        serve(socket.socket(fileno=chosen.fd), chosen.ready_fd)
    except QuickstudyError as error:
        print(f"quickstudy: {error}", file=sys.stderr, flush=True)
        return CANNOT_START
    except OSError as error:
        if (message := explain(error)) is None:
            raise
        print(f"quickstudy: {message}", file=sys.stderr, flush=True)
        return CANNOT_START
    return 0


def _lifespan(traces: Traces, ready_fd: int | None):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await start(app)
        telling = asyncio.create_task(_tell_when_ready(app, ready_fd))
        yield
        telling.cancel()
        await stop(app, traces)

    return lifespan


async def _tell_when_ready(app: FastAPI, ready_fd: int | None) -> None:
    while not await app.state.translator.ready():
        await asyncio.sleep(READY_POLL_S)
    if ready_fd is not None:
        os.write(ready_fd, b"ready")
        os.close(ready_fd)


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env bash
# BentoML 1.4.40: the time limit of a request (`traffic={"timeout": …}`) stays armed after the request
# has been answered. Each answered request leaves a timer in the event loop until its whole time is
# over, so memory grows with rate x timeout: a generous limit is not free.
#
# Seen with bentoml 1.4.40 on Python's own event loop, a timeout of 60 s: after 0, 50 and 100 answered
# requests 0, 50 and 100 timers that are due in more than 30 s are waiting, and none is cancelled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check bentoml==1.4.40 httpx
cat > "$folder/try.py" <<'PYTHON'
import asyncio
import gc
import sys

import bentoml
import httpx


@bentoml.service(traffic={"timeout": 60})
class Echo:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text


def waiting() -> int:
    """Timers that are due in more than 30 s."""
    gc.collect()
    soon = asyncio.get_running_loop().time() + 30
    handles = [one for one in gc.get_objects() if isinstance(one, asyncio.TimerHandle)]
    return sum(not one.cancelled() and one.when() > soon for one in handles)


async def main() -> list[int]:
    app = Echo.to_asgi()
    counts = []
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(2):
                counts.append(waiting())
                for _ in range(50):
                    (await client.post("/echo", json={"text": "a"})).raise_for_status()
            counts.append(waiting())
    return counts


found = asyncio.run(main())
print("timers after 0, 50 and 100 answered requests:", *found)
if found != [0, 50, 100]:
    sys.exit("the behaviour has changed")
PYTHON
export BENTOML_DO_NOT_TRACK=True BENTOML_HOME="$folder/bentoml" PROMETHEUS_MULTIPROC_DIR="$folder"
"$folder/venv/bin/python" -B "$folder/try.py"

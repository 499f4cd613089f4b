"""A prober in a process of its own: how long `/livez` takes while something else goes on.

Orders come as JSON lines: `{"port": 3000, "seconds": 5}` asks every `PERIOD_S`, each time by a new
connection as an orchestrator does, and gives `{"seconds": […]}`: latencies, null for no answer.
"""

from __future__ import annotations

import http.client
import json
import sys
import time

PERIOD_S = 0.02
PATIENCE_S = 10.0


def probe(port: int, seconds: float) -> list[float | None]:
    """Latencies of `/livez` over that time."""
    found: list[float | None] = []
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/livez", headers={"Connection": "close"})
            is_alive = connection.getresponse().status == 200
            found.append(time.monotonic() - begin if is_alive else None)
        except (OSError, http.client.HTTPException):
            found.append(None)
        finally:
            connection.close()
        time.sleep(max(0.0, begin + PERIOD_S - time.monotonic()))
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps({"seconds": probe(**json.loads(line))}), flush=True)

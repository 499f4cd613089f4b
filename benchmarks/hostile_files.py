"""Files that cost the most, sent to a served process: does it answer others meanwhile?

    python -m benchmarks.hostile_files                      # serves models/en-de, on loopback only
    python -m benchmarks.hostile_files --only docx odt --megabytes 2

One file at a time, each for a minute at most: while it is read and, if it is accepted, during the
first seconds of its translation, `/livez` is asked every 20 ms. Then the file is deleted.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.hostile_samples import HOSTILE, MEGABYTE, Hostile
from benchmarks.load.processes import children, resident_bytes
from benchmarks.load.served import HOST, Served

EVERY_S = 0.02
TIMEOUT_S = 60.0
TRANSLATED_S = 3.0
TARGET_S = 0.1
BOUNDARY = "hostile-files"
LANGUAGES = {"source": "en", "target": "de"}


@dataclass
class Watch:
    """`/livez`, asked again and again in a thread: seconds of each answer; the most memory of the
    service and of its readers, in bytes. A context manager."""

    served: Served
    seconds: list[float] = field(default_factory=list)
    service_bytes: int = 0
    reader_bytes: int = 0

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(HOST, self.served.port, timeout=TIMEOUT_S)
        while not self._over.wait(EVERY_S):
            begin = time.monotonic()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            self.seconds.append(time.monotonic() - begin)
            if len(self.seconds) % 10 == 1:
                self._weigh()
        connection.close()

    def _weigh(self) -> None:
        worker = self.served.worker
        self.service_bytes = max(self.service_bytes, resident_bytes(worker))
        for reader in children(worker):
            try:
                self.reader_bytes = max(self.reader_bytes, resident_bytes(reader))
            except OSError:
                continue

    def percentile(self, share: float) -> float:
        """Seconds that this share of the answers took at most."""
        if len(self.seconds) < 2:
            return max(self.seconds, default=0.0)
        return statistics.quantiles(self.seconds, n=1000, method="inclusive")[
            round(share * 1000) - 1
        ]


def send(served: Served, name: str, data: bytes) -> tuple[int, dict[str, object]]:
    """Send a file to be translated: the answer's status and body."""
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    fields = "".join(f'{head}"{key}"\r\n\r\n{code}\r\n' for key, code in LANGUAGES.items())
    begin = f'{fields}{head}"file"; filename="{name}"\r\n\r\n'
    body = begin.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return ask(served, "POST", "/v1/translate/file", body)


def ask(
    served: Served, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, object]]:
    """An answer's status and its JSON."""
    connection = http.client.HTTPConnection(HOST, served.port, timeout=2 * TIMEOUT_S)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else {}


def try_file(served: Served, hostile: Hostile, size: int) -> tuple[Watch, str]:
    """Send one file; what `/livez` did meanwhile, and the answer in words."""
    data = hostile.make(size)
    with Watch(served) as watch:
        begin = time.monotonic()
        status, answer = send(served, f"worst.{hostile.extension}", data)
        words = f"{status} after {time.monotonic() - begin:.1f} s"
        if status == 202:
            time.sleep(TRANSLATED_S)
            ask(served, "DELETE", f"/v1/files/{answer['id']}")
        elif isinstance(error := answer.get("error"), dict):
            words += f": {error['message']}"
    return watch, words


def main() -> int:
    """Print a line a file; 1 if `/livez` took longer than its target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("models/en-de"))
    parser.add_argument("--only", nargs="+", metavar="KIND", help="extensions of files to send")
    parser.add_argument("--megabytes", type=float, default=9.5, help="size of a file, 9.5 at most")
    chosen = parser.parse_args()
    size = int(min(chosen.megabytes, 9.5) * MEGABYTE)
    samples = [one for one in HOSTILE if not chosen.only or one.extension in chosen.only]
    print("| file | `/livez` p50, p99, most (ms) | service, reader (MB) | answer |")
    print("| --- | --- | --- | --- |")
    is_late = False
    with Served(chosen.bundle, {}) as served:
        for hostile in samples:
            watch, words = try_file(served, hostile, size)
            late = watch.percentile(0.99) > TARGET_S
            is_late = is_late or late
            times = (watch.percentile(0.5), watch.percentile(0.99), max(watch.seconds, default=0.0))
            print(
                f"| `.{hostile.extension}`: {hostile.what} "
                f"| {', '.join(f'{1000 * one:.0f}' for one in times)}{' (late)' if late else ''} "
                f"| {watch.service_bytes / MEGABYTE:.0f}, {watch.reader_bytes / MEGABYTE:.0f} "
                f"| {words} |",
                flush=True,
            )
    return int(is_late)


if __name__ == "__main__":
    raise SystemExit(main())

"""Clients and files that try to keep the service from others, and what others notice of them.

    python -m benchmarks.hostile clients                     # a minute and a half
    python -m benchmarks.hostile files                       # ten minutes
    python -m benchmarks.hostile files --only docx,odt --megabytes 2

Each command starts the service as a user does, on loopback only. While a hostile client sends a
bounded amount, or a costly file is read and then translated for a few seconds, another process asks
`/livez` fifty times a second. A table shows the latency of these probes, the service's memory, and
what was answered.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import statistics
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks.load.served import LoadWorker, ServiceProcess
from benchmarks.load.workers import HOST, PROBE_TIMEOUT_S
from quickstudy.machine import children, memory_bytes
from service.api_keys import KeyStore

MEGABYTE = 1_000_000
MEMORY_PERIOD_S = 0.05
BundleOption = Annotated[Path, typer.Option(help="Bundle to serve.")]

app = typer.Typer(add_completion=False, help="Try to keep the service from others.")


# --- what others notice ---------------------------------------------------------------------------


class Watch:
    """Probes `/livez` and reads the memory of the service's worker and of its file readers while
    the block runs. A context manager; what it saw is there after the block."""

    def __init__(self, served: ServiceProcess) -> None:
        self._served = served
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_memory)
        self._prober = LoadWorker("probe", str(served.port))
        self.seconds: list[float | None] = []
        """Latency of each probe; None for no answer."""
        self.worker_bytes = 0
        self.reader_bytes = 0

    def __enter__(self) -> Watch:
        self._prober.begin()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with self._prober:
            self.seconds = self._prober.run()["seconds"]

    def _read_memory(self) -> None:
        worker = self._served.worker
        while not self._over.wait(MEMORY_PERIOD_S):
            self.worker_bytes = max(self.worker_bytes, memory_bytes(worker))
            for reader in children(worker):
                with suppress(OSError):  # it may have ended
                    self.reader_bytes = max(self.reader_bytes, memory_bytes(reader))

    @property
    def answered(self) -> list[float]:
        """Latencies of the probes that were answered, in seconds."""
        return [latency for latency in self.seconds if latency is not None]

    @property
    def p99(self) -> float:
        """Seconds that 99 % of the answers took at most."""
        ordered = sorted(self.answered)
        return ordered[int(len(ordered) * 0.99)] if ordered else float("inf")

    def cells(self) -> list[str]:
        """Latencies in milliseconds, probes without an answer, the worker's memory in megabytes."""
        answered = self.answered or [float("inf")]
        times = (statistics.median(answered), self.p99, max(answered))
        lost = len(self.seconds) - len(self.answered)
        return [
            *(f"{1000 * seconds:.1f}" for seconds in times),
            f"{lost} of {len(self.seconds)}",
            f"{self.worker_bytes / MEGABYTE:.0f}",
        ]


WATCH_COLUMNS = ("p50 ms", "p99 ms", "most ms", "no answer", "MB")


def print_head(case: str, *more: str) -> None:
    """The head of a table whose rows have a name, a watch's cells and `more` columns."""
    print_row(case, *WATCH_COLUMNS, *more)
    print_row("---", *["--:"] * len(WATCH_COLUMNS), *["---"] * len(more))


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


# --- clients --------------------------------------------------------------------------------------

MAX_CONNECTIONS = 500
IDLE = 500
HALF_SENT = 200
CASE_S = 8.0
BIG_HEADER_BYTES = 50_000_000
HEADER_LINES_BYTES = 8_000_000
REQUESTS = 200
RATE = 50
SETTINGS = {
    "QUICKSTUDY_MAX_CONNECTIONS": str(MAX_CONNECTIONS),
    "QUICKSTUDY_RATE_LIMIT": f"{RATE}/minute",
    "QUICKSTUDY_LOG_LEVEL": "warning",
}

Case = Callable[[int, Counter[str]], None]
"""Sends what it has to a port and counts the answers."""


def nothing(port: int, answers: Counter[str]) -> None:
    """Only the probe."""


def large_header(port: int, answers: Counter[str]) -> None:
    """A header field of 50 MB."""
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: "
    answers[_send(port, head, b"a" * 1_000_000, BIG_HEADER_BYTES // 1_000_000)] += 1


def header_lines(port: int, answers: Counter[str]) -> None:
    """Five connections, each with 8 MB of header lines."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 90) for number in range(1000))
    for _ in range(5):
        head = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
        answers[_send(port, head, lines, HEADER_LINES_BYTES // len(lines))] += 1


def trailers(port: int, answers: Counter[str]) -> None:
    """8 MB of trailers."""
    head = b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
    answers[_send(port, head, b"a" * 1_000_000, HEADER_LINES_BYTES // 1_000_000)] += 1


def without_request(port: int, answers: Counter[str]) -> None:
    """500 connections without a request and 200 with half a head, all kept open."""
    with ExitStack() as opened:
        for number in range(IDLE + HALF_SENT):
            connection = opened.enter_context(_connect(port))
            if number >= IDLE:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost")
        time.sleep(CASE_S)
        answers["opened"] = IDLE + HALF_SENT


def slow_bodies(port: int, answers: Counter[str]) -> None:
    """600 connections with a whole head and half a body, all kept open."""
    head = b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n{"
    with ExitStack() as opened:
        for _ in range(600):
            opened.enter_context(_connect(port)).sendall(head)
        time.sleep(CASE_S)
        answers["opened"] = 600


def pipelined(port: int, answers: Counter[str]) -> None:
    """20 connections, each with 2,000 requests before it reads an answer."""
    for _ in range(20):
        request = b"GET /v1/languages HTTP/1.1\r\nHost: a\r\n\r\n"
        answers[_send(port, request * 2000, b"", 0)] += 1


def forwarded_for(port: int, answers: Counter[str]) -> None:
    """200 requests, each claiming another address; the rate is 50 a minute."""
    for number in range(REQUESTS):
        forwarded = f"X-Forwarded-For: 192.0.2.{number}\r\n".encode()
        answers[_translate(port, forwarded)] += 1


def wrong_keys(port: int, answers: Counter[str]) -> None:
    """200 requests with a wrong key."""
    for number in range(REQUESTS):
        answers[_translate(port, f"X-API-Key: wrong{number}\r\n".encode())] += 1


CASES: dict[str, Case] = {
    "none": nothing,
    "header of 50 MB": large_header,
    "5 × 8 MB of header lines": header_lines,
    "8 MB of trailers": trailers,
    "500 idle, 200 half-sent heads": without_request,
    "600 half-sent bodies": slow_bodies,
    "20 × 2,000 pipelined requests": pipelined,
    "200 forged `X-Forwarded-For`": forwarded_for,
    "200 wrong keys": wrong_keys,
}


@app.command("clients")
def try_clients(bundle: BundleOption = Path("models/en-de")) -> None:
    """Be every hostile client in turn and print a table."""
    with TemporaryDirectory() as folder:
        keys = Path(folder, "keys.sqlite")
        store = KeyStore(keys)
        store.add("unused")
        store.close()
        print_head("client", "answers", "refused")
        with ServiceProcess(bundle, {**SETTINGS, "QUICKSTUDY_KEYS_FILE": str(keys)}) as served:
            for name, case in CASES.items():
                before, answers = _refused(served), Counter[str]()
                with Watch(served) as watch:
                    end = time.monotonic() + CASE_S
                    case(served.port, answers)
                    time.sleep(max(0.0, end - time.monotonic()))
                refused = _refused(served) - before
                print_row(
                    name,
                    *watch.cells(),
                    ", ".join(f"{count} × {status}" for status, count in answers.most_common()),
                    ", ".join(f"{count} {reason}" for reason, count in refused.items()),
                )


def _connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=10)


def _send(port: int, head: bytes, part: bytes, times: int) -> str:
    """The status line of the response to these bytes, or `closed`."""
    with _connect(port) as connection:
        with suppress(OSError):
            connection.sendall(head)
            for _ in range(times):
                connection.sendall(part)
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    return answer.split(b"\r\n")[0].decode("latin-1") or "closed"


def _translate(port: int, header: bytes) -> str:
    body = b'{"text": "Good morning."}'
    head = (
        b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    )
    return _send(port, head + header + b"\r\n" + body, b"", 0)


def _refused(served: ServiceProcess) -> Counter[str]:
    refused: Counter[str] = Counter()
    for line in served.get("/metrics")[1].splitlines():
        if line.startswith("quickstudy_connections_refused_total{"):
            refused[line.split('"')[1]] = int(float(line.split()[-1]))
    return refused


# --- files ----------------------------------------------------------------------------------------

XLIFF_HEAD = (
    '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">'
    '<file source-language="en" original="a" datatype="plaintext"><body>'
)
XLIFF_TAIL = "</body></file></xliff>"
TMX_HEAD = '<tmx version="1.4"><header srclang="en"/><body>'
TMX_TAIL = "</body></tmx>"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
ODF = "urn:oasis:names:tc:opendocument:xmlns"
ATTRIBUTES = " ".join(f'a{number}=""' for number in range(250))
"""Attributes of an element, just below the limit."""
CUE = "1\n00:00:01,000 --> 00:00:02,000\n<i>a</i> {\\an8}b\n\n"
RUN = "<w:r><w:rPr><w:b/><w:i/></w:rPr><w:t>a</w:t></w:r><w:r><w:t>b</w:t></w:r>"
DEPTH = 200


@dataclass(frozen=True)
class HostileFile:
    """A costly file: its extension, what is costly about it, and how it is made at a given size."""

    extension: str
    description: str
    make: Callable[[int], bytes]


def repeated(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A maker of files that repeat one item up to a size."""
    return lambda size: (before + item * max(1, size // len(item)) + after).encode()


def docx(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A maker of Word documents whose body repeats one item up to a size."""

    def make(size: int) -> bytes:
        body = f"{before}{item * max(1, size // len(item))}{after}"
        types = (
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            f'<Override PartName="/word/document.xml" ContentType="{WORD_TYPE}"/></Types>'
        )
        document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        return _zipped({"[Content_Types].xml": types, "word/document.xml": document})

    return make


def odt(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A maker of OpenDocument texts whose body repeats one item up to a size."""

    def make(size: int) -> bytes:
        body = f"{before}{item * max(1, size // len(item))}{after}"
        content = (
            f'<office:document-content xmlns:office="{ODF}:office:1.0" xmlns:text="{ODF}:text:1.0">'
            f"<office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>"
        )
        return _zipped(
            {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content}
        )

    return make


def _zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return buffer.getvalue()


HOSTILE_FILES = (
    HostileFile("txt", "one word", repeated("", "a")),
    HostileFile("txt", "lines of a letter", repeated("", "a\n")),
    HostileFile("txt", "many sentences", repeated("", "A. ")),
    HostileFile("md", "brackets", repeated("", "[a](b *c* \n\n")),
    HostileFile("md", "unclosed comments", repeated("", "<!-- a\n\n")),
    HostileFile("md", "backticks", repeated("", "`a ``b \n\n")),
    HostileFile("md", "a heading of spaces", repeated("# a", " ", "b")),
    HostileFile("md", "links defined elsewhere", repeated("[a]: b\n\n", "[a] word\n\n")),
    HostileFile("html", "unclosed tags", repeated("", "<b>a<p>")),
    HostileFile("html", "tags around all", repeated("<b>", "<p>a</p>", "</b>")),
    HostileFile("html", "angle brackets", repeated("a ", "<")),
    HostileFile("html", "unclosed quotes", repeated("a ", '<a b="')),
    HostileFile("srt", "cues of two letters", repeated("", CUE)),
    HostileFile("srt", "one cue", repeated("1\n00:00:01,000 --> 00:00:02,000\n", "<i>a</i> b\n")),
    HostileFile("vtt", "cues of two letters", repeated("WEBVTT\n\n", CUE)),
    HostileFile("po", "messages of a letter", repeated("", 'msgid "a"\nmsgstr ""\n\n')),
    HostileFile("po", "strings of many lines", repeated('msgid ""\n', '"a"\n', 'msgstr ""\n')),
    HostileFile(
        "tmx",
        "attributes",
        repeated(
            TMX_HEAD,
            f'<tu><tuv xml:lang="en"><seg>a<hi {ATTRIBUTES}>b</hi></seg></tuv></tu>',
            TMX_TAIL,
        ),
    ),
    HostileFile(
        "tmx",
        "units of a letter",
        repeated(TMX_HEAD, '<tu><tuv xml:lang="en"><seg>a</seg></tuv></tu>', TMX_TAIL),
    ),
    HostileFile(
        "tmx",
        "inline elements",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>' + "<hi>a b</hi> c <ph/> " * 900 + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    HostileFile(
        "tmx",
        "elements in each other",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>'
            + "<hi>a" * DEPTH
            + "</hi>" * DEPTH
            + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    HostileFile(
        "tmx",
        "an element of 10,000 attributes",
        lambda size: (
            TMX_HEAD
            + '<tu><tuv xml:lang="en"><seg>a<hi '
            + " ".join(f'a{n}=""' for n in range(10_000))
            + ">b</hi></seg></tuv></tu>"
            + TMX_TAIL
        ).encode(),
    ),
    HostileFile(
        "xliff",
        "attributes",
        repeated(
            XLIFF_HEAD,
            f'<trans-unit id="1"><source>a<g {ATTRIBUTES}>b</g></source></trans-unit>',
            XLIFF_TAIL,
        ),
    ),
    HostileFile(
        "xliff",
        "units of a letter",
        repeated(XLIFF_HEAD, "<trans-unit><source>a</source></trans-unit>", XLIFF_TAIL),
    ),
    HostileFile(
        "xliff",
        "namespaces",
        repeated(
            XLIFF_HEAD.replace(
                "<file ", "<file " + " ".join(f'xmlns:n{n}="u{n}"' for n in range(250)) + " "
            ),
            '<trans-unit><source>a<g n1:a="">b</g></source></trans-unit>',
            XLIFF_TAIL,
        ),
    ),
    HostileFile("docx", "runs", docx("<w:p>", RUN * 300 + "</w:p><w:p>", "</w:p>")),
    HostileFile("docx", "paragraphs of a letter", docx("", "<w:p><w:r><w:t>a</w:t></w:r></w:p>")),
    HostileFile(
        "docx",
        "fields in each other",
        docx(
            "",
            "<w:p><w:r><w:t>a</w:t></w:r>"
            + '<w:r><w:fldChar w:fldCharType="begin"/></w:r>' * 290
            + "<w:hyperlink/>"
            + '<w:r><w:fldChar w:fldCharType="separate"/><w:fldChar w:fldCharType="end"/></w:r>'
            * 290
            + "</w:p>",
        ),
    ),
    HostileFile(
        "docx",
        "tabs in a run",
        docx(
            "<w:p>",
            "<w:r><w:rPr><w:b/><w:i/></w:rPr><w:t>a</w:t>"
            + "<w:tab></w:tab>" * 3000
            + "</w:r></w:p><w:p>",
            "</w:p>",
        ),
    ),
    HostileFile(
        "odt",
        "spans",
        odt("", "<text:p>" + '<text:span text:style-name="b">a</text:span>b' * 500 + "</text:p>"),
    ),
    HostileFile("odt", "paragraphs of a letter", odt("", "<text:p>a</text:p>")),
    HostileFile(
        "odt", "paragraphs in each other", odt("", "<text:p>a" * DEPTH + "</text:p>" * DEPTH)
    ),
)

MAX_MEGABYTES = 9.5
TRANSLATED_S = 3.0
TARGET_S = 0.1
"""The 99th percentile of `/livez` while a file is read and translated."""
BOUNDARY = "hostile-files"
LANGUAGES = {"source": "en", "target": "de"}


@app.command("files")
def try_files(
    bundle: BundleOption = Path("models/en-de"),
    only: Annotated[
        str | None, typer.Option(metavar="KINDS", help="Extensions of files to send, by comma.")
    ] = None,
    megabytes: Annotated[
        float, typer.Option(max=MAX_MEGABYTES, help="Size of a file.")
    ] = MAX_MEGABYTES,
) -> None:
    """Send every costly file in turn and print a table.

    Exit code 1 if `/livez` took longer than its target.
    """
    kinds = only.split(",") if only else [file.extension for file in HOSTILE_FILES]
    is_late = False
    print_head("file", "reader MB", "answer")
    with ServiceProcess(bundle, {}) as served:
        for file in HOSTILE_FILES:
            if file.extension not in kinds:
                continue
            data = file.make(int(megabytes * MEGABYTE))
            with Watch(served) as watch:
                answer = _submit(served, f"worst.{file.extension}", data)
            late = watch.p99 > TARGET_S
            is_late = is_late or late
            print_row(
                f"`.{file.extension}`: {file.description}{' (late)' if late else ''}",
                *watch.cells(),
                f"{watch.reader_bytes / MEGABYTE:.0f}",
                answer,
            )
    raise typer.Exit(int(is_late))


def _submit(served: ServiceProcess, name: str, data: bytes) -> str:
    """Send a file, let it be translated for a while and delete it; the answer in words."""
    begin = time.monotonic()
    status, answer = _send_file(served, name, data)
    words = f"{status} after {time.monotonic() - begin:.1f} s"
    if status == 202:
        time.sleep(TRANSLATED_S)
        _request(served, "DELETE", f"/v1/files/{answer['id']}")
    elif isinstance(error := answer.get("error"), dict):
        words += f": {error['message']}"
    return words


def _send_file(served: ServiceProcess, name: str, data: bytes) -> tuple[int, dict[str, Any]]:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    fields = "".join(f'{head}"{key}"\r\n\r\n{code}\r\n' for key, code in LANGUAGES.items())
    begin = f'{fields}{head}"file"; filename="{name}"\r\n\r\n'
    body = begin.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return _request(served, "POST", "/v1/translate/file", body)


def _request(
    served: ServiceProcess, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    """An answer's status and its JSON."""
    connection = http.client.HTTPConnection(HOST, served.port, timeout=2 * PROBE_TIMEOUT_S)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else {}


if __name__ == "__main__":
    app()

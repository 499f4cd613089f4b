"""Files that cost the most, sent to a served process: does it answer others meanwhile?

    python -m benchmarks.hostile_files                      # serves models/en-de, on loopback only
    python -m benchmarks.hostile_files --only docx odt --megabytes 2

One file at a time, each for a minute at most: while it is read and, if it is accepted, during the
first seconds of its translation, `/livez` is asked every 20 ms. Then the file is deleted.

Files of every kind that cost the most that the limits allow, and some that are over one.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load.served import HOST, Served, children, resident_bytes

MEGABYTE = 1_000_000
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
MANY = " ".join(f'a{number}=""' for number in range(250))
"""Attributes of an element, nearly as many as may be."""


@dataclass(frozen=True)
class Hostile:
    """A file: its name's extension, what is bad about it, and how it is made of some bytes."""

    extension: str
    what: str
    make: Callable[[int], bytes]


def repeated(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A file of so many bytes of one thing."""
    return lambda size: (before + item * max(1, size // len(item)) + after).encode()


def docx(paragraphs: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """A Word document whose body has so many bytes of one thing."""

    def make(size: int) -> bytes:
        body = f"{paragraphs}{item * max(1, size // len(item))}{after}"
        types = (
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            f'<Override PartName="/word/document.xml" ContentType="{WORD_TYPE}"/></Types>'
        )
        document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        return _zipped({"[Content_Types].xml": types, "word/document.xml": document})

    return make


def odt(before: str, item: str, after: str = "") -> Callable[[int], bytes]:
    """An OpenDocument text whose body has so many bytes of one thing."""

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


CUE = "1\n00:00:01,000 --> 00:00:02,000\n<i>a</i> {\\an8}b\n\n"
RUN = "<w:r><w:rPr><w:b/><w:i/></w:rPr><w:t>a</w:t></w:r><w:r><w:t>b</w:t></w:r>"
NESTED = 200

HOSTILE = (
    Hostile("txt", "one word", repeated("", "a")),
    Hostile("txt", "lines of a letter", repeated("", "a\n")),
    Hostile("txt", "many sentences", repeated("", "A. ")),
    Hostile("md", "brackets", repeated("", "[a](b *c* \n\n")),
    Hostile("md", "unclosed comments", repeated("", "<!-- a\n\n")),
    Hostile("md", "backticks", repeated("", "`a ``b \n\n")),
    Hostile("md", "a heading of spaces", repeated("# a", " ", "b")),
    Hostile("md", "links defined elsewhere", repeated("[a]: b\n\n", "[a] word\n\n")),
    Hostile("html", "unclosed tags", repeated("", "<b>a<p>")),
    Hostile("html", "tags around all", repeated("<b>", "<p>a</p>", "</b>")),
    Hostile("html", "angle brackets", repeated("a ", "<")),
    Hostile("html", "unclosed quotes", repeated("a ", '<a b="')),
    Hostile("srt", "cues of two letters", repeated("", CUE)),
    Hostile("srt", "one cue", repeated("1\n00:00:01,000 --> 00:00:02,000\n", "<i>a</i> b\n")),
    Hostile("vtt", "cues of two letters", repeated("WEBVTT\n\n", CUE)),
    Hostile("po", "messages of a letter", repeated("", 'msgid "{}"\nmsgstr ""\n\n'.format("a"))),
    Hostile("po", "strings of many lines", repeated('msgid ""\n', '"a"\n', 'msgstr ""\n')),
    Hostile(
        "tmx",
        "attributes",
        repeated(
            TMX_HEAD, f'<tu><tuv xml:lang="en"><seg>a<hi {MANY}>b</hi></seg></tuv></tu>', TMX_TAIL
        ),
    ),
    Hostile(
        "tmx",
        "units of a letter",
        repeated(TMX_HEAD, '<tu><tuv xml:lang="en"><seg>a</seg></tuv></tu>', TMX_TAIL),
    ),
    Hostile(
        "tmx",
        "inline elements",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>' + "<hi>a b</hi> c <ph/> " * 900 + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    Hostile(
        "tmx",
        "elements in each other",
        repeated(
            TMX_HEAD,
            '<tu><tuv xml:lang="en"><seg>'
            + "<hi>a" * NESTED
            + "</hi>" * NESTED
            + "</seg></tuv></tu>",
            TMX_TAIL,
        ),
    ),
    Hostile(
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
    Hostile(
        "xliff",
        "attributes",
        repeated(
            XLIFF_HEAD,
            f'<trans-unit id="1"><source>a<g {MANY}>b</g></source></trans-unit>',
            XLIFF_TAIL,
        ),
    ),
    Hostile(
        "xliff",
        "units of a letter",
        repeated(XLIFF_HEAD, "<trans-unit><source>a</source></trans-unit>", XLIFF_TAIL),
    ),
    Hostile(
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
    Hostile("docx", "runs", docx("<w:p>", RUN * 300 + "</w:p><w:p>", "</w:p>")),
    Hostile("docx", "paragraphs of a letter", docx("", "<w:p><w:r><w:t>a</w:t></w:r></w:p>")),
    Hostile(
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
    Hostile(
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
    Hostile(
        "odt",
        "spans",
        odt("", "<text:p>" + '<text:span text:style-name="b">a</text:span>b' * 500 + "</text:p>"),
    ),
    Hostile("odt", "paragraphs of a letter", odt("", "<text:p>a</text:p>")),
    Hostile(
        "odt", "paragraphs in each other", odt("", "<text:p>a" * NESTED + "</text:p>" * NESTED)
    ),
)


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

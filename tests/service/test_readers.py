"""Files are read in processes of their own, which end when they take too much, and with the
service."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from benchmarks.hostile import HOSTILE_FILES
from export.runtime.bundle import Bundle
from service.documents import FileError
from service.jobs import readers as module
from service.jobs.reader import FileTooLongError, digest, open_again
from service.jobs.readers import BusyError, FileLimitError, Readers, Translated
from service.jobs.storage import Job, JobStore
from tests.service.documents.document_samples import samples, shout
from tests.service.serving import ROOT, serving
from tests.service.stub import StubEngine

MEMORY = 256 << 20
WITHIN_S = 60.0
SLOW = b"<b>a<p>" * 300_000
"""Takes many seconds to read."""
LARGE = b"<b>a<p>" * 60_000
"""Takes some 80 MB."""
DIES = (sys.executable, "-c", "import os, sys; sys.stdin.buffer.read(1); os.abort()")
MakeClient = Callable[..., TestClient]
Use = Callable[[Readers], Coroutine[Any, Any, None]]


def using(use: Use, memory_bytes: int = MEMORY) -> None:
    """Do something with readers, and leave no process behind."""

    async def work() -> None:
        readers = Readers(memory_bytes)
        try:
            await use(readers)
        finally:
            await readers.close()

    asyncio.run(work())
    assert processes() == []


EARLIER: set[int] = set()
"""Readers that tests of other files have left in this process."""


@pytest.fixture(autouse=True, scope="module")
def earlier() -> None:
    EARLIER.update(one.pid for one in processes())


def processes(pid: int | None = None) -> list[psutil.Process]:
    """Readers that a process has, or that this one has, without those of tests before."""
    found = psutil.Process(pid).children(recursive=True)
    readers = [one for one in found if "service.jobs.reader" in one.cmdline()]
    return [one for one in readers if one.pid not in EARLIER]


async def look(readers: Readers, data: bytes, name: str = "a.html", **more: Any) -> Any:
    options = {"max_chars": 10**8, "within_s": WITHIN_S, **more}
    return await readers.look(name, data, "en", "de", **options)


@pytest.mark.parametrize(("name", "data"), samples().items())
def test_a_file_comes_out_as_if_it_were_read_here(name: str, data: bytes) -> None:
    async def use(readers: Readers) -> None:
        seen = await look(readers, data, name)
        opened = open_again(data, seen.kind.extension, "en", "de")
        assert (seen.units, seen.characters) == (
            len(opened.units),
            sum(len(unit.text) for unit in opened.units),
        )
        pieces = await readers.units(data, seen.kind.extension, "en", "de", WITHIN_S)
        assert {piece.digest: piece.unit for piece in pieces} == {
            digest(unit): unit for unit in opened.units
        }
        assert sum(piece.times for piece in pieces) == len(opened.units)

        async def pages() -> AsyncIterator[Sequence[Translated]]:
            for piece in pieces:
                yield [(piece.digest.hex(), shout(piece.unit.text), [])]

        result = await readers.rebuild(data, seen.kind.extension, "en", "de", pages, WITHIN_S)
        translations = [shout(unit.text) for unit in opened.units]
        assert result.data == opened.rebuild(translations)
        assert list(result.warnings) == list(opened.warnings(translations))
        assert len(processes()) == 1, "a process that is free takes the next file"

    using(use)


def test_what_is_wrong_with_a_file_is_told_and_the_process_goes_on() -> None:
    async def use(readers: Readers) -> None:
        await look(readers, b"<p>a")
        (process,) = processes()
        with pytest.raises(FileError, match="known kind of file"):
            await look(readers, b"a", "a.exe")
        with pytest.raises(FileTooLongError, match="30 characters, 9 are possible"):
            await look(readers, b"a" * 30, "a.txt", max_chars=9)
        await look(readers, b"<p>a")
        assert processes() == [process]

    using(use)


def test_a_process_that_takes_too_long_is_killed() -> None:
    async def use(readers: Readers) -> None:
        begin = time.monotonic()
        with pytest.raises(FileLimitError, match=r"longer than 0\.5 s .*: send it in parts"):
            await look(readers, SLOW, within_s=0.5)
        assert time.monotonic() - begin < 5
        assert processes() == []
        assert (await look(readers, b"<p>a")).units == 1

    using(use)


def test_a_process_that_needs_too_much_memory_ends() -> None:
    async def use(readers: Readers) -> None:
        with pytest.raises(FileLimitError, match="more than 64 MB of memory"):
            await look(readers, LARGE)
        assert (await look(readers, b"<p>a")).units == 1

    using(use, 64 << 20)


def test_a_process_that_has_grown_gives_its_memory_back() -> None:
    async def use(readers: Readers) -> None:
        assert (await look(readers, b"a" * 60_000_000, "a.txt")).units > 1
        assert processes() == []

    using(use, 1 << 30)


def test_no_more_files_than_there_are_processes() -> None:
    async def use(readers: Readers) -> None:
        slow = [asyncio.create_task(look(readers, SLOW)) for _ in range(module.READERS)]
        await asyncio.sleep(0.5)
        with pytest.raises(BusyError, match="too many files"):
            await look(readers, b"a", wait_s=0.1)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert processes() == [], "a file that nobody waits for is read no further"
        assert (await look(readers, b"<p>a")).units == 1

    using(use)


def test_a_file_that_ends_its_process_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND", DIES)

    async def use(readers: Readers) -> None:
        with pytest.raises(FileError, match="ended the process that reads it, 2 times"):
            await look(readers, b"<p>a")

    using(use)


def test_a_job_whose_file_ends_its_process_fails_for_good(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMAND", DIES)
    store = JobStore(tmp_path / "jobs.db")
    store.add(Job("a.txt", "txt", "en", "de", 9, 1, 9, id="a"))
    store.close()
    source = tmp_path / "files" / "a" / "source"
    source.parent.mkdir(parents=True)
    source.write_text("The cat.")
    client = make_client(StubEngine(), jobs_dir=tmp_path)
    deadline = time.monotonic() + 20
    while client.get("/v1/files/a").json()["status"] != "failed" and time.monotonic() < deadline:
        time.sleep(0.02)
    error = client.get("/v1/files/a").json()["error"]
    assert error["code"] == "bad_file"
    assert "save it again" in error["message"]
    assert 'quickstudy_file_readers_ended_total{reason="died"}' in client.get("/metrics").text
    answer = client.post("/v1/translate/file", files={"file": ("a.txt", "The cat.")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_file")


def test_others_are_answered_while_a_file_is_read(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.queue.READ_S", 2.0)
    client = make_client(StubEngine())
    answer = client.post("/v1/translate/file", files={"file": ("a.html", SLOW)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "longer than 2 s" in answer.json()["error"]["message"]
    assert client.get("/livez").status_code == 200


def test_an_element_with_many_attributes_is_refused_over_http(make_client: MakeClient) -> None:
    (hostile,) = (
        one for one in HOSTILE_FILES if one.description == "an element of 10,000 attributes"
    )
    answer = make_client(StubEngine()).post(
        "/v1/translate/file", files={"file": ("a.tmx", hostile.make(1))}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_file")
    assert "an element has more than 256 attributes" in answer.json()["error"]["message"]


KILLED = """
import asyncio, sys
from service.jobs.readers import Readers
async def work():
    readers = Readers(1 << 30)
    await readers.look("a.txt", b"a", "en", "de", 9, 60)
    print("ready", flush=True)
    await readers.look("a.html", b"<b>a<p>" * 300_000, "en", "de", 10**8, 60)
asyncio.run(work())
"""


def test_a_reader_ends_with_the_service_in_the_middle_of_a_file() -> None:
    service = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, cwd=ROOT)
    assert service.stdout is not None
    assert service.stdout.readline() == b"ready\n"
    (reader,) = processes(service.pid)
    time.sleep(0.5)
    assert reader.is_running()
    service.kill()
    service.wait()
    service.stdout.close()
    reader.wait(10)


def test_a_reader_leaves_signals_to_the_service() -> None:
    async def use(readers: Readers) -> None:
        await look(readers, b"<p>a")
        (process,) = processes()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid, number)
        await look(readers, b"<p>a")
        assert processes() == [process]

    using(use)


@pytest.mark.slow
def test_a_service_that_is_killed_leaves_no_reader(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with serving(tmp_path, model=tiny_bundle.path, jobs_dir=tmp_path / "jobs") as served:
        sent = served.client.post("/v1/translate/file", files={"file": ("a.txt", "the cat")})
        assert sent.status_code == 202, sent.text
        found = processes(served.process.pid)
        assert found
        for process in psutil.Process(served.process.pid).children(recursive=True):
            if process not in found:
                process.kill()
        gone, alive = psutil.wait_procs(found, 10)
        assert (len(gone), alive) == (len(found), [])


def test_a_process_that_starts_while_all_are_closed_ends_too() -> None:
    """However far the first file has come when the service stops, nothing is left behind."""

    async def closed_after(turns: int) -> None:
        readers = Readers(MEMORY)
        reading = asyncio.ensure_future(look(readers, b"<p>a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await readers.close()
        with suppress(BusyError, FileError):
            await reading
        assert processes() == [], turns

    for turns in range(12):
        asyncio.run(closed_after(turns))

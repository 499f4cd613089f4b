"""A served process is killed in the middle of a file; the next one goes on with what is missing."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from export.runtime.bundle import Bundle
from service.jobs.reader import digest, open_again
from tests.service.serving import START_S, serving

pytestmark = pytest.mark.slow
PROOFS = 3
"""Sentences that a service translates at most to see whether it is ready."""
LETTERS = str.maketrans("0123456789", "abcdefghij")
"""Numbers that the model loses would be translated once more, in another form."""
TEXT = "".join(
    f"the old blue street cat rides {str(index).translate(LETTERS)}.\n\n" for index in range(3000)
)


def recorded(folder: Path) -> set[bytes]:
    with closing(sqlite3.connect(folder / "jobs" / "jobs.db")) as database:
        return {one for (one,) in database.execute("SELECT digest FROM translations")}


def engine_sentences(client: httpx.Client) -> float:
    found = re.search(r"^quickstudy_batch_sentences_sum (\S+)", client.get("/metrics").text, re.M)
    assert found is not None
    return float(found[1])


def test_nothing_is_translated_twice_after_a_kill(tiny_bundle: Bundle, tmp_path: Path) -> None:
    units = open_again(TEXT.encode(), "txt", "en", "de").units
    settings = {
        "model": tiny_bundle.path,
        "jobs_dir": tmp_path / "jobs",
        "cache_bytes": 0,
        "fallback_decoding": False,
    }
    with serving(tmp_path, **settings) as served:
        client, main = served.client, psutil.Process(served.process.pid)
        sent = client.post("/v1/translate/file", files={"file": ("cats.txt", TEXT)})
        assert sent.status_code == 202, sent.text
        path = sent.headers["Location"]
        while client.get(path).json()["units"]["done"] < 4:
            time.sleep(0.01)
        for process in main.children(recursive=True):
            process.kill()  # the main process starts another worker
        before = recorded(tmp_path)
        missing = [unit.text for unit in units if digest(unit) not in before]
        assert 4 <= len(before) == len(units) - len(missing)
        assert missing, "the job was done before the kill"
        status = ended(client, path)
        assert status["status"] == "done"
        assert status["units"]["done"] == len(units)
        result = client.get(f"{path}/result").text
        assert result.count("\n\n") == TEXT.count("\n\n")
        wanted = sum(line != "" for text in missing for line in text.split("\n"))
        assert wanted <= engine_sentences(client) <= wanted + PROOFS


def ended(client: httpx.Client, path: str) -> dict[str, Any]:
    """A job's status when it is over, whatever the service does in between."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            status: dict[str, Any] = client.get(path).json()
            if status["status"] in ("done", "failed"):
                return status
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the job does not end")


def test_an_upload_may_take_longer_than_a_request(tiny_bundle: Bundle, tmp_path: Path) -> None:
    def slowly() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(12):
            time.sleep(1)
            yield b"the old cat. "
        yield b"\r\n--x--\r\n"

    with serving(tmp_path, model=tiny_bundle.path) as served:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = served.client.post("/v1/translate/file", content=slowly(), headers=headers)
        assert answer.status_code == 202, answer.text
        assert "Traceback" not in (tmp_path / "log").read_text()

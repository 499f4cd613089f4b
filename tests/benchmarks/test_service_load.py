"""The load harness: its arithmetic, its client against a served process, its report."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks import service_load
from benchmarks.load import bare
from benchmarks.load.measures import memory, mixed, quantiles, read_sentences
from benchmarks.load.served import Batches, read_batches
from benchmarks.load.workers import arrivals, closed_loop, open_loop
from benchmarks.results import ResultsError, replace_section
from benchmarks.service_load import (
    BEGIN,
    END,
    QUICK,
    LoadPart,
    markdown,
    measure,
    targets,
    write,
)
from quickstudy.machine import children, command_line
from tests.export import tiny

METRICS = """
quickstudy_batch_sentences_bucket{le="1.0"} 3.0
quickstudy_batch_sentences_bucket{le="2.0"} 4.0
quickstudy_batch_sentences_bucket{le="4.0"} 4.0
quickstudy_batch_sentences_bucket{le="8.0"} 6.0
quickstudy_batch_sentences_bucket{le="+Inf"} 6.0
quickstudy_batch_sentences_count 6.0
quickstudy_batch_sentences_sum 18.0
"""


def test_batch_sizes_have_the_counts_and_the_sum_of_the_metrics() -> None:
    sizes = read_batches(METRICS).sizes()
    assert sorted(sizes)[:4] == [1, 1, 1, 2]
    assert all(5 <= size <= 8 for size in sizes[4:])
    assert len(sizes) == 6
    assert sum(sizes) == 18


def test_batches_since_another_reading() -> None:
    earlier = Batches(((1.0, 2), (2.0, 1), (4.0, 0), (8.0, 0), (float("inf"), 0)), 4)
    later = read_batches(METRICS).since(earlier)
    assert later.counts == ((1.0, 1), (2.0, 0), (4.0, 0), (8.0, 2), (float("inf"), 0))
    assert sum(later.sizes()) == 14


def test_memory_grows_along_the_line_after_warm_up() -> None:
    flat = [(float(at), 100_000_000) for at in range(10)]
    assert memory([(0.0, 50_000_000), *flat[1:]], 1)["growth_percent"] == 0
    rising = [(float(at), 100_000_000 + at * 1_000_000) for at in range(11)]
    found = memory(rising, 0)
    assert found["growth_percent"] == pytest.approx(100 * 10 / 105, abs=0.01)
    assert (found["first_mb"], found["most_mb"]) == (100, 110)


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantiles(list(range(101))) == {"p50": 50, "p95": 95, "p99": 99}
    with pytest.raises(ValueError, match="no request"):
        quantiles([])


def test_arrivals_are_random_seeded_and_as_many_as_wanted() -> None:
    found = list(arrivals(200, 50, seed=3))
    assert found == list(arrivals(200, 50, seed=3))
    assert found != list(arrivals(200, 50, seed=4))
    assert len(found) == pytest.approx(10_000, rel=0.05)
    gaps = [b - a for a, b in pairwise(found)]
    assert fmean(gaps) == pytest.approx(0.005, rel=0.05)
    assert max(gaps) > 0.03  # regular arrivals would have no such gap


def test_sentences_are_different_and_of_a_file_where_one_is_given(tmp_path: Path) -> None:
    made_up = read_sentences(None, 3000)
    assert len(set(made_up)) == 3000
    (tmp_path / "text").write_text("One.\n\nTwo.\nOne.\n", encoding="utf-8")
    assert sorted(read_sentences(tmp_path / "text", 10)) == ["One.", "Two."]


def test_mixed_requests_are_seeded_and_of_all_kinds() -> None:
    bodies = mixed(read_sentences(None, 100), 500)
    assert bodies == mixed(read_sentences(None, 100), 500)
    read = [json.loads(body) for body in bodies]
    assert any(isinstance(one["text"], list) for one in read)
    assert any(one.get("format") == "html" for one in read)
    lengths = [len(one["text"]) for one in read if isinstance(one["text"], str)]
    assert min(lengths) < 100
    assert max(lengths) > 1500


@pytest.fixture
def busy_at_first() -> Iterator[int]:
    """The port of a server that answers each second request with 503, and the others slowly."""
    seen = iter(range(10_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            refused = next(seen) % 2 == 0
            self.send_response(503 if refused else 200)
            if refused:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_client_comes_back_when_retry_after_says(busy_at_first: int) -> None:
    command = {"port": busy_at_first, "path": "/", "bodies": ["{}"], "clients": 1, "seconds": 20}
    tally = asyncio.run(closed_loop({**command, "count": 1}))
    assert (tally.retried, tally.lost, dict(tally.statuses)) == (1, 0, {200: 1})


def test_an_open_loop_does_not_wait_for_answers(busy_at_first: int) -> None:
    command = {"port": busy_at_first, "path": "/", "bodies": ["{}"], "rate": 50, "seed": 1}
    tally = asyncio.run(open_loop({**command, "seconds": 0.5}))
    assert sum(tally.statuses.values()) == len(list(arrivals(50, 0.5, 1)))
    assert tally.statuses[503] > 0


def test_a_port_where_nobody_listens_is_a_lost_connection() -> None:
    command = {"port": 1, "path": "/", "bodies": ["{}"], "clients": 1, "seconds": 0.2}
    tally = asyncio.run(closed_loop(command))
    assert tally.lost > 0
    assert not tally.ms


@pytest.mark.slow
def test_everything_is_measured_of_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny.make_bundle(tmp_path / "tiny", tiny.train_tokenizer(tmp_path / "tokenizer.model"))
    every = (service_load.NO_CACHE, tuple(LoadPart))
    monkeypatch.setitem(service_load.SERVICES, "no cache", every)
    plan = replace(QUICK, throughput_s=0.3, soak_s=0.6, crash_s=30, open_s=0.3)
    only = {LoadPart.OVERHEAD, LoadPart.THROUGHPUT, LoadPart.OPEN_LOOP, LoadPart.SOAK}
    figures = measure(bundle, tiny.sentences(), plan, only, ("no cache",))
    found = figures["no cache"]
    assert found["ready_s"] > 0
    assert found["warm_mb"] > 50
    assert found["overhead"]["native"]["request_ms"]["p50"] > 0
    assert found["throughput"]["share"]["median"] > 0
    assert found["throughput"]["served_cpu_ms"]["median"] > 0
    assert [row["rate"] for row in found["open-loop"]["native"]] == [10, 40]
    assert found["soak"]["errors"] == 0
    report = {
        "bundle": "tiny 1", "engine": "int8", "text": "made up", "quick": True, "quiet": False,
        "load_at_start": 2.0, "threads": 1, "machine": {"cores": 1}, "services": figures,
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nFORMER\n{END}\nafter\n", encoding="utf-8")
    write(report, tmp_path, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "FORMER" not in text
    assert "load average 2.0" in text
    assert (tmp_path / "service-load.png").stat().st_size > 1000
    written = json.loads((tmp_path / "service-load.json").read_text(encoding="utf-8"))
    assert markdown(written, None).count("\n| 40 |") == 1


@pytest.mark.slow
def test_terminated_it_leaves_no_service_behind(tmp_path: Path) -> None:
    bundle = tiny.make_bundle(tmp_path / "tiny", tiny.train_tokenizer(tmp_path / "tokenizer.model"))
    command = [sys.executable, "-m", "benchmarks.service_load", "--bundle", str(bundle.path)]
    running = subprocess.Popen([*command, "--out", str(tmp_path)])
    deadline = time.monotonic() + 60
    try:
        while len(started := descendants(running.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert any("supervisor" in command_line(pid) for pid in started)
        running.terminate()
        assert running.wait(30) == 143
    finally:
        running.kill()
    while any(command_line(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [command_line(pid) for pid in started if command_line(pid)]


def descendants(pid: int) -> list[int]:
    own = children(pid)
    return own + [below for child in own for below in descendants(child)]


def test_a_target_that_is_missed_is_said_to_be(tmp_path: Path) -> None:
    services = {
        "default": {"ready_s": 6.0, "ready_mb": 200.0},
        "greedy only": {"throughput": {"clients": 64, "share": {"median": 0.76}}},
    }
    reached = {aim: reached for _, aim, _, reached in targets({"services": services})}
    assert reached == {"≥ 75%": True, "≤ 5 s": False, "≤ 300 MB": True}
    page = tmp_path / "page.md"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ResultsError, match="no place"):
        replace_section(page, BEGIN, END, "")


def test_http_alone_is_measured() -> None:
    found = bare.measure(["one", "two"], clients=2, seconds=0.3, rounds=1)
    assert found["requests_per_second"] > 10
    assert 0 <= found["server_cpu_ms"] < 1000 / found["requests_per_second"] * 1.5

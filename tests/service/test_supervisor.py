"""The image's first process: what becomes of a worker that dies, and how it stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from export.runtime.bundle import Bundle
from service.supervisor import CANNOT_START, PAUSES_S, listen

ROOT = Path(__file__).resolve().parents[2]

RUNNER = """
import sys
from service import supervisor
supervisor.PAUSES_S = tuple(0.0 for _ in supervisor.PAUSES_S)
supervisor.IDLE_WAIT_S = supervisor.READY_POLL_S = 0.02
listener = supervisor.listen("127.0.0.1", int(sys.argv[1]))
command = [sys.executable, "-S", "-c", sys.argv[2], str(listener.fileno())]
raise SystemExit(supervisor.Supervisor(command, listener, "http://here", stop_timeout_s=0.5).run())
"""

ANSWERS_ITS_PID = """
import os, signal, socket, sys
hangups = 0
def hang_up(*_):
    global hangups
    hangups += 1
signal.signal(signal.SIGHUP, hang_up)
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.sendall(f"{os.getpid()} {hangups}".encode())
    connection.close()
"""

READY_WHEN_ASKED = """
import os, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
for report in (b"", b"ready", b"", b""):
    connection, _ = listener.accept()
    os.write(int(sys.argv[-1]), report)
    connection.sendall(f"{os.getpid()} 0".encode())
    connection.close()
"""

IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ANSWERS_ITS_PID

KILLED_AT_ONCE = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"

WORKER_BY_TURN = """
import os, pathlib, sys
count = pathlib.Path("{count}")
turn = int(count.read_text())
count.write_text(str(turn + 1))
if turn == 4 * ({limit} + 1) - 2:
    raise SystemExit(5)
if turn % ({limit} + 1) < {limit}:
    os.kill(os.getpid(), 9)
os.write(int(sys.argv[-1]), b"ready")
if turn % 8 == 3:
    os.kill(os.getpid(), 9)
"""

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """Start a supervisor of the given worker, a piece of Python; it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(worker: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUNNER, str(port), worker]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE))
        return started[-1]

    yield start_one
    for process in started:
        process.terminate()
        process.wait(20)


def result(supervisor: subprocess.Popen[bytes]) -> tuple[int, str]:
    """How it ends, and what it says."""
    code = supervisor.wait(20)
    assert supervisor.stderr is not None
    return code, supervisor.stderr.read().decode()


def ask(port: int, patience_s: float = 20) -> tuple[int, int]:
    """The worker's process id, and how many SIGHUPs it has had."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                pid, hangups = connection.recv(100).split()
                return int(pid), int(hangups)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_worker_that_is_killed_is_replaced_and_connections_wait(start: Start, port: int) -> None:
    start(ANSWERS_ITS_PID)
    first, _ = ask(port)
    os.kill(first, signal.SIGSTOP)
    while Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.02)  # from then on it takes no connection
    with socket.create_connection(("127.0.0.1", port), timeout=20) as waiting:
        os.kill(first, signal.SIGKILL)
        assert int(waiting.recv(100).split()[0]) != first


def test_it_says_that_it_serves_once_the_worker_is_ready(start: Start, port: int) -> None:
    supervisor = start(READY_WHEN_ASKED)
    assert supervisor.stderr is not None
    os.set_blocking(supervisor.stderr.fileno(), False)
    first = ask(port)
    time.sleep(0.2)
    assert supervisor.stderr.read() is None
    assert ask(port) == first
    deadline = time.monotonic() + 20
    while not (told := supervisor.stderr.read()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert told == b"quickstudy: serving at http://here\n"
    time.sleep(0.2)  # many times as long as it waits for signals
    assert supervisor.stderr.read() is None
    assert children(supervisor.pid) == [first[0]]


def test_a_hangup_reaches_the_worker(start: Start, port: int) -> None:
    supervisor = start(ANSWERS_ITS_PID)
    pid, hangups = ask(port)
    assert hangups == 0
    supervisor.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while ask(port) != (pid, 1):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_stops_when_told_to(start: Start, port: int) -> None:
    supervisor = start(ANSWERS_ITS_PID)
    pid, _ = ask(port)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 0
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ConnectionRefusedError):
        ask(port, patience_s=0)


def test_a_worker_that_does_not_stop_is_killed(start: Start, port: int) -> None:
    supervisor = start(IGNORES_SIGTERM)
    pid, _ = ask(port)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 1
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("status", [3, 0])
def test_a_worker_that_ends_before_it_is_ready_ends_it(start: Start, status: int) -> None:
    code, told = result(start(f"raise SystemExit({status})"))
    assert code == 1
    assert told.count(f"exit status {status}") == told.count("\n") == 1


def test_a_worker_that_has_said_why_is_not_spoken_for(start: Start) -> None:
    assert result(start(f"raise SystemExit({CANNOT_START})")) == (1, "")


def test_workers_that_are_killed_again_and_again_end_it(start: Start) -> None:
    code, told = result(start(KILLED_AT_ONCE))
    assert code == 1
    assert told.count("starting another") == len(PAUSES_S) - 1
    assert told.count("SIGSEGV") == len(PAUSES_S)


def test_a_worker_that_was_ready_is_replaced_however_it_ends(start: Start, tmp_path: Path) -> None:
    """Ready workers are killed or end, with kills before readiness in between: these do not add
    up to too many, since each ready worker begins the count anew."""
    count = tmp_path / "count"
    count.write_text("0")
    worker = WORKER_BY_TURN.format(count=str(count), limit=len(PAUSES_S) - 1)
    code, told = result(start(worker))
    assert code == 1
    assert told.count("starting another") == int(count.read_text()) - 1 == 4 * len(PAUSES_S) - 2
    assert "exit status 0" in told
    assert told.splitlines()[-1].endswith("before it was ready (exit status 5); its log says why")


def test_a_port_in_use_is_told(port: int) -> None:
    with listen("127.0.0.1", port):
        command = [sys.executable, "-m", "service.supervisor", "--port", str(port)]
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"quickstudy: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--port", "abc"],
            "cannot listen on port 'abc': PORT (--port) is a number from 0 to 65535",
        ),
        (["--port", "99999"], "cannot listen on port 99999: choose one from 0 to 65535"),
        (
            ["--host", "nowhere.invalid", "--port", "0"],
            "cannot listen on nowhere.invalid port 0: there is no such host",
        ),
    ],
)
def test_where_it_cannot_listen_is_one_line(options: list[str], message: str) -> None:
    command = [sys.executable, "-m", "service.supervisor", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (1, f"quickstudy: {message}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"QUICKSTUDY_MODEL": "nowhere"}, "nowhere"),
        ({"QUICKSTUDY_MODEL": "{folder}/damaged"}, "damaged"),
        ({"QUICKSTUDY_KEYS_FILE": "{folder}"}, "{folder}"),
        ({"QUICKSTUDY_JOBS_DIR": "{folder}/file"}, "{folder}/file"),
        ({"QUICKSTUDY_SHUTDOWN_GRACE_S": "-1"}, "QUICKSTUDY_SHUTDOWN_GRACE_S"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(
    tiny_bundle: Bundle, port: int, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    (tmp_path / "file").touch()
    shutil.copytree(tiny_bundle.path, tmp_path / "damaged")
    (tmp_path / "damaged" / "tokenizer.model").write_bytes(b"x")
    settings = {name: value.format(folder=tmp_path) for name, value in settings.items()}
    environment = {**os.environ, "QUICKSTUDY_MODEL": str(tiny_bundle.path), **settings}
    command = [sys.executable, "-m", "service.supervisor", "--port", str(port)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    begin, *lines = ended.stderr.splitlines()
    assert begin == "quickstudy: loading the models"
    assert lines[0].startswith("quickstudy: ")
    assert message.format(folder=tmp_path) in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert len(lines) == (2 if "GRACE_S" in message else 1)  # settings: a line for each fault


@pytest.mark.slow
def test_the_service_translates_again_after_its_worker_was_killed(
    tiny_bundle: Bundle, port: int, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "QUICKSTUDY_MODEL": str(tiny_bundle.path),
        "QUICKSTUDY_INTER_THREADS": "1",
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    command = [sys.executable, "-m", "service.supervisor", "--port", str(port)]
    supervisor = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    url, body = f"http://127.0.0.1:{port}", {"text": "the old blue street cat."}
    try:
        assert supervisor.stderr is not None
        assert supervisor.stderr.readline() == b"quickstudy: loading the models\n"
        assert supervisor.stderr.readline() == f"quickstudy: serving at {url}\n".encode()
        assert httpx.get(f"{url}/readyz", timeout=1).status_code == 200
        first = httpx.post(f"{url}/v1/translate", json=body, timeout=60)
        assert first.status_code == 200
        [worker] = children(supervisor.pid)
        os.kill(worker, signal.SIGKILL)
        again = httpx.post(f"{url}/v1/translate", json=body, timeout=60)
        assert again.json() == first.json()
    finally:
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

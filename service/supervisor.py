"""Keeps the service's worker alive: what `make serve` starts, and the image's first process.

This process imports nothing of the service, so it needs little memory. It holds the listening
socket: connections wait while a worker that died is replaced. A worker reports through a pipe that
it translates; only then does this process say that it serves. One that exits by itself before that
would fail again, so it is not restarted.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

WORKER = ("-m", "service.server")

CANNOT_START = 78
"""A worker's exit status after it has said why it cannot start; as in `service/server.py`."""

PAUSES_S = (0.0, 0.5, 1.0, 2.0)
"""Seconds before the next worker, by the number in a row that were killed before they were
ready."""

BACKLOG = 2048
IDLE_WAIT_S = 3600.0
READY_POLL_S = 0.1
"""Seconds between two looks at the pipe of a worker that is not ready yet."""
SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Keeps `command` running. SIGHUP is passed on to it, SIGTERM and SIGINT stop it.

    Once a worker is ready, it says that it serves at `url`. A worker that takes longer than
    `stop_timeout_s` seconds to stop is killed. Signals are blocked once a supervisor is made; `run`
    waits for them.
    """

    def __init__(
        self, command: Sequence[str], listener: socket.socket, url: str, stop_timeout_s: float
    ) -> None:
        self.command = list(command)
        self.listener = listener
        self.url = url
        self.stop_timeout_s = stop_timeout_s
        self.pid: int | None = None
        self.ready_fd: int | None = None
        self.is_ready = False
        self.due: float | None = None
        self.failed_starts = 0
        self.is_stopping = False
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def run(self) -> int:
        """Keep a worker running until a signal stops it. Returns the exit status of this process.

        That is 0 if the worker stopped in time after the signal, else 1: it exited before it was
        ready, or was killed again and again before it was ready.
        """
        self._start()
        while True:
            signalled = signal.sigtimedwait(SIGNALS, self._wait_s())
            if signalled is None:
                self._on_timeout()
            elif signalled.si_signo == signal.SIGHUP:
                self._pass_on(signal.SIGHUP)
            elif signalled.si_signo != signal.SIGCHLD:
                self._stop()
            elif (status := self._reap()) is not None:
                code = self._on_end(os.waitstatus_to_exitcode(status))
                if code is not None:
                    return code
            if self.is_stopping and self.pid is None:
                return 0

    def _wait_s(self) -> float:
        """Seconds until something is due, whatever signals come."""
        if self.due is not None:
            return max(0.0, self.due - time.monotonic())
        return IDLE_WAIT_S if self.is_ready else READY_POLL_S

    def _on_timeout(self) -> None:
        if self.due is not None:
            self._on_due()
        elif not self.is_ready and not self.is_stopping and self._has_reported():
            self.is_ready = True
            say(f"serving at {self.url}")

    def _start(self) -> None:
        self.due, self.is_ready = None, False
        self.ready_fd, worker_fd = os.pipe()
        os.set_blocking(self.ready_fd, False)
        os.set_inheritable(worker_fd, True)
        command = [*self.command, "--ready-fd", str(worker_fd)]
        self.pid = os.posix_spawn(command[0], command, os.environ, setsigmask=(), setsigdef=SIGNALS)
        os.close(worker_fd)

    def _on_due(self) -> None:
        if not self.is_stopping:
            self._start()
        elif self.pid is not None:
            say(f"the worker has not stopped within {self.stop_timeout_s:g} s and is killed")
            self._pass_on(signal.SIGKILL)
            self.due = None

    def _stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.listener.close()
            self.due = time.monotonic() + self.stop_timeout_s
            self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)

    def _reap(self) -> int | None:
        """Reap every child that has ended, including adopted ones. Returns the worker's status."""
        found = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == self.pid:
                self.pid, found = None, status

    def _on_end(self, code: int) -> int | None:
        """The exit status of this process after the worker has ended; None to start another."""
        if self.is_stopping:
            return 0 if code in (0, -signal.SIGTERM) else 1
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        was_ready = self.is_ready or self._has_reported()
        assert self.ready_fd is not None
        os.close(self.ready_fd)
        self.ready_fd = None
        if was_ready:
            self.failed_starts = 0
        elif code >= 0:
            if code != CANNOT_START:
                say(f"the worker ended by itself before it was ready ({how}); its log says why")
            return 1
        else:
            self.failed_starts += 1
        if self.failed_starts >= len(PAUSES_S):
            say(f"{self.failed_starts} workers in a row ended before they were ready, {how}")
            return 1
        say(f"the worker ended ({how}); starting another")
        self.due = time.monotonic() + PAUSES_S[self.failed_starts]
        return None

    def _has_reported(self) -> bool:
        """Whether the worker has reported, since the last look, that it translates."""
        assert self.ready_fd is not None
        try:
            return bool(os.read(self.ready_fd, 64))
        except BlockingIOError:  # it, or a process that it has started, still has the pipe
            return False


def say(message: str) -> None:
    """Print a message for the operator to stderr."""
    print(f"quickstudy: {message}", file=sys.stderr, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that workers inherit; `::` accepts IPv4, too.

    Raises:
        OSError: The address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
    )
    listener.set_inheritable(True)
    return listener


def seconds(variable: str, default: float, former: str = "") -> float:
    """A setting, by its name or its former name. The worker refuses to start if it is not a number
    or out of bounds."""
    try:
        return max(0.0, float(os.environ.get(variable) or os.environ.get(former) or default))
    except ValueError:
        return default


def main() -> int:
    """Serve at `--host` and `--port` (`PORT`) until stopped."""
    parser = argparse.ArgumentParser(prog="service.supervisor", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="an address of this machine")
    parser.add_argument("--port", default=os.environ.get("PORT") or "3000", help="0 to 65535")
    chosen = parser.parse_args()
    try:
        chosen.port = int(chosen.port)
    except ValueError:
        say(f"cannot listen on port {chosen.port!r}: PORT (--port) is a number from 0 to 65535")
        return 1
    try:
        listener = listen(chosen.host, chosen.port)
    except OverflowError:
        say(f"cannot listen on port {chosen.port}: choose one from 0 to 65535")
        return 1
    except OSError as error:
        why = str(error)
        if error.errno:  # those of name resolution are negative
            why = os.strerror(error.errno) if error.errno > 0 else "there is no such host"
        say(f"cannot listen on {chosen.host} port {chosen.port}: {why}")
        return 1
    grace = math.ceil(seconds("QUICKSTUDY_SHUTDOWN_GRACE_S", 5.0, former="QUICKSTUDY_GRACE_S"))
    drain = math.ceil(seconds("QUICKSTUDY_DRAIN_S", 1.0))
    command = [sys.executable, *WORKER, "--fd", str(listener.fileno())]
    url = f"http://{chosen.host}:{listener.getsockname()[1]}"
    say("loading the models")
    return Supervisor(command, listener, url, stop_timeout_s=drain + 2 * grace + 5).run()


if __name__ == "__main__":
    raise SystemExit(main())

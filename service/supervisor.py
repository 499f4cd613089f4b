"""Keep the service's worker alive: what `make serve` starts, and the image's first process.

This process imports nothing of the service, so it needs little memory. It holds the listening
socket: connections wait while a worker that died is replaced. A worker tells through a pipe that it
translates; one that ends before has not started, and would not the next time.
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
"""A worker's exit status when it has said itself why it cannot start; as in `service/server.py`."""

PAUSES_S = (0.0, 0.5, 1.0, 2.0)
"""Seconds before another worker, by how many in a row were killed before they were ready."""

BACKLOG = 2048
NO_HURRY_S = 3600.0
SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Runs `command` for as long as it should run. SIGHUP is passed on, SIGTERM and SIGINT stop it.

    `patience_s` is how many seconds a worker may take to stop before it is killed. Signals are
    blocked from here on; `run` waits for them.
    """

    def __init__(self, command: Sequence[str], listener: socket.socket, patience_s: float) -> None:
        self.command = list(command)
        self.listener = listener
        self.patience_s = patience_s
        self.pid: int | None = None
        self.ready_fd: int | None = None
        self.due: float | None = None
        self.failed_starts = 0
        self.is_stopping = False
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def run(self) -> int:
        """Keep a worker running until told to stop; what the process exits with.

        That is 0 if the worker stopped in time when told to, and 1 else: if it ended by itself
        before it was ready, or was killed before that again and again.
        """
        self._start()
        while True:
            wait = NO_HURRY_S if self.due is None else max(0.0, self.due - time.monotonic())
            signalled = signal.sigtimedwait(SIGNALS, wait)
            if signalled is None:
                self._on_due()
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

    def _start(self) -> None:
        self.due = None
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
            say(f"the worker has not stopped within {self.patience_s:g} s and is killed")
            self._pass_on(signal.SIGKILL)
            self.due = None

    def _stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.listener.close()
            self.due = time.monotonic() + self.patience_s
            self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)

    def _reap(self) -> int | None:
        """Take every child that has ended, adopted ones too; the worker's wait status."""
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
        """What to exit with now that the worker has ended, or nothing if another is to start."""
        if self.is_stopping:
            return 0 if code in (0, -signal.SIGTERM) else 1
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if self._was_ready():
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

    def _was_ready(self) -> bool:
        """Whether the worker that has ended had told that it translates."""
        assert self.ready_fd is not None
        try:
            return bool(os.read(self.ready_fd, 64))
        except BlockingIOError:  # a process that it has started still has the pipe
            return False
        finally:
            os.close(self.ready_fd)
            self.ready_fd = None


def say(message: str) -> None:
    """Tell the operator something, on stderr."""
    print(f"quickstudy: {message}", file=sys.stderr, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that workers inherit; `::` takes IPv4 too.

    Raises:
        OSError: The address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server(
        (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
    )
    listener.set_inheritable(True)
    return listener


def seconds(variable: str, default: float) -> float:
    """A setting. The worker refuses to start if it is no number or out of bounds."""
    try:
        return max(0.0, float(os.environ.get(variable) or default))
    except ValueError:
        return default


def main() -> int:
    """Serve at `--host` and `--port` (`PORT`) until stopped."""
    parser = argparse.ArgumentParser(prog="service.supervisor", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="an address of this machine")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT") or 3000)
    chosen = parser.parse_args()
    try:
        listener = listen(chosen.host, chosen.port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        say(f"cannot listen on {chosen.host} port {chosen.port}: {why}")
        return 1
    grace = math.ceil(seconds("QUICKSTUDY_GRACE_S", 5.0))
    drain = math.ceil(seconds("QUICKSTUDY_DRAIN_S", 1.0))
    command = [sys.executable, *WORKER, "--fd", str(listener.fileno())]
    say(f"serving at http://{chosen.host}:{listener.getsockname()[1]}")
    return Supervisor(command, listener, patience_s=drain + 2 * grace + 5).run()


if __name__ == "__main__":
    raise SystemExit(main())

"""When work ends: its time is up, its client has gone, or somebody cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.requests import Request

from service import middleware
from service.middleware import Deadline, RequestDeadline


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def client(gone: asyncio.Event) -> Request:
    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_time_that_is_up() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError), Deadline(0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0)  # the task goes on
        with Deadline(60):
            await asyncio.sleep(0.01)
        with pytest.raises(KeyError), Deadline(60):
            raise KeyError

    run(scenario)


def test_who_cancels_the_task_is_not_told_of_time() -> None:
    async def scenario() -> None:
        async def work() -> None:
            with Deadline(0.02):
                await asyncio.sleep(60)

        early = asyncio.create_task(work())
        await asyncio.sleep(0.001)
        early.cancel()
        both = asyncio.create_task(work())
        both_at = asyncio.get_running_loop().call_later(0.02, both.cancel)
        await asyncio.wait([early, both])
        both_at.cancel()
        assert early.cancelled()
        assert both.cancelled() or isinstance(both.exception(), TimeoutError)

    run(scenario)


def test_limits_in_limits() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError), Deadline(0.01), Deadline(60):
            await asyncio.sleep(60)
        with Deadline(60):
            with pytest.raises(TimeoutError), Deadline(0.01):
                await asyncio.sleep(60)
            await asyncio.sleep(0.01)

    run(scenario)


def test_a_client_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LISTEN_AFTER_S", 0.01)

    async def scenario() -> None:
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.03, gone.set)
        limit = RequestDeadline(client(gone), 60)
        with pytest.raises(TimeoutError), limit:
            await asyncio.sleep(60)
        assert limit.client_gone

    run(scenario)


@pytest.mark.parametrize("seconds", [0.005, 0.05])
def test_time_is_up_before_or_after_one_listens(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "LISTEN_AFTER_S", 0.01)

    async def scenario() -> None:
        limit = RequestDeadline(client(asyncio.Event()), seconds)
        begin = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), limit:
            await asyncio.sleep(60)
        assert asyncio.get_running_loop().time() - begin >= seconds - 0.002
        assert not limit.client_gone
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task(), *waiting()}

    def waiting() -> set[asyncio.Task[Any]]:
        """The task of `wait_for`, around this one."""
        return {task for task in asyncio.all_tasks() if "wait_for" in repr(task)}

    run(scenario)


def test_work_that_is_done_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LISTEN_AFTER_S", 0.01)

    async def scenario() -> None:
        gone = asyncio.Event()
        before = asyncio.all_tasks()
        with RequestDeadline(client(gone), 60):
            await asyncio.sleep(0.03)
        gone.set()
        await asyncio.sleep(0.01)  # would be cancelled by a listener that is still there
        assert asyncio.all_tasks() == before

    run(scenario)

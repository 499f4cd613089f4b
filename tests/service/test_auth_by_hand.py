"""Access by itself: whose key, what is counted, how long to wait, when its storage is gone."""

from __future__ import annotations

import asyncio
import calendar
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service import auth
from service.api_keys import KeyStore
from service.auth import Access
from service.errors import ApiError
from service.observability import REQUEST_METRICS, RequestMetrics
from service.settings import Settings

MakeAccess = Callable[..., Access]


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.db")


@pytest.fixture
def make_access(tmp_path: Path) -> Iterator[MakeAccess]:
    made: list[Access] = []

    def make(with_keys: bool = True, **values: Any) -> Access:
        file = {"keys_file": tmp_path / "keys.db"} if with_keys else {}
        made.append(Access(Settings(**file, **values)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def asked(address: str = "192.0.2.7", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "client": (address, 1234), "headers": named, "path": "/"})


def refused(work: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        work()
    return caught.value


async def admitted(one: Access, request: Request, characters: int, fails: bool = False) -> None:
    async with one.admitted(request, characters):
        if fails:
            raise RuntimeError


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def test_open_is_what_counts_nothing_and_asks_for_nothing(make_access: MakeAccess) -> None:
    assert make_access(with_keys=False).is_public
    assert not make_access().is_public
    assert not make_access(with_keys=False, rate_limit="5/second").is_public
    assert not make_access(require_key=True).is_public


def test_a_key_is_read_from_the_places_of_each_api(make_access: MakeAccess, keys: KeyStore) -> None:
    first, second = keys.add("first"), keys.add("second")
    one = make_access()

    def name(request: Request, text: str | None = None) -> str | None:
        key = one.key(request, text)
        return key.name if key else None

    assert name(asked()) is None
    for scheme in ("Bearer", "bearer", "DeepL-Auth-Key"):
        assert name(asked(authorization=f"{scheme}   {first} ")) == "first"
    for nothing in ("Bearer", "Bearer ", f"Basic {first}", first):
        assert name(asked(authorization=nothing)) is None
        assert name(asked(authorization=nothing, x_api_key=second)) == "second"
    assert name(asked(authorization=f"Bearer {first}", x_api_key=second)) == "first"
    assert name(asked(authorization=f"Bearer {first}"), second) == "second"
    assert name(asked(x_api_key="")) is None
    wrong = refused(lambda: one.key(asked(x_api_key="qs_wrong")))
    assert (wrong.status, wrong.code) == (403, "key_invalid")


def test_a_key_that_is_missing_or_no_administrator_s(
    make_access: MakeAccess, keys: KeyStore
) -> None:
    missing = refused(lambda: make_access(require_key=True).key(asked()))
    assert (missing.status, missing.code) == (401, "key_missing")
    assert missing.headers == {"WWW-Authenticate": "Bearer"}
    somebody, admin = keys.add("somebody"), keys.add("admin", admin=True)
    one = make_access()
    found = [refused(lambda: make_access(with_keys=False).check_admin(asked(x_api_key=admin)))]
    found.append(refused(lambda: one.check_admin(asked())))
    found.append(refused(lambda: one.check_admin(asked(x_api_key=somebody))))
    assert [(error.status, error.code) for error in found] == [
        (403, "turned_off"),
        (401, "key_missing"),
        (403, "key_invalid"),
    ]
    assert found[1].headers == {"WWW-Authenticate": "Bearer"}
    assert one.check_admin(asked(x_api_key=admin)).name == "admin"


def test_what_a_request_uses_is_counted_and_taken_off_if_it_fails(
    make_access: MakeAccess, keys: KeyStore
) -> None:
    request = asked(x_api_key=keys.add("somebody"))
    one = make_access(quota_chars=100)
    assert one.usage(request) == (0, 100)
    run(admitted(one, request, 30))
    with pytest.raises(RuntimeError):
        run(admitted(one, request, 50, fails=True))
    assert one.usage(request) == (30, 100)
    assert keys.usage(1).requests == 1
    run(admitted(one, request, 40))
    one.refund_later(1, 15, 0)
    assert (one.usage(request), keys.usage(1).requests) == ((55, 100), 2)
    one.refund_later(1, 5, 1)
    assert (one.usage(request), keys.usage(1).requests) == ((50, 100), 1)
    assert one.usage(asked()) == (0, None)
    run(admitted(one, asked(), 10_000))
    unkept = make_access(with_keys=False)
    unkept.refund_later(1, 1, 1)
    assert unkept.usage(asked()) == (0, None)
    assert keys.usage(1).characters == 50


def test_a_key_s_own_quota_goes_before_the_service_s(
    make_access: MakeAccess, keys: KeyStore
) -> None:
    own, none, default = (
        asked(x_api_key=keys.add("x", quota_chars=quota)) for quota in (7, 0, None)
    )
    limited, unlimited = make_access(quota_chars=100), make_access()
    assert [limited.usage(request)[1] for request in (own, none, default)] == [7, 0, 100]
    assert [unlimited.usage(request)[1] for request in (own, none, default)] == [7, 0, None]
    run(admitted(limited, own, 7))
    assert refused(lambda: run(admitted(limited, own, 1))).code == "quota"
    assert refused(lambda: run(admitted(limited, none, 1))).code == "quota"


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ((2026, 12, 31, 23, 59, 30.5), 30),
        ((2026, 2, 28, 12, 0, 0), 43_200),
        ((2028, 2, 28, 0, 0, 0), 2 * 86_400),
        ((2026, 11, 30, 0, 0, 0), 86_400),
        ((2026, 12, 1, 0, 0, 0), 31 * 86_400),
    ],
)
def test_a_used_up_quota_lasts_to_the_end_of_the_month(
    make_access: MakeAccess,
    keys: KeyStore,
    monkeypatch: pytest.MonkeyPatch,
    now: tuple[int, int, int, int, int, float],
    seconds: int,
) -> None:
    request = asked(x_api_key=keys.add("somebody", quota_chars=1))
    one = make_access()
    at = calendar.timegm((*now[:5], 0, 0, 0, 0)) + now[5]
    clock = SimpleNamespace(time=lambda: at, gmtime=time.gmtime, monotonic=time.monotonic)
    monkeypatch.setattr(auth, "time", clock)
    error = refused(lambda: run(admitted(one, request, 2)))
    assert (error.status, error.code) == (429, "quota")
    assert error.headers is not None
    assert int(error.headers["Retry-After"]) == seconds


def test_the_log_knows_the_key_and_all_characters(make_access: MakeAccess, keys: KeyStore) -> None:
    request = asked(x_api_key=keys.add("somebody"))
    one = make_access()
    record = RequestMetrics("a")
    token = REQUEST_METRICS.set(record)
    try:
        run(admitted(one, request, 30))
        run(admitted(one, request, 12))
        assert (record.key_id, record.characters) == (1, 42)
        run(admitted(one, asked(), 1))
        assert (record.key_id, record.characters) == (None, 43)
    finally:
        REQUEST_METRICS.reset(token)


def test_each_of_many_rates_holds_for_each_that_asks(
    make_access: MakeAccess, keys: KeyStore
) -> None:
    one = make_access(rate_limit="3/day; 2/hour")
    key = keys.add("somebody")

    async def scenario() -> list[str]:
        said = []
        for request in (asked(), asked("192.0.2.8"), asked(x_api_key=key)):
            for _ in range(2):
                await one.authenticate(request)
            with pytest.raises(ApiError) as caught:
                await one.authenticate(request)
            error = caught.value
            assert (error.status, error.code) == (429, "rate")
            assert error.headers is not None
            assert 0 < int(error.headers["Retry-After"]) <= 7200
            said.append(error.message.partition(":")[0])
        return said

    assert asyncio.run(scenario()) == ["more than 2 per 1 hour"] * 3


def test_an_ipv6_network_of_64_bits_is_one_that_asks(make_access: MakeAccess) -> None:
    one = make_access(with_keys=False, rate_limit="1/hour")

    async def scenario() -> None:
        await one.authenticate(asked("2001:db8:1:2::1"))
        for same in ("2001:db8:1:2::1", "2001:db8:1:2:8000::1", "2001:db8:1:2:ffff:ffff::"):
            with pytest.raises(ApiError):
                await one.authenticate(asked(same))
        await one.authenticate(asked("2001:db8:1:3::1"))

    asyncio.run(scenario())


def test_without_its_storage_nobody_is_refused_and_it_is_asked_again_after_a_while(
    make_access: MakeAccess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_access(with_keys=False, rate_limit="5/hour")
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time, gmtime=time.gmtime)
    monkeypatch.setattr(auth, "time", clock)
    works = False
    hits: list[float] = []

    async def hit(*_: Any) -> bool:
        hits.append(now)
        if not works:
            raise ConnectionError
        return True

    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "hit", hit)
    caplog.set_level(logging.WARNING, "quickstudy.service")
    for at in (1000.0, 1000.1, 1004.9, 1005.0, 1009.9):
        now = at
        run(one.authenticate(asked()))
    assert hits == [1000.0, 1005.0]
    works = True
    for at in (1010.0, 1010.1):
        now = at
        run(one.authenticate(asked()))
    assert hits == [1000.0, 1005.0, 1010.0, 1010.1]
    said = [one.getMessage() for one in caplog.records if "storage" in one.getMessage()]
    assert said == [
        "the rate limits' storage does not answer: accepting all requests",
        "the rate limits' storage answers again",
    ]

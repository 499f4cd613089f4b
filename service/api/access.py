"""Who may ask, how often and for how much: API keys, rate limits, quotas."""

from __future__ import annotations

import calendar
import ipaddress
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import Request

from service.api.errors import ApiError
from service.keys import Key, KeyStore
from service.record import current
from service.settings import Settings
from service.settings_report import SettingsError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter

logger = logging.getLogger("quickstudy.service")

SCHEMES = ("bearer", "deepl-auth-key")
STORAGE_RETRY_S = 5.0
"""Seconds in which rate limits rest after their storage failed."""
REDIS_OPTIONS: dict[str, Any] = {
    "implementation": "redispy",
    "socket_connect_timeout": 0.5,
    "socket_timeout": 0.5,
}
"""Seconds that a request waits at most for Redis."""
IPV6_PREFIX = 64
"""An IPv6 client has at least a whole /64: its addresses share one limit."""


class Access:
    """The door: what a request needs, by the settings. Without keys and limits it is open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limiter, self._rates = _limiter(settings)
        self._storage_down = False
        self._storage_asked_again_at = 0.0

    @cached_property
    def keys(self) -> KeyStore | None:
        """The key file, opened at the first use. Raises KeyFileError."""
        return KeyStore(self._settings.keys_file) if self._settings.keys_file else None

    @property
    def is_open(self) -> bool:
        """Whether whoever comes is let in, and nothing is counted."""
        return (
            self._limiter is None
            and self._settings.keys_file is None
            and not self._settings.require_key
        )

    @asynccontextmanager
    async def admitted(
        self, request: Request, characters: int, key_text: str | None = None
    ) -> AsyncIterator[None]:
        """Let a request in that is about to translate so many characters.

        They are taken off the usage again if what it does raises. Raises ApiError: `key_missing`
        401, `key_invalid` 403, `rate` 429 and `quota` 429 with Retry-After.
        """
        key = await self.enter(request, key_text)
        if (record := current()) is not None:
            record.characters += characters
        self.charge(key, characters)
        try:
            yield
        except BaseException:
            self.refund(key, characters)
            raise

    async def enter(self, request: Request, key_text: str | None = None) -> Key | None:
        """The request's key, if it may come in: as `key`, and counted against its rate."""
        key = self.key(request, key_text)
        if (record := current()) is not None:
            record.key_id = key.id if key else None
        await self._check_rate(self.client(request, key))
        return key

    def client(self, request: Request, key: Key | None) -> str:
        """Who asks: a key, or an address."""
        return f"key:{key.id}" if key else f"address:{self._address(request)}"

    def charge(self, key: Key | None, characters: int) -> None:
        """Count characters against a key's quota. Raises ApiError `quota` 429 if that is too much
        for it."""
        if key is None or self.keys is None:
            return
        limit = self.quota(key)
        if not self.keys.charge(key.id, characters, limit):
            message = (
                f"the key's quota of {limit} characters a month does not allow {characters} more: "
                "ask for less, or for a larger quota, or wait for the next month (UTC)"
            )
            raise ApiError.later(429, "quota", message, _seconds_to_next_month(time.time()))

    def refund(self, key: Key | None, characters: int) -> None:
        """Take what was charged off again."""
        if key is not None and self.keys is not None:
            self.keys.refund(key.id, characters)

    def refund_later(self, key_id: int, characters: int, requests: int) -> None:
        """Take a part of what was charged off, when work has ended."""
        if self.keys is not None:
            self.keys.refund(key_id, characters, requests)

    def key(self, request: Request, key_text: str | None = None) -> Key | None:
        """The request's key: that text, or a header's; None where none is needed and none given.

        Raises ApiError: `key_missing` 401, `key_invalid` 403.
        """
        text = key_text or _key_in_headers(request)
        if text and self.keys is not None:
            if key := self.keys.find(text):
                return key
            raise ApiError(
                403, "key_invalid", "this API key is not valid: check it, or ask for one"
            )
        if self._settings.require_key:
            message = "an API key is needed: send it as `Authorization: Bearer KEY`"
            raise ApiError(401, "key_missing", message, headers={"WWW-Authenticate": "Bearer"})
        return None

    def check_admin(self, request: Request) -> Key:
        """The request's key, which must be an administrator's. Raises ApiError 401 or 403."""
        if self.keys is None:
            message = "there is no key file here: set QUICKSTUDY_KEYS_FILE to administer over HTTP"
            raise ApiError(403, "turned_off", message)
        key = self.key(request)
        if key is None:
            message = "an administrator's API key is needed: `Authorization: Bearer KEY`"
            raise ApiError(401, "key_missing", message, headers={"WWW-Authenticate": "Bearer"})
        if not key.admin:
            message = "this API key is no administrator's: make one with `quickstudy keys add`"
            raise ApiError(403, "key_invalid", message)
        return key

    def quota(self, key: Key) -> int | None:
        """Characters a month that a key may have translated; None for no limit."""
        return (
            key.quota_chars if key.quota_chars is not None else self._settings.quota_chars or None
        )

    def usage(self, request: Request) -> tuple[int, int | None]:
        """Characters of this month and the limit, of the request's key. Raises as `key`."""
        key = self.key(request)
        if key is None or self.keys is None:
            return 0, None
        return self.keys.usage(key.id).characters, self.quota(key)

    def close(self) -> None:
        """Close the key file."""
        if self.keys is not None:
            self.keys.close()

    async def _check_rate(self, who: str) -> None:
        if self._limiter is None or time.monotonic() < self._storage_asked_again_at:
            return
        for rate in self._rates:
            try:
                if await self._limiter.hit(rate, who):
                    continue
                reset = (await self._limiter.get_window_stats(rate, who)).reset_time
            except Exception:
                self._storage_failed()
                return
            message = f"more than {rate}: try again after the time that Retry-After names"
            raise ApiError.later(429, "rate", message, reset - time.time())
        if self._storage_down:
            self._storage_down = False
            logger.warning("the rate limits' storage answers again")

    def _storage_failed(self) -> None:
        """Let requests in without asking the storage for a while; say so once."""
        self._storage_asked_again_at = time.monotonic() + STORAGE_RETRY_S
        if not self._storage_down:
            self._storage_down = True
            logger.exception("the rate limits' storage does not answer: letting requests in")

    def _address(self, request: Request) -> str:
        """The client's address: the peer's, or what the outermost trusted proxy says."""
        address = request.client.host if request.client else ""
        if trusted := self._settings.trusted_proxies:
            forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
            hops = [hop.strip() for hop in forwarded if hop.strip()]
            if hops:
                address = hops[max(0, len(hops) - trusted)]
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "unknown"
        if parsed.version == 6:
            return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
        return address


def _limiter(settings: Settings) -> tuple[RateLimiter | None, list[RateLimitItem]]:
    if not settings.rate_limit:
        return None, []
    from limits import parse_many
    from limits.aio.strategies import SlidingWindowCounterRateLimiter
    from limits.errors import ConfigurationError
    from limits.storage import storage_from_string

    options = {} if settings.rate_storage.startswith("memory") else REDIS_OPTIONS
    try:
        storage = storage_from_string(f"async+{settings.rate_storage}", **options)
    except ConfigurationError as error:
        message = "rates are to be counted in Redis, but its client is not installed: "
        raise SettingsError(f"{message}pip install 'quickstudy[redis]'") from error
    return SlidingWindowCounterRateLimiter(storage), parse_many(settings.rate_limit)


def _key_in_headers(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() in SCHEMES and text.strip():
        return text.strip()
    return request.headers.get("x-api-key") or None


def _seconds_to_next_month(now: float) -> float:
    today = time.gmtime(now)
    year, month = (
        (today.tm_year + 1, 1) if today.tm_mon == 12 else (today.tm_year, today.tm_mon + 1)
    )
    return math.ceil(calendar.timegm((year, month, 1, 0, 0, 0)) - now)

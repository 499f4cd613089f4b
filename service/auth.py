"""Authentication, rate limits and quotas."""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import logging
import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import Request

from service.api_keys import ApiKey, KeyStore
from service.errors import ApiError
from service.observability import count_wrong_key, current_metrics
from service.settings import OFF, Settings, SettingsError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter

logger = logging.getLogger("quickstudy.service")

SCHEMES = ("bearer", "deepl-auth-key")
STORAGE_RETRY_S = 5.0
"""Seconds without rate limits after their storage failed."""
REDIS_OPTIONS: dict[str, Any] = {
    "implementation": "redispy",
    "socket_connect_timeout": 0.5,
    "socket_timeout": 0.5,
}
"""Seconds that a request waits at most for Redis."""
IPV6_PREFIX = 64
"""An IPv6 client has at least a whole /64: its addresses share one limit."""
BRACKETED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?")
MAX_ADDRESSES = 10_000
"""Addresses whose wrong keys are kept."""
NEED_KEY = {"WWW-Authenticate": "Bearer"}


class KeyFailures:
    """When each address sent wrong keys; one that sent too many has to wait.

    Beyond MAX_ADDRESSES, the address whose last wrong key is oldest is forgotten.
    """

    def __init__(self, rates: Sequence[RateLimitItem]) -> None:
        self._rates = [(rate.amount, rate.get_expiry()) for rate in rates]
        self._max_times = max((amount for amount, _ in self._rates), default=0)
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Addresses with wrong keys."""
        return len(self._times)

    def add(self, address: str) -> None:
        """Count a wrong key."""
        if not self._max_times:
            return
        times = self._times.pop(address, None) or deque[float](maxlen=self._max_times)
        times.append(time.monotonic())
        self._times[address] = times
        if len(self._times) > MAX_ADDRESSES:
            self._times.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """Seconds until the address may send a key again; 0 if it may now."""
        if (times := self._times.get(address)) is None:
            return 0.0
        ends = [times[-amount] + span for amount, span in self._rates if len(times) >= amount]
        return max(0.0, max(ends, default=0.0) - time.monotonic())


class Access:
    """Access control by the settings. Without keys and limits the service is public.

    `is_public`: whether every request is accepted, and nothing is counted.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limiter, self._rates = _limiter(settings)
        self._key_failures = KeyFailures(_rates(settings.key_failure_limit))
        self._storage_is_down = False
        self._storage_retry_at = 0.0
        self.is_public = (
            self._limiter is None and settings.keys_file is None and not settings.require_key
        )

    @cached_property
    def keys(self) -> KeyStore | None:
        """The key file, opened at the first use. Raises KeyFileError."""
        return KeyStore(self._settings.keys_file) if self._settings.keys_file else None

    @asynccontextmanager
    async def admitted(
        self, request: Request, characters: int, key_text: str | None = None
    ) -> AsyncIterator[None]:
        """Authorise a request to translate so many characters, and charge them to its key.

        They are refunded if the request fails. Raises ApiError: `key_missing`
        401, `key_invalid` 403, `rate` 429 and `quota` 429 with Retry-After.
        """
        key = await self.authenticate(request, key_text)
        if (metrics := current_metrics()) is not None:
            metrics.characters += characters
        self.charge(key, characters)
        try:
            yield
        except BaseException:
            self.refund(key, characters)
            raise

    async def authenticate(self, request: Request, key_text: str | None = None) -> ApiKey | None:
        """The request's key, as `key`; counts the request against its rate limit."""
        key = self.key(request, key_text)
        if (metrics := current_metrics()) is not None:
            metrics.key_id = key.id if key else None
        await self._check_rate(self.client(request, key))
        return key

    def client(self, request: Request, key: ApiKey | None) -> str:
        """Who sends the request: a key, or an address."""
        return f"key:{key.id}" if key else f"address:{self._address(request)}"

    def owner(self, request: Request, key: ApiKey | None) -> str:
        """Whose stored glossaries the request sees: its key's; where there is no key file, those of
        the word that it sends as a key; else nobody's, the empty string."""
        if key is not None:
            return f"key:{key.id}"
        word = _key_in_headers(request) if self.keys is None else None
        return f"word:{hashlib.sha256(word.encode()).hexdigest()}" if word else ""

    def charge(self, key: ApiKey | None, characters: int) -> None:
        """Charge characters to a key's quota. Raises ApiError `quota` 429 if it is exceeded."""
        if key is None or self.keys is None:
            return
        limit = self.quota(key)
        if not self.keys.charge(key.id, characters, limit):
            message = (
                f"the key's quota of {limit} characters a month does not allow {characters} more: "
                "ask for less, or for a larger quota, or wait for the next month (UTC)"
            )
            raise ApiError.later(429, "quota", message, _seconds_to_next_month(time.time()))

    def refund(self, key: ApiKey | None, characters: int) -> None:
        """Refund what was charged."""
        if key is not None and self.keys is not None:
            self.keys.refund(key.id, characters)

    def refund_later(self, key_id: int, characters: int, requests: int) -> None:
        """Refund a part of what was charged, after a job."""
        if self.keys is not None:
            self.keys.refund(key_id, characters, requests)

    def key(self, request: Request, key_text: str | None = None) -> ApiKey | None:
        """The request's key: this text, or the header's; None where none is required or sent.

        Raises ApiError: `key_missing` 401, `key_invalid` 403, `key_failures` 429 for any key of an
        address that has sent too many wrong ones.
        """
        text = key_text or _key_in_headers(request)
        if text and self.keys is not None:
            return self._find_key(request, text, self.keys)
        if self._settings.require_key:
            message = "an API key is needed: send it as `Authorization: Bearer KEY`"
            raise ApiError(401, "key_missing", message, headers=NEED_KEY)
        return None

    def check_metrics(self, request: Request) -> None:
        """Allow a request to read the metrics. Raises ApiError: `turned_off` 403, and as `key`."""
        readers = self._settings.metrics
        if readers == OFF:
            raise ApiError(403, "turned_off", "the metrics are turned off: see QUICKSTUDY_METRICS")
        if readers == "open" or (readers == "auto" and not self._settings.require_key):
            return
        if self.key(request) is None:
            message = "an API key is needed for the metrics: send it as `Authorization: Bearer KEY`"
            raise ApiError(401, "key_missing", message, headers=NEED_KEY)

    def check_query(self, request: Request) -> None:
        """Refuse a key in the query, unless the settings allow it. Raises ApiError 400."""
        if not self._settings.key_in_query and "api_key" in request.query_params:
            message = (
                "an API key in an address ends in logs, and is not taken here: send it in the body "
                "or as `Authorization: Bearer KEY`, and have this one replaced"
            )
            raise ApiError(400, "invalid_request", message, "api_key")

    def check_admin(self, request: Request) -> ApiKey:
        """The request's key, which must be an administrator's. Raises ApiError 401 or 403."""
        if self.keys is None:
            message = "there is no key file here: set QUICKSTUDY_KEYS_FILE to administer over HTTP"
            raise ApiError(403, "turned_off", message)
        key = self.key(request)
        if key is None:
            message = "an administrator's API key is needed: `Authorization: Bearer KEY`"
            raise ApiError(401, "key_missing", message, headers=NEED_KEY)
        if not key.admin:
            message = "this API key is no administrator's: make one with `quickstudy keys add`"
            raise ApiError(403, "key_invalid", message)
        return key

    def quota(self, key: ApiKey) -> int | None:
        """Characters a month that a key may translate; None for no limit."""
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
        if self._limiter is None or time.monotonic() < self._storage_retry_at:
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
        if self._storage_is_down:
            self._storage_is_down = False
            logger.warning("the rate limits' storage answers again")

    def _storage_failed(self) -> None:
        """Accept requests without the storage for a while; log it once."""
        self._storage_retry_at = time.monotonic() + STORAGE_RETRY_S
        if not self._storage_is_down:
            self._storage_is_down = True
            logger.exception("the rate limits' storage does not answer: accepting all requests")

    def scheme(self, request: Request) -> str:
        """`http` or `https`: the connection's, or what trusted proxies report."""
        entries = self._forwarded(request, "x-forwarded-proto")
        reported = entries[0].lower() if entries else ""
        return reported if reported in ("http", "https") else request.url.scheme

    def _find_key(self, request: Request, text: str, keys: KeyStore) -> ApiKey:
        """The key with this text, unless its sender has to wait. Raises ApiError 403, 429."""
        if len(self._key_failures):
            wait_s = self._key_failures.wait_s(self._address(request))
            if wait_s:
                count_wrong_key("limited")
                message = (
                    "this address has sent too many wrong API keys: try again with the right one "
                    "after the time that Retry-After names"
                )
                raise ApiError.later(429, "key_failures", message, wait_s)
        if key := keys.find(text):
            return key
        self._key_failures.add(self._address(request))
        count_wrong_key("refused")
        raise ApiError(403, "key_invalid", "this API key is not valid: check it, or ask for one")

    def _address(self, request: Request) -> str:
        """The client's address: the peer's, or what the outermost trusted proxy reports.

        A header with fewer entries than there are trusted proxies did not pass all of them, and is
        ignored.
        """
        peer = request.client.host if request.client else ""
        entries = self._forwarded(request, "x-forwarded-for")
        if len(entries) == self._settings.trusted_proxies > 0:
            return _client_network(entries[0]) or _client_network(peer) or "unknown"
        return _client_network(peer) or "unknown"

    def _forwarded(self, request: Request, header: str) -> list[str]:
        """The last entries of a header to which each proxy adds one: those of trusted proxies,
        the outermost one's first."""
        trusted = self._settings.trusted_proxies
        if not trusted or header not in request.headers:
            return []
        entries = ",".join(request.headers.getlist(header)).split(",")
        return [entry.strip() for entry in entries[-trusted:]]


def _client_network(text: str) -> str | None:
    """The IPv4 address, or the IPv6 network, of an address as proxies write it, with or without a
    port. None if it is not an address."""
    if bracketed := BRACKETED.fullmatch(text):
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))


def _rates(limit: str) -> list[RateLimitItem]:
    if limit == OFF:
        return []
    from limits import parse_many

    return parse_many(limit)


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

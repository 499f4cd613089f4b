"""Keys, quotas and rate limits, each told in the shape of the API that was asked."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.requests import Request

from service import auth
from service.api_keys import KeyFileError, KeyStore
from service.auth import Access, KeyFailures
from service.observability import REGISTRY
from service.settings import Settings
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
ROOT = Path(__file__).resolve().parents[2]
NATIVE = ("/v1/translate", {"text": "a b"})
LIBRE = ("/translate", {"q": "a b", "source": "en", "target": "de"})
DEEPL = ("/v2/translate", {"text": ["a b"], "target_lang": "DE", "source_lang": "EN"})


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.db")


@pytest.fixture
def keyed(make_client: MakeClient, tmp_path: Path, keys: KeyStore) -> TestClient:
    return make_client(StubEngine(), keys_file=tmp_path / "keys.db", require_key=True)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_only_the_hash_is_kept(tmp_path: Path, keys: KeyStore) -> None:
    key = keys.add("somebody")
    assert len(key) > 40
    keys.close()
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes()
        assert key.removeprefix("qs_").encode() not in file.read_bytes()


def test_a_key_lasts_until_it_is_revoked(keys: KeyStore) -> None:
    key = keys.add("somebody", quota_chars=7)
    found = keys.find(key)
    assert found is not None
    assert (found.name, found.admin, found.quota_chars) == ("somebody", False, 7)
    assert keys.find(key + "x") is None
    keys.revoke(found.id)
    assert keys.find(key) is None
    assert [one.revoked is not None for one in keys.all()] == [True]
    with pytest.raises(KeyFileError, match="no valid key"):
        keys.revoke(found.id)


def test_usage_stops_at_the_quota(keys: KeyStore) -> None:
    keys.add("somebody")
    assert keys.charge(1, 60, 100)
    assert not keys.charge(1, 41, 100)
    assert keys.charge(1, 40, 100)
    assert keys.charge(1, 5, None)
    keys.refund(1, 5)
    assert (keys.usage(1).requests, keys.usage(1).characters) == (2, 100)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but longer than a header of SQLite " * 20)
    for path in (tmp_path / "text", tmp_path / "nothing" / "keys.db"):
        with pytest.raises(KeyFileError, match="quickstudy keys"):
            KeyStore(path)


def test_a_missing_key(keyed: TestClient) -> None:
    for (url, body), status in ((NATIVE, 401), (LIBRE, 400), (DEEPL, 403)):
        assert keyed.post(url, json=body).status_code == status
    assert keyed.post("/v1/detect", json={"text": "a"}).status_code == 401
    assert keyed.get("/v2/usage").status_code == 403
    assert keyed.get("/v1/models").status_code == 200
    assert keyed.get("/readyz").status_code == 200


def test_a_wrong_key_is_403(keyed: TestClient) -> None:
    for url, body in (NATIVE, LIBRE, DEEPL):
        assert keyed.post(url, json=body, headers=bearer("qs_wrong")).status_code == 403
    url, body = LIBRE
    answer = keyed.post(url, json={**body, "api_key": "wrong"})
    assert answer.status_code == 403
    assert isinstance(answer.json()["error"], str)


def test_a_key_in_each_place(keyed: TestClient, keys: KeyStore) -> None:
    key = keys.add("somebody")
    for headers in (bearer(key), {"X-API-Key": key}):
        assert keyed.post(NATIVE[0], json=NATIVE[1], headers=headers).status_code == 200
    assert keyed.post(LIBRE[0], data={**LIBRE[1], "api_key": key}).status_code == 200
    deepl = {"Authorization": f"DeepL-Auth-Key {key}"}
    assert keyed.post(DEEPL[0], json=DEEPL[1], headers=deepl).status_code == 200
    usage = keyed.get("/v2/usage", headers=deepl).json()
    assert usage == {"character_count": 12, "character_limit": 1_000_000_000_000}
    keys.revoke(1)
    assert keyed.get("/v2/usage", headers=deepl).status_code == 403


def test_a_used_up_quota(keyed: TestClient, keys: KeyStore) -> None:
    key = keys.add("somebody", quota_chars=8)
    for _ in range(2):
        assert keyed.post(NATIVE[0], json=NATIVE[1], headers=bearer(key)).status_code == 200
    for (url, body), status in ((NATIVE, 200), (NATIVE, 429), (LIBRE, 429), (DEEPL, 456)):
        answer = keyed.post(url, json=body, headers=bearer(key))
        if status == 200:
            body = {"text": "ab"}
            continue
        assert answer.status_code == status
        assert 0 < int(answer.headers["Retry-After"]) <= 31 * 86_400
        assert "quota" in answer.text


def test_a_request_that_fails_is_not_charged(
    make_client: MakeClient, tmp_path: Path, keys: KeyStore
) -> None:
    client = make_client(StubEngine(fails=True), keys_file=tmp_path / "keys.db")
    key = keys.add("somebody")
    for body in (NATIVE[1], {"text": "a", "target": "fr"}):
        assert client.post(NATIVE[0], json=body, headers=bearer(key)).status_code in (422, 500)
    assert keys.usage(1).characters == 0


def test_a_rate_for_each_key_and_address(
    make_client: MakeClient, tmp_path: Path, keys: KeyStore
) -> None:
    client = make_client(
        StubEngine(), keys_file=tmp_path / "keys.db", rate_limit="2/hour", trusted_proxies=1
    )
    key = keys.add("somebody")
    for headers in (bearer(key), {"X-Forwarded-For": "1.1.1.1, 2.2.2.2"}, {}):
        statuses = [
            client.post(NATIVE[0], json=NATIVE[1], headers=headers).status_code for _ in range(3)
        ]
        assert statuses == [200, 200, 429], headers
    spoofed = {"X-Forwarded-For": "9.9.9.9, 2.2.2.2"}
    for url, body in (NATIVE, LIBRE, DEEPL):
        answer = client.post(url, json=body, headers=spoofed)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 3600


def test_addresses_of_one_ipv6_network_share_a_rate(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), rate_limit="1/hour", trusted_proxies=1)
    statuses = [
        client.post(NATIVE[0], json=NATIVE[1], headers={"X-Forwarded-For": address}).status_code
        for address in ("2001:db8:1:2::1", "2001:db8:1:2::ffff", "2001:db8:1:3::1")
    ]
    assert statuses == [200, 429, 200]


def asked(
    *forwarded: str, peer: str = "10.0.0.9", name: str = "X-Forwarded-For", scheme: str = "http"
) -> Request:
    """A request over a connection from `peer`, with these lines of a header."""
    headers = [(name.lower().encode(), line.encode()) for line in forwarded]
    headers.append((b"host", b"translate.example"))
    scope = {"type": "http", "scheme": scheme, "path": "/", "query_string": b"", "headers": headers}
    return Request({**scope, "client": (peer, 40000)})


SPOOFED, CLIENT, OUTER, MIDDLE = "9.9.9.9", "1.1.1.1", "10.0.0.1", "10.0.0.2"


@pytest.mark.parametrize(
    ("trusted", "lines", "address"),
    [
        (0, [CLIENT], "10.0.0.9"),
        (1, [f"{SPOOFED}, {CLIENT}"], CLIENT),
        (2, [f"{SPOOFED}, {CLIENT}, {OUTER}"], CLIENT),
        (3, [f"{SPOOFED}, {CLIENT}, {OUTER}, {MIDDLE}"], CLIENT),
        (2, [f"{SPOOFED}, {CLIENT}", OUTER], CLIENT),
        (2, [SPOOFED, f"{CLIENT},{OUTER}"], CLIENT),
        (3, [SPOOFED, CLIENT, OUTER, MIDDLE], CLIENT),
        (1, [], "10.0.0.9"),
        (1, [""], "10.0.0.9"),
        (2, [CLIENT], "10.0.0.9"),
        (3, [f"{CLIENT}, {OUTER}"], "10.0.0.9"),
        (1, ["unknown"], "10.0.0.9"),
        (1, [f"{SPOOFED}, 300.1.1.1"], "10.0.0.9"),
        (2, [f"{SPOOFED}, _hidden, {OUTER}"], "10.0.0.9"),
        (1, [f"{CLIENT}:51234"], CLIENT),
        (1, ["2001:db8:1:2:3::1"], "2001:db8:1:2::/64"),
        (1, ["[2001:db8:1:2:3::1]:51234"], "2001:db8:1:2::/64"),
        (1, ["[2001:db8:1:2:3::1]"], "2001:db8:1:2::/64"),
        (1, ["fe80::1%eth0"], "fe80::/64"),
        (1, [f"::ffff:{CLIENT}"], CLIENT),
    ],
)
def test_whom_trusted_proxies_name(trusted: int, lines: list[str], address: str) -> None:
    access = Access(Settings(trusted_proxies=trusted))
    assert access.client(asked(*lines), None) == f"address:{address}"


def test_the_address_of_a_peer() -> None:
    access = Access(Settings())
    peers = {"::ffff:10.0.0.9": "10.0.0.9", "2001:db8::1": "2001:db8::/64", "socket": "unknown"}
    for peer, address in peers.items():
        assert access.client(asked(peer=peer), None) == f"address:{address}"


@pytest.mark.parametrize(
    ("trusted", "lines", "scheme"),
    [
        (0, ["https"], "http"),
        (1, ["https"], "https"),
        (1, ["https, HTTP"], "http"),
        (2, ["http, https", "http"], "https"),
        (2, ["https"], "https"),
        (1, ["gopher"], "http"),
        (1, [], "http"),
    ],
)
def test_the_scheme_that_trusted_proxies_name(trusted: int, lines: list[str], scheme: str) -> None:
    access = Access(Settings(trusted_proxies=trusted))
    assert access.scheme(asked(*lines, name="X-Forwarded-Proto")) == scheme


def wrong_keys(client: TestClient, count: int, headers: Mapping[str, str] = {}) -> list[int]:
    wrong = {**headers, **bearer("qs_wrong")}
    return [client.post(NATIVE[0], json=NATIVE[1], headers=wrong).status_code for _ in range(count)]


def wrong_key_counts() -> dict[str, float]:
    name = "quickstudy_wrong_keys_total"
    return {
        result: REGISTRY.get_sample_value(name, {"result": result}) or 0.0
        for result in ("refused", "limited")
    }


def test_wrong_keys_are_limited(make_client: MakeClient, tmp_path: Path, keys: KeyStore) -> None:
    before = wrong_key_counts()
    client = make_client(
        StubEngine(),
        keys_file=tmp_path / "keys.db",
        require_key=True,
        key_failure_limit="3/hour",
        trusted_proxies=1,
    )
    key = bearer(keys.add("somebody"))
    one, other = {"X-Forwarded-For": "1.1.1.1"}, {"X-Forwarded-For": "2.2.2.2"}
    assert client.post(NATIVE[0], json=NATIVE[1], headers=one).status_code == 401
    assert wrong_keys(client, 2, one) == [403, 403]
    assert client.post(NATIVE[0], json=NATIVE[1], headers={**one, **key}).status_code == 200
    assert wrong_keys(client, 3, one) == [403, 429, 429]
    for (url, body), member in zip(
        (NATIVE, LIBRE, DEEPL), ("error", "error", "message"), strict=True
    ):
        answer = client.post(url, json=body, headers={**one, **key})
        assert answer.status_code == 429
        assert 3590 <= int(answer.headers["Retry-After"]) <= 3600
        assert "wrong API keys" in str(answer.json()[member])
    assert client.get("/v2/usage", headers={**one, **key}).status_code == 429
    assert client.post("/admin/models", json={}, headers={**one, **key}).status_code == 429
    assert client.post(NATIVE[0], json=NATIVE[1], headers={**other, **key}).status_code == 200
    assert wrong_keys(client, 1, other) == [403]
    counted = {result: count - before[result] for result, count in wrong_key_counts().items()}
    assert counted == {"refused": 4, "limited": 7}


def test_wrong_keys_need_not_be_limited(
    make_client: MakeClient, tmp_path: Path, keys: KeyStore
) -> None:
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db", key_failure_limit="off")
    assert wrong_keys(client, 25) == [403] * 25


def test_without_keys_none_is_wrong(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), key_failure_limit="1/hour")
    assert wrong_keys(client, 3) == [200] * 3


def failures(rates: str) -> KeyFailures:
    from limits import parse_many

    return KeyFailures(parse_many(rates))


def test_wrong_keys_are_forgotten_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = failures("2/minute; 3/hour")
    found.add("a")
    now = 1010.0
    found.add("a")
    assert found.wait_s("a") == 50
    now = 1060.0
    assert found.wait_s("a") == 0
    found.add("a")
    assert found.wait_s("a") == 3540
    assert found.wait_s("b") == 0
    found = failures("1/hour; 2/minute")
    found.add("a")
    now = 1070.0
    found.add("a")
    assert found.wait_s("a") == 3600


def test_only_so_many_wrong_keys_of_an_address_are_remembered() -> None:
    found = failures("2/hour")
    tracemalloc.start()
    try:
        for _ in range(10_000):
            found.add("a")
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_wrong_keys_of_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_ADDRESSES", 3)
    found = failures("2/hour")
    for address in ("a", "b", "a", "c", "d", "d", "d"):
        found.add(address)
    assert len(found) == 3
    assert [found.wait_s(address) > 0 for address in "abcd"] == [True, False, False, True]


def test_keys_in_addresses_can_be_refused(
    make_client: MakeClient, tmp_path: Path, keys: KeyStore
) -> None:
    key = keys.add("somebody")
    settings = {"keys_file": tmp_path / "keys.db", "require_key": True}
    url, body = LIBRE
    assert make_client(StubEngine(), **settings).post(f"{url}?api_key={key}", json=body).is_success
    strict = make_client(StubEngine(), key_in_query=False, **settings)
    for path, sent in ((url, body), ("/detect", {"q": "a b"})):
        answer = strict.post(f"{path}?api_key={key}", json=sent)
        assert answer.status_code == 400
        assert "ends in logs" in answer.json()["error"]
        assert key not in answer.text
        assert strict.post(path, json={**sent, "api_key": key}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "alone", "with_key"),
    [
        ({}, 200, 200),
        ({"require_key": True}, 401, 200),
        ({"require_key": True, "metrics": "open"}, 200, 200),
        ({"metrics": "key"}, 401, 200),
        ({"metrics": "off"}, 403, 403),
    ],
)
def test_who_may_read_the_metrics(
    make_client: MakeClient,
    tmp_path: Path,
    keys: KeyStore,
    settings: dict[str, object],
    alone: int,
    with_key: int,
) -> None:
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db", **settings)
    key = bearer(keys.add("prometheus", quota_chars=0))
    assert client.get("/metrics").status_code == alone
    answer = client.get("/metrics", headers=key)
    assert answer.status_code == with_key
    assert ("quickstudy_requests_total" in answer.text) == (with_key == 200)
    wrong = client.get("/metrics", headers=bearer("qs_wrong"))
    assert wrong.status_code == (403 if alone != 200 else 200)
    assert client.post(NATIVE[0], json=NATIVE[1], headers=key).status_code == 429


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for settings in ({"require_key": True}, {"metrics": "key"}):
        with pytest.raises(ValidationError, match="QUICKSTUDY_KEYS_FILE"):
            Settings(**settings)
    for limit in ("often", "101/minute", "5/minute; 200/hour", "on"):
        with pytest.raises(ValidationError, match="key_failure_limit"):
            Settings(key_failure_limit=limit)
    for rate in ("often", "0.5/second"):
        with pytest.raises(ValidationError, match="rate_limit"):
            Settings(rate_limit=rate)


def test_administrators_swap_models(
    make_client: MakeClient, make_pair: Callable[..., object], tmp_path: Path, keys: KeyStore
) -> None:
    client = make_client(keys_file=tmp_path / "keys.db")
    folder = str(make_pair("en", "fr").path)  # type: ignore[attr-defined]
    body = {"models": [folder]}
    somebody, admin = bearer(keys.add("somebody")), bearer(keys.add("admin", admin=True))
    assert client.post("/admin/models", json=body).status_code == 401
    assert client.post("/admin/models", json=body, headers=somebody).status_code == 403
    for folder in ("/nowhere", "/" + "a" * 4000, "\0"):
        bad = client.post("/admin/models", json={"models": [folder]}, headers=admin)
        assert bad.status_code == 422
    assert client.get("/v1/languages").json()["languages"][0]["targets"] == ["de"]
    done = client.post("/admin/models", json=body, headers=admin)
    assert [model["target"] for model in done.json()["models"]] == ["fr"]
    assert client.get("/v1/languages").json()["languages"][0]["targets"] == ["fr"]
    assert client.post("/admin/models", json={}, headers=admin).status_code == 200
    assert client.get("/v1/languages").json()["languages"][0]["targets"] == ["de"]


def test_nobody_administers_without_keys(make_client: MakeClient) -> None:
    assert make_client(StubEngine()).post("/admin/models", json={}).status_code == 403


def test_headers_that_keep_browsers_safe(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), cors_origins="https://a.example")
    for answer in (client.post(NATIVE[0], json=NATIVE[1]), client.get("/nothing"), client.get("/")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
        answer = client.post(NATIVE[0], json=NATIVE[1], headers={"Origin": origin})
        assert ("Access-Control-Allow-Origin" in answer.headers) == allowed
    plain = make_client(StubEngine()).post(
        NATIVE[0], json=NATIVE[1], headers={"Origin": "https://a.example"}
    )
    assert "Access-Control-Allow-Origin" not in plain.headers


def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"

    def keys_command(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "quickstudy", "keys", *words, "--file", str(file)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    key = keys_command("add", "somebody", "--admin", "--quota", "9").stdout.strip()
    found = KeyStore(file).find(key)
    assert found is not None
    assert (found.admin, found.quota_chars) == (True, 9)
    listing = keys_command("list").stdout
    assert "somebody\tyes\t9\t0\t0" in listing
    assert key not in listing
    assert keys_command("revoke", "1").returncode == 0
    assert KeyStore(file).find(key) is None
    again = keys_command("revoke", "1")
    assert again.returncode == 1
    assert again.stderr.startswith("quickstudy: there is no valid key 1")

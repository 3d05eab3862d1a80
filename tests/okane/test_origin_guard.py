"""Without keys, a web page in a browser can neither pay nor read: not by a form, not by DNS rebinding."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from okane.api.access import KeyAccess
from okane.api_key import Mode
from okane.config import Settings
from okane.origin_guard import OriginGuard, Refusal, host_name, is_loopback
from okane.simulator.app import build_app
from okane.simulator.options import SimulatorOptions
from okane.store import ApiKeyStore
from tests.okane.served_api import Api, serve_api

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST.:8080",
        "api.localhost",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.8.8.8:1",
        "127.1:8080",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:8080",
        "pay.example.com",
        "Pay.Example.com.:443",
        "",
    ],
)
def test_a_host_of_this_machine_or_a_configured_one_passes(host: str) -> None:
    assert OriginGuard(frozenset({"pay.example.com"})).refusal([host]) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil-localhost",
        "0.0.0.0:8080",
        "10.0.0.7",
        "[::]",
        "[fe80::1]",
        "128.0.0.1",
        "localhost:8080:80",
        "localhost 127.0.0.1",
        "[localhost]",
        "localhost/",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    assert OriginGuard().refusal([host]) is Refusal.HOST
    assert OriginGuard().refusal(["127.0.0.1", host]) is Refusal.HOST


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("localhost", "http://localhost", True),
        ("localhost:80", "http://localhost", True),
        ("localhost:443", "https://LOCALHOST", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("localhost:8080", "https://pay.example.com", True),
        ("localhost:8080", "http://localhost:3000", False),
        ("localhost:8080", "http://127.0.0.1:8080", False),
        ("localhost:80", "https://localhost", False),
        ("localhost:8080", "https://evil.example", False),
        ("localhost:8080", "http://localhost:8080.evil.example", False),
        ("localhost:8080", "null", False),
        ("localhost:8080", "", False),
        ("localhost:8080", "file://", False),
        ("localhost:8080", "chrome-extension://abcdef", False),
        ("", "https://evil.example", False),
    ],
)
def test_only_pages_of_the_api_itself_and_configured_ones_pass(host: str, origin: str, passes: bool) -> None:
    guard = OriginGuard(frozenset({"pay.example.com"}))
    assert (guard.refusal([host], [origin]) is None) == passes
    assert guard.refusal([host], [origin, "https://evil.example"]) is Refusal.CROSS_SITE


@pytest.mark.parametrize(
    ("site", "passes"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False), ("later-word", False)],
)
def test_browsers_say_themselves_where_a_request_comes_from(site: str, passes: bool) -> None:
    assert (OriginGuard().refusal(["localhost"], [], [site]) is None) == passes


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403, "cross_site_request"),
        ({"Origin": "null"}, 403, "cross_site_request"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "cross_site_request"),
        ({"Host": "rebound.evil.example:8080"}, 421, "host_not_allowed"),
        ({"Host": "rebound.evil.example:8080", "Origin": "http://rebound.evil.example:8080"}, 421, "host_not_allowed"),
    ],
)
async def test_a_page_of_another_origin_can_not_pay(
    api: Api, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    sent = '{"amount": 440, "idempotency_key": "evil-1"}'
    async with api.client.post(path, data=sent, headers={"Content-Type": FORM, **headers}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (status, code)
        assert "X-Request-Id" in answer.headers
    async with api.client.get("/v1/payments") as answer:
        assert (await answer.json())["payments"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/payments"),
        ("GET", "/v1/payments/018f0000-0000-7000-8000-000000000000"),
        ("POST", "/v1/payments/batch"),
        ("POST", "/v1/payments/018f0000-0000-7000-8000-000000000000/cancel"),
        ("GET", "/v1/dead-letters"),
        ("POST", "/v1/dead-letters/replay"),
    ],
)
async def test_no_other_route_serves_a_rebound_name(api: Api, method: str, path: str) -> None:
    async with api.client.request(method, path, headers={"Host": "rebound.evil.example"}) as answer:
        assert answer.status == 421


@pytest.mark.parametrize("headers", [{}, {"Origin": "SELF", "Sec-Fetch-Site": "same-origin"}, {"Host": "localhost:1"}])
async def test_curl_and_pages_of_the_api_itself_pay(api: Api, headers: dict[str, str]) -> None:
    own = api.url.rstrip("/")
    sent = {name: value.replace("SELF", own) for name, value in headers.items()}
    body = '{"amount": 440, "idempotency_key": "curl-1"}'
    async with api.client.post("/payments", data=body, headers={"Content-Type": FORM, **sent}) as answer:
        assert answer.status == 202, await answer.text()


async def test_a_request_without_host_pays(api: Api) -> None:
    """HTTP/1.0 clients need not send one, and browsers always do."""
    url = URL(api.url)
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = b'{"amount": 440, "idempotency_key": "old-1"}'
    writer.write(b"POST /payments HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert (await reader.readline()).split()[1] == b"202"
    writer.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://evil.example", b"421"),
        ("http://127.0.0.1@evil.example", b"421"),
        ("http://evil.example@127.0.0.1", b"421"),
        ("http://127.0.0.1:8080", b"200"),
    ],
)
async def test_a_target_in_absolute_form_is_judged_as_its_host_is(api: Api, target: str, status: bytes) -> None:
    """It overrides `Host` (RFC 9112, 3.2.2); a proxy sends it as it came."""
    url = URL(api.url)
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {target}/v1/payments HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == status
    writer.close()


async def test_with_keys_any_name_may_lead_to_the_api(database_url: str, redis_url: str) -> None:
    """A page of another origin has no key to send: a browser keeps none for it."""
    store = ApiKeyStore(database_url)
    async for api in serve_api(database_url, redis_url, access=KeyAccess(store, mode=Mode.TEST)):
        async with api.client.get("/v1/payments", headers={"Host": "pay.example.com"}) as answer:
            assert answer.status == 401
    await store.aclose()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "https://evil.example"}, 403), ({"Host": "evil.example"}, 421), ({}, 200)],
)
async def test_the_mock_provider_takes_no_charges_from_pages_either(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    options = SimulatorOptions(journal=tmp_path / "journal.jsonl", unavailable=0, decline=0)
    async with TestClient(TestServer(build_app(options))) as client:
        body = {"payment_id": "p", "amount": 1, "currency": "USD"}
        answer = await client.post("/charges", json=body, headers={"Idempotency-Key": "k", **headers})
        assert answer.status == status
        assert (await (await client.get("/journal/summary")).json())["charged"] == (1 if status == 200 else 0)


def test_allowed_hosts_are_names_without_scheme_and_port() -> None:
    settings = Settings(_env_file=None, allowed_hosts="Pay.Example.com., 10.0.0.7, [fd00::7],")
    assert settings.allowed_hosts == frozenset({"pay.example.com", "10.0.0.7", "fd00::7"})
    for wrong in ("https://pay.example.com", "pay.example.com:8080", "a b"):
        with pytest.raises(ValueError, match="names or addresses"):
            Settings(_env_file=None, allowed_hosts=wrong)


def test_names_are_compared_as_dns_does() -> None:
    assert host_name("Example.COM.:80") == "example.com"
    assert host_name("[::1]:80") == "::1"
    assert host_name("a:b") is None
    assert is_loopback("x.localhost")
    assert not is_loopback("localhost.example")

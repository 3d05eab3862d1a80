"""The heads of all answers, and the problems that name the right route, method or media type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from iso4217 import Currency
from yarl import URL

from okane.api.http import protocol_errors
from okane.api.http.server import serving
from okane.api.metrics_endpoint import MetricsSources, build_metrics_app
from okane.client import Client
from okane.simulator import app as simulator
from okane.simulator.options import SimulatorOptions
from tests.okane.api_requests import get, post
from tests.okane.served_api import LIMITS, Api

CURLS = "application/x-www-form-urlencoded"
NEW = '{"amount": 440, "idempotency_key": "k"}'
NOBODYS = "01890000-0000-7000-8000-000000000000"
CACHEABLE = ("/docs", "/v1/openapi.json", "/v1/currencies")


async def test_an_answer_about_payments_is_not_cacheable(api: Api) -> None:
    response, made = await post(api, "/v1/payments", NEW)  # on the fast path
    payment = f"/v1/payments/{made['payment']['id']}"
    answers = [response]
    for path, body, headers in (
        ("/v1/payments", NEW, {}),
        ("/v1/payments", NEW, {"Prefer": "wait=0"}),
        ("/v1/payments", NEW.replace("440", "441"), {}),  # an error with a payment's id
        ("/v1/payments", "{", {}),
        ("/pay", NEW, {}),
        ("/v1/payments/batch", f"[{NEW}]", {}),
        (f"{payment}/cancel", "", {}),
        (f"{payment}/retry", "", {}),
        ("/v1/dead-letters/replay", "{}", {}),
        ("/nowhere", "", {}),
    ):
        answers.append((await post(api, path, body, **headers))[0])
    for path in ("", "/events", "/attempts", "/nowhere"):
        answers.append((await get(api, f"{payment}{path}"))[0])
    for path in ("/v1/payments", "/v1/payments?limit=0", f"/v1/payments/{NOBODYS}", "/v1/dead-letters", "/readyz"):
        answers.append((await get(api, path))[0])
    answers.append((await get(api, payment, **{"If-None-Match": "*"}))[0])
    assert {200, 202, 207, 304, 400, 404, 409, 422} <= {answer.status for answer in answers}
    for answer in answers:
        assert answer.headers.getall("Cache-Control") == ["no-store"], answer.url
    for path in CACHEABLE:
        async with api.client.get(path) as cacheable:
            assert cacheable.headers["Cache-Control"].startswith("public, max-age="), path
    assert b"\r\nCache-Control: no-store\r\n" in protocol_errors.HEAD_TOO_SLOW.on_the_wire(request_id="1")


async def heads(url: URL, *paths: str) -> list[bytes]:
    """Return the heads of answers to right requests, to wrong ones, and to bytes that are not HTTP."""
    found = []
    for sent in [*(f"GET {path} HTTP/1.1\r\nHost: {url.authority}\r\n\r\n" for path in paths), "nonsense\r\n\r\n"]:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(sent.encode())
        found.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()
    return found


async def _of_the_api(api: Api, _tmp_path: Path) -> list[bytes]:
    await post(api, "/v1/payments", NEW)
    url = URL(api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /v1/payments HTTP/1.1\r\nHost: {url.authority}\r\nContent-Type: {CURLS}\r\n"
    writer.write(f"{head}Content-Length: {len(NEW)}\r\n\r\n{NEW}".encode())
    fast = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return [fast, *await heads(url, "/v1/payments", "/docs", "/nowhere", "/v1/health")]


async def _of_the_provider(_api: Api, tmp_path: Path) -> list[bytes]:
    async with simulator.serving(SimulatorOptions(port=0, journal=tmp_path / "journal.jsonl")) as url:
        return await heads(URL(url), "/health", "/journal", "/nowhere", "/charges/x")


async def _of_the_metrics(api: Api, _tmp_path: Path) -> list[bytes]:
    async def processes() -> list[object]:
        return []

    registry = api.metrics.registry
    sources = MetricsSources(process=registry, system=registry, refreshes=(), processes=processes, name="x")  # type: ignore[arg-type]  # only http_sd is used
    async with serving(build_metrics_app(sources), "127.0.0.1", 0, limits=LIMITS, drain=timedelta(0)) as url:
        return await heads(URL(url), "/metrics", "/http_sd", "/healthz", "/nowhere")


@pytest.mark.parametrize("of", [_of_the_api, _of_the_provider, _of_the_metrics])
async def test_no_server_tells_its_version(
    api: Api, tmp_path: Path, of: Callable[[Api, Path], Awaitable[list[bytes]]]
) -> None:
    found = await of(api, tmp_path)
    assert len(found) >= 5
    for head in found:
        servers = [line for line in head.lower().split(b"\r\n") if line.startswith(b"server:")]
        assert servers in ([], [b"server: okane"]), head
        assert b"python" not in head.lower()
        assert b"aiohttp" not in head.lower()


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay", "/v1/payments/batch", "/v1/dead-letters/replay"])
@pytest.mark.parametrize("content_type", [CURLS, CURLS.upper(), f"{CURLS}; charset=utf-8"])
async def test_the_problem_of_a_form_asks_for_json(api: Api, path: str, content_type: str) -> None:
    for body in ("amount=440&idempotency_key=k", "{amount=440", "%7B%22amount%22%3A440%7D", ""):
        for headers in ({}, {"Prefer": "wait=0"}):  # with this aiohttp answers
            response, problem = await post(api, path, body, **{"Content-Type": content_type, **headers})
            assert (response.status, problem["code"]) == (415, "unsupported_media_type"), body
            assert problem["detail"].startswith("send JSON")
    response, problem = await post(api, path, '{"amount": 1, "amount": 2}', **{"Content-Type": content_type})
    assert (response.status, problem["code"]) == (400, "json_duplicate_name")  # JSON it is
    response, problem = await post(api, path, "{amount", **{"Content-Type": "application/json"})
    assert (response.status, problem["code"]) == (400, "json_invalid")


async def test_json_with_the_type_of_a_form_or_none_is_accepted(api: Api) -> None:
    for number, headers in enumerate([{"Content-Type": CURLS}, {"Content-Type": CURLS, "Prefer": "wait=0"}, {}]):
        async with api.client.post(
            "/payments",
            data=NEW.replace("k", f"k-{number}", 2).replace(f"idempotency_k-{number}ey", "idempotency_key").encode(),
            headers=headers,
            skip_auto_headers=["Content-Type"],
        ) as response:
            assert response.status == 202, await response.text()


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/payment", "GET or POST /v1/payments"),
        ("/v1/payments/", "GET or POST /v1/payments"),
        ("/api/v1/payments", "GET or POST /v1/payments"),
        (f"/v1/payments/{NOBODYS}/event", "GET /v1/payments/{payment_id}/events"),
        (f"/v1/payments/pay_{NOBODYS.replace('-', '')}/cancle", "POST /v1/payments/{payment_id}/cancel"),
        ("/v1/deadletters", "GET /v1/dead-letters"),
        ("/v1/currency", "GET /v1/currencies"),
        ("/healthy", "GET /health"),
    ],
)
async def test_the_problem_of_an_unknown_path_names_the_nearest_route(api: Api, path: str, nearest: str) -> None:
    response, problem = await get(api, path)
    assert (response.status, problem["code"]) == (404, "route_not_found")
    assert f"the nearest is {nearest};" in problem["detail"]


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/%FF%00", "/" + "x" * 3000])
async def test_a_path_that_is_like_no_route_is_led_to_the_documents(api: Api, path: str) -> None:
    async with api.client.get(URL(path, encoded=True)) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["code"]) == (404, "route_not_found")
    assert problem["detail"].endswith("; GET /docs has all of them")
    assert len(problem["detail"]) < 200


async def test_the_problem_of_a_refused_method_lists_the_allowed_ones(api: Api) -> None:
    for method, path, allowed in (
        ("DELETE", "/v1/payments", "GET, HEAD, POST"),
        ("GET", "/pay", "POST"),
        ("PUT", f"/v1/payments/{NOBODYS}", "GET, HEAD"),
    ):
        async with api.client.request(method, path) as response:
            problem = await response.json(content_type=None)
        assert response.status == 405
        assert problem["detail"] == f"this route takes {allowed}, and not {method}"


async def test_the_currencies_of_new_payments_are_listed_with_their_exponents(api: Api) -> None:
    response, body = await get(api, "/v1/currencies")
    assert response.status == 200
    listed = {one["code"]: one for one in body["currencies"]}
    assert list(listed) == sorted(listed)
    assert [listed[code]["exponent"] for code in ("EUR", "JPY", "KWD", "CLF")] == [2, 0, 3, 4]
    assert listed["EUR"]["name"] == "Euro"
    assert not {"BGN", "XAU", "XXX", "XTS"} & set(listed)
    for code in sorted({*listed, *(one.code for one in Currency)}):
        asked = json.dumps({"amount": 1, "currency": code, "idempotency_key": code})
        response, _ = await post(api, "/v1/payments", asked)
        assert (response.status == 202) == (code in listed), code
    async with Client(api.url) as client:
        assert {one.code: one.exponent for one in await client.currencies()} == {
            code: one["exponent"] for code, one in listed.items()
        }


async def test_a_form_of_a_browser_is_no_answer_either(api: Api) -> None:
    form = aiohttp.FormData({"amount": "440"})
    form.add_field("file", b"x", filename="x")
    async with api.client.post("/payments", data=form) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["code"]) == (415, "unsupported_media_type")
    assert problem["detail"].startswith("send JSON")

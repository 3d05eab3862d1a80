"""One trace from the client's request to the settled payment, through real processes and out to a collector."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.flow.system import System

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ALWAYS = ("--unavailable", "0", "--decline", "0")
LOST_ANSWER = 5_004  # with magic amounts: the provider charges, and its answer does not come
TRACED_BY_A_WORKER = (
    "okane_handler_seconds",
    "okane_message_wait_seconds",
    "okane_payment_settle_seconds",
    "okane_provider_call_seconds",
)
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came to the collector."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, str]


@dataclass(slots=True)
class Collector:
    """An OTLP collector, and a witness between the workers and the mock provider."""

    spans: list[Span] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)  # method and `traceparent` of each provider call
    provider_url: str = ""
    http: aiohttp.ClientSession | None = None

    async def collect(self, request: web.Request) -> web.Response:
        for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {one.key: one.value.string_value for one in span.attributes}
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.spans.append(Span(about["service.name"], span.name, *ids, attributes))
        return web.Response()

    async def forward(self, request: web.Request) -> web.Response:
        assert self.http is not None
        self.told.append((request.method, request.headers.get("traceparent", "")))
        url, headers = self.provider_url + request.path_qs, dict(request.headers)
        async with self.http.request(request.method, url, data=await request.read(), headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name.startswith(name)]

    async def until(self, names: Mapping[str, int]) -> None:
        """Wait until these spans have come, that often."""
        await until(lambda: all(len(self.named(name)) >= count for name, count in names.items()), self)


async def until(condition: Callable[[], bool], about: object) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never came true: {about}") from None


@pytest.fixture
async def collector(system: System) -> AsyncIterator[Collector]:
    """Running, and the processes of the system told of it."""
    one = Collector(provider_url=system.provider_url)
    app = web.Application()
    app.router.add_post("/v1/traces", one.collect)
    app.router.add_route("*", "/charges{rest:.*}", one.forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}".format(*runner.addresses[0][:2])
    system.env |= {
        "OKANE_TRACING": "true",
        "OKANE_PROVIDER_BASE_URL": url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    async with aiohttp.ClientSession() as one.http:
        yield one
        await system.stop_all()  # no process sends to the collector any more
    await runner.cleanup()


async def pay(system: System, amount: int = 440) -> tuple[str, str]:
    """A payment by a client that traces: its id, and what the client is told of the trace."""
    body, headers = {"amount": amount, "idempotency_key": "secret-key"}, {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{system.url}/v1/payments", json=body, headers=headers) as response,
    ):
        assert response.status == 202
        return (await response.json())["payment"]["id"], response.headers["traceresponse"]


async def exemplars(system: System, process: str) -> Mapping[str, Sequence[str]]:
    """The traces that a process's metrics name, by metric, as a reader of OpenMetrics finds them."""
    async with (
        aiohttp.ClientSession(headers={"Accept": OPEN_METRICS}) as http,
        http.get(f"{system.metrics_url(process)}/metrics") as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        text = await response.text()
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    return {
        family.name: [one.exemplar.labels["trace_id"] for one in family.samples if one.exemplar is not None]
        for family in families
        if any(one.exemplar is not None for one in family.samples)
    }


async def test_a_payment_is_one_trace_from_the_client_to_the_provider(system: System, collector: Collector) -> None:
    await system.start("w1", provider=ALWAYS)
    payment_id, told = await pay(system)
    assert await system.settled([payment_id]) == Counter(success=1)
    await collector.until({"POST": 1, "publish": 1, "process": 1})
    by_name = {span.name.split(f" {system.stream}")[0]: span for span in collector.spans if span.trace_id == TRACE}
    assert {name: span.service for name, span in by_name.items()} == {
        "POST /v1/payments": "okane-api",
        "publish": "okane-api",
        "process": "okane-worker",
        "claim": "okane-worker",
        "provider charge": "okane-worker",
        "settle": "okane-worker",
    }
    ids = {name: span.span_id for name, span in by_name.items()}
    assert {name: span.parent_id for name, span in by_name.items()} == {
        "POST /v1/payments": CLIENT_SPAN,
        "publish": ids["POST /v1/payments"],
        "process": ids["publish"],
        "claim": ids["process"],
        "provider charge": ids["process"],
        "settle": ids["process"],
    }
    assert told == f"00-{TRACE}-{ids['POST /v1/payments']}-01"
    assert collector.told == [("POST", f"00-{TRACE}-{ids['provider charge']}-01")]
    for name in ("POST /v1/payments", "publish", "process"):
        assert by_name[name].attributes["okane.payment.id"] == payment_id
    assert "secret-key" not in repr(collector.spans)
    found = await exemplars(system, "api")
    assert set(found) == {"okane_http_request_seconds"}
    assert TRACE in found["okane_http_request_seconds"]  # and those of the requests that have looked for its end
    assert await exemplars(system, "w1") == {name: [TRACE] for name in TRACED_BY_A_WORKER}


async def test_a_payment_that_is_tried_again_stays_in_its_trace(system: System, collector: Collector) -> None:
    await system.start("w1", provider=(*ALWAYS, "--magic-amounts"))
    payment_id, _ = await pay(system, LOST_ANSWER)
    assert await system.settled([payment_id]) == Counter(success=1)
    await collector.until({"process": 2, "provider charge": 1, "provider look_up": 1, "settle": 2})
    assert {span.trace_id for span in collector.spans if span.service == "okane-worker"} == {TRACE}
    [publish] = collector.named("publish")
    processed = collector.named("process")
    assert {span.parent_id for span in processed} == {publish.span_id}
    [charge], [look_up] = collector.named("provider charge"), collector.named("provider look_up")
    assert {charge.parent_id, look_up.parent_id} <= {span.span_id for span in processed}
    assert charge.parent_id != look_up.parent_id
    assert collector.told == [
        ("POST", f"00-{TRACE}-{charge.span_id}-01"),
        ("GET", f"00-{TRACE}-{look_up.span_id}-01"),
    ]


async def test_a_collector_that_is_away_holds_nothing_up(system: System) -> None:
    system.env |= {"OKANE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    system.env |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    await system.start("w1", provider=ALWAYS)
    ids = await system.pay(10)
    assert await system.settled(ids) == Counter(success=10)
    await until(lambda: "spans_lost" in [line["event"] for line in system.log("w1")], "the log says so")
    assert [line["event"] for line in system.log("w1")].count("spans_lost") == 1
    assert not [line for line in system.log("w1") if line.get("logger", "").startswith("opentelemetry")]
    assert await system.stop("w1") == 0
    assert await system.stop("api") == 0
    await system.start_worker("w2")
    await system.start_api()
    await system.check(ids)

"""Traces, with the spans kept in memory: what belongs together, what goes along, and what must never be told."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from okane import logs, tracing
from okane.api.access import AnonymousAccess
from okane.api.dead_letters import DeadLetterHandlers
from okane.api.disputes import DisputeHandlers
from okane.api.health import HealthHandlers
from okane.api.http.fast_path import FastPath
from okane.api.http.server import serving as served
from okane.api.long_polling import LongPolling
from okane.api.payment_handlers import PaymentHandlers
from okane.api.payment_methods import PaymentMethodHandlers
from okane.api.payment_queries import PaymentQueries
from okane.api.provider_notices import NoticeHandlers
from okane.api.routes import Handlers, build_api
from okane.api.webhook_services import WebhookServices
from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.http.guard import Guard
from okane.intake.accept import PaymentIntake
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.payment import Payment
from okane.providers.base import Approved, ChargeResult, LookUpResult, NotFound, Unknown
from okane.store import AcceptedRow, Claim, DeadLetterStore, NewPayment, PaymentLists, PaymentStore, PaymentWatch
from okane.store.disputes import DisputeLists
from okane.store.payment_methods import PaymentMethodStore
from okane.tracing import export
from okane.tracing.opentelemetry_tracing import recording
from streams import Done, Draft, Message, Outcome, StreamFull, connect
from streams.testing import MemoryQueue
from tests.no_operations import NoOperations
from tests.okane.charging import TRAITS
from tests.okane.fast_path import HEALTH, Shelf, no_operations, post, sent
from tests.okane.served_api import LIMITS, Api
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new, settlement

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
SECRET = "sk_live_51H8"
LIMIT = 10_000


class Begun(SpanProcessor):
    """Counts the requests that have begun."""

    requests = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.requests += span.kind is SpanKind.SERVER


class Traced:
    """Tracing whose spans can be looked at."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(sampler), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.begun = Begun()
        provider.add_span_processor(self.begun)
        self.tracing = recording(provider, Settings(_env_file=None))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Those that have ended, in that order."""
        return self._exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        [one] = [span for span in self.spans if span.name == name]
        return one


@pytest.fixture
def traced() -> Traced:
    return Traced()


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.context is not None
    assert parent.context is not None
    same = span.context.trace_id == parent.context.trace_id
    return same and span.parent is not None and span.parent.span_id == parent.context.span_id


def queue() -> MemoryQueue:
    return MemoryQueue(payments_stream("test"))


async def test_a_wake_up_goes_along_with_the_request_that_made_it(traced: Traced) -> None:
    memory, payment_id = queue(), uuid4()
    assert traced.tracing.requests is not None
    with traced.tracing.requests.request("POST", "/v1/payments", "/v1/payments", [SAMPLED]) as request:
        await traced.tracing.publisher(memory).publish(payment_id.bytes, lane="low", headers={"a": "b"})
        request.answered(202)
    server, publish = traced.span("POST /v1/payments"), traced.span("publish okane:payments")
    assert memory.published[0].headers == {"a": "b", "traceparent": traceparent(publish)}
    assert is_child(publish, server)
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, SPAN)
    assert request.traceparent == traceparent(server)
    assert (server.kind, publish.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
    assert publish.attributes is not None
    assert publish.attributes["okane.payment.id"] == str(payment_id)
    assert publish.attributes["messaging.message.id"] == memory.published[0].id


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [""],
        ["nonsense"],
        [SAMPLED, SAMPLED],
        [SAMPLED.replace("00-", "ff-", 1)],
        [f"{SAMPLED}-more"],
        [SAMPLED.upper()],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-01"],
        ["0" * 10_000],
        [f"{SAMPLED}\x00"],
    ],
)
def test_a_traceparent_that_is_none_is_ignored(traced: Traced, sent: list[str]) -> None:
    assert traced.tracing.requests is not None
    with traced.tracing.requests.request("POST", "/v1/payments", "/v1/payments", sent):
        pass
    [span] = traced.spans
    assert span.parent is None
    assert TRACE not in traceparent(span)


async def test_what_the_sweep_sends_begins_a_trace_for_each_payment(traced: Traced) -> None:
    """A row knows nothing of the trace that made it."""
    memory = queue()
    bodies = [uuid4().bytes, uuid4().bytes]
    await traced.tracing.publisher(memory).publish_many([Draft(body, "low") for body in bodies])
    assert [span.parent for span in traced.spans] == [None, None]
    told = [one.headers["traceparent"] for one in memory.published]
    assert sorted(told) == sorted(traceparent(span) for span in traced.spans)
    assert [one.body for one in memory.published] == bodies
    assert len({span.context.trace_id for span in traced.spans if span.context}) == 2


async def test_a_wake_up_that_could_not_be_sent_is_an_error_without_its_text(traced: Traced) -> None:
    memory = queue()
    memory.down = True
    publisher = traced.tracing.publisher(memory)
    for publishing in (publisher.publish(b"x"), publisher.publish_many([Draft(b"y")])):
        with pytest.raises(Exception, match="set down"):
            await publishing
    for span in traced.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert span.events == ()
        assert span.attributes is not None
        assert span.attributes["error.type"] == "StreamUnavailable"
    assert len(traced.spans) == 2


async def test_a_full_lane_is_an_error_of_what_it_refused_alone(traced: Traced) -> None:
    memory = MemoryQueue(payments_stream("test"), max_length=1)
    with pytest.raises(StreamFull):
        await traced.tracing.publisher(memory).publish_many([Draft(b"x", "low"), Draft(b"y", "low")])
    assert [span.status.status_code for span in traced.spans] == [StatusCode.UNSET, StatusCode.ERROR]


async def test_a_trace_that_is_not_kept_goes_along_and_costs_no_spans(traced: Traced, database_url: str) -> None:
    memory = queue()
    messages, requests = traced.tracing.messages, traced.tracing.requests
    assert messages is not None
    assert requests is not None
    assert traced.tracing.trace_id is not None
    with requests.request("POST", "/v1/payments", "/v1/payments", [UNSAMPLED]):
        await traced.tracing.publisher(memory).publish_many([Draft(b"x")])
        await traced.tracing.publisher(memory).publish(b"y")
        assert traced.tracing.trace_id() is None
    told = [one.headers["traceparent"] for one in memory.published]
    assert all(re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", one) for one in told)
    store = PaymentStore(database_url, actor="w", lease=LEASE, grace=GRACE)
    claims = traced.tracing.claim_store(store)
    with messages.processing(memory.published[:1]):
        await claims.claim(uuid4())
        assert traced.tracing.provider_header is not None
        assert re.fullmatch(f"traceparent: 00-{TRACE}-[0-9a-f]{{16}}-00\r\n", traced.tracing.provider_header())
    await store.aclose()
    assert traced.spans == ()


def test_a_line_of_the_log_names_the_trace_around_it(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    assert traced.tracing.requests is not None
    assert traced.tracing.trace_id is not None
    monkeypatch.setattr(logs, "_trace_id", logs._no_trace)
    logs.name_traces(traced.tracing.trace_id)
    for sent_with, named in ((SAMPLED, TRACE), (UNSAMPLED, None)):
        with traced.tracing.requests.request("POST", "/v1/payments", "/v1/payments", [sent_with]):
            assert logs._with_ids(None, "info", {}).get("trace_id") == named
    assert logs._with_ids(None, "info", {}).get("trace_id") is None


async def test_the_sampler_decides_once_for_a_new_trace() -> None:
    traced = Traced(ALWAYS_OFF)
    memory = queue()
    await traced.tracing.publisher(memory).publish(b"x")
    assert int(memory.published[0].headers["traceparent"][-2:], 16) & 1 == 0
    assert traced.tracing.messages is not None
    with traced.tracing.messages.processing(memory.published):
        pass
    assert traced.spans == ()


async def test_one_span_for_a_batch_is_linked_to_all_of_it(traced: Traced) -> None:
    messages = [Message("1-1", "low", b"x", {"traceparent": SAMPLED}), Message("1-2", "low", b"y")]
    assert traced.tracing.messages is not None
    with traced.tracing.messages.processing(messages):
        pass
    [span] = traced.spans
    assert span.parent is None
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE]


async def test_claim_and_settlement_are_parts_of_the_handling(traced: Traced, database_url: str) -> None:
    store = PaymentStore(database_url, actor="w", lease=LEASE, grace=GRACE)
    claims = traced.tracing.claim_store(store)
    payment_id = (await accept_one(store, new("a"))).payment.id
    message = Message("1-1", "low", payment_id.bytes, {"traceparent": SAMPLED}, attempt=2, deliveries=3)

    async def handler(message: Message) -> Outcome:
        claim = await claims.claim(UUID(bytes=message.body))
        assert isinstance(claim, Claim)
        await claims.settle(settlement(claim.payment))
        return Done()

    await traced.tracing.handler(handler)(message)
    await store.aclose()
    claim, settle, process = traced.span("claim"), traced.span("settle"), traced.span("process okane:payments")
    assert is_child(claim, process)
    assert is_child(settle, process)
    assert process.kind is SpanKind.CONSUMER
    assert process.parent is not None
    assert f"{process.parent.span_id:016x}" == SPAN
    assert process.attributes is not None
    expected = {"okane.payment.id": str(payment_id), "okane.attempt": 2, "okane.deliveries": 3, "okane.lane": "low"}
    assert expected.items() <= dict(process.attributes).items()
    assert dict(claim.attributes or {}) == {"okane.claim": "granted"}
    assert dict(settle.attributes or {}) == {"okane.payment.status": "success", "okane.late": False}


class Scripted(NoOperations):
    """A provider that answers so, and keeps what it would have been told."""

    name = "scripted"
    traits = TRAITS

    def __init__(self, traced: Traced, result: ChargeResult | Exception) -> None:
        self._tracing = traced.tracing
        self._result = result
        self.header = ""
        self.closed = False

    async def charge(self, payment: Payment) -> ChargeResult:
        assert self._tracing.provider_header is not None
        self.header = self._tracing.provider_header()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    async def look_up(self, payment: Payment, *, may_execute: bool) -> LookUpResult:
        return NotFound()

    async def aclose(self) -> None:
        self.closed = True


async def test_the_provider_is_told_of_the_span_of_its_call(traced: Traced) -> None:
    scripted = Scripted(traced, Approved("ref"))
    provider = traced.tracing.provider(scripted)
    payment = cast("Payment", None)
    assert provider.name == "scripted"
    assert await provider.charge(payment) == Approved("ref")
    assert await provider.look_up(payment, may_execute=False) == NotFound()
    await provider.aclose()
    assert scripted.closed
    charge, look_up = traced.span("provider charge"), traced.span("provider look_up")
    assert scripted.header == f"traceparent: {traceparent(charge)}\r\n"
    assert charge.attributes is not None
    assert look_up.attributes is not None
    assert charge.attributes["okane.provider.outcome"] == "approved"
    assert look_up.attributes["okane.provider.outcome"] == "notfound"
    assert charge.kind is SpanKind.CLIENT


@pytest.mark.parametrize(
    ("result", "kind"),
    [(Unknown(f"HTTP 500 {SECRET}"), "unknown"), (RuntimeError(f"about {SECRET}"), "RuntimeError")],
)
async def test_an_error_is_told_by_its_kind_alone(traced: Traced, result: ChargeResult | Exception, kind: str) -> None:
    provider = traced.tracing.provider(Scripted(traced, result))
    try:
        await provider.charge(cast("Payment", None))
    except RuntimeError:
        assert isinstance(result, RuntimeError)
    charge = traced.span("provider charge")
    assert charge.status.status_code is StatusCode.ERROR
    assert charge.attributes is not None
    assert charge.attributes["error.type"] == kind
    assert SECRET not in charge.to_json()


class EmptyShelf(Shelf):
    """A store in memory that finds no earlier payment."""

    async def find(self, new: NewPayment) -> Payment | None:
        return None


@asynccontextmanager
async def serving(traced: Traced, shelf: Shelf, *, fast: bool, memory: MemoryQueue | None = None) -> AsyncIterator[int]:
    """A server whose requests are traced; its port."""
    metrics, tracer = OkaneMetrics(CollectorRegistry(), trace_id=traced.tracing.trace_id), traced.tracing.requests
    assert tracer is not None
    shelf.open.set()
    store = cast("PaymentStore", shelf)
    intake = PaymentIntake(
        store=store,
        row_writer=traced.tracing.row_writer(store),
        producer=traced.tracing.publisher(memory or queue()),
    )
    long_polling = LongPolling(watch=cast("PaymentWatch", shelf))
    settings = Settings(_env_file=None, amount_limits={"USD": LIMIT})
    handlers = PaymentHandlers(
        settings=settings, store=store, intake=intake, long_polling=long_polling, metrics=metrics
    )
    routes = Handlers(
        handlers,
        PaymentQueries(store=store, lists=cast("PaymentLists", shelf)),
        DeadLetterHandlers(dead=cast("DeadLetterStore", shelf), replay=cast("DeadLetterReplay", shelf)),
        HealthHandlers(store=store),
        NoticeHandlers(parsers={}, intake=None, metrics=metrics),
        methods=PaymentMethodHandlers(methods=cast("PaymentMethodStore", shelf), providers=()),
        disputes=DisputeHandlers(cast("DisputeLists", shelf)),
        operations=no_operations(store, intake),
        webhooks=WebhookServices.of("postgresql://nowhere", masters=None, guard=Guard()),
    )
    fast_path = FastPath(handlers.creation, metrics, AnonymousAccess(), tracer=tracer) if fast else None
    app = build_api(routes, metrics, AnonymousAccess(), tracer=tracer)
    async with served(app, "127.0.0.1", 0, limits=LIMITS, drain=timedelta(seconds=1), fast_path=fast_path) as url:
        yield int(url.rpartition(":")[2])
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in metrics.http_seconds.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert exemplars
    assert exemplars <= {f"{span.context.trace_id:032x}" for span in traced.spans if span.context is not None}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request that is sent in one piece, on a connection that is waited on: as
    the fast path takes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def answered(one: bytes) -> tuple[int, dict[str, str], bytes]:
        writer.write(one)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, await reader.readexactly(int(headers["Content-Length"]))

    await answered(HEALTH)
    answer = await answered(request)
    writer.close()
    return answer


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\ntraceparent: {SAMPLED}\r\n\r\n".encode()


def plain(answered: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str]]:
    """The status of an answer, and its headers but for what differs from one to the next."""
    status, headers, _ = answered
    told = headers.get("traceresponse", "")
    assert told.startswith(f"00-{TRACE}-") or not told
    assert SPAN not in told
    return status, headers | {"traceresponse": f"of {len(told)}", "X-Request-Id": "*", "Date": "*"}


async def test_both_lanes_trace_and_answer_alike() -> None:
    seen = []
    for fast in (True, False):
        traced, shelf = Traced(), EmptyShelf()
        header = f"traceparent: {SAMPLED}"
        requests = [
            post(SECRET, header, path="/v1/payments"),
            post(SECRET, header, path="/v1/payments"),
            post(SECRET, header, path="/pay", amount=-1),
            get(f"/v1/payments/{UUID(int=7)}"),
            get(f"/nowhere/{SECRET}"),
            get("/healthz"),
        ]
        async with serving(traced, shelf, fast=fast) as port:
            answers = [plain(await ask(port, request)) for request in requests]
            shelf.error = StoreUnavailable(SECRET)
            answers.append(plain(await ask(port, post("b", header))))
        spans = [(one.name, one.kind, one.status.status_code, dict(one.attributes or {})) for one in traced.spans]
        assert not [one for one in traced.spans if SECRET in one.to_json()]
        seen.append((answers, spans))
    assert seen[0] == seen[1]
    answers, spans = seen[0]
    assert [status for status, _ in answers] == [202, 200, 422, 404, 404, 200, 503]
    assert [headers["traceresponse"] for _, headers in answers] == ["of 55"] * 5 + ["of 0", "of 55"]
    assert [name for name, *_ in spans] == [
        "publish okane:payments",
        "POST /v1/payments",
        "POST /v1/payments",
        "POST /pay",
        "GET /v1/payments/{payment_id}",
        "GET",
        "POST /payments",
    ]
    assert [code is StatusCode.ERROR for _, _, code, _ in spans] == [False] * 6 + [True]
    assert spans[1][3]["http.response.status_code"] == 202


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "ordinary"])
async def test_what_is_answered_together_keeps_to_its_own_traces(fast: bool) -> None:
    traced, shelf, memory = Traced(), EmptyShelf(), queue()

    async def pay(port: int, number: int) -> tuple[bytes, str]:
        """The payment's id, and its client's trace."""
        trace_id = f"{number + 1:032x}"
        key = str(number) if number else "late"
        status, headers, body = await ask(port, post(key, f"traceparent: 00-{trace_id}-{SPAN}-01"))
        assert status == 202
        assert headers["traceresponse"].startswith(f"00-{trace_id}-")
        return UUID(json.loads(body)["payment"]["id"]).bytes, trace_id

    async with serving(traced, shelf, fast=fast, memory=memory) as port:
        shelf.open.clear()
        first = asyncio.ensure_future(pay(port, 0))
        await until(lambda: shelf.asked == 1)
        refused = asyncio.ensure_future(ask(port, post("large", amount=LIMIT + 1)))
        others = [asyncio.ensure_future(pay(port, number)) for number in range(1, 20)]
        await until(lambda: traced.begun.requests == 21)
        shelf.late.set()  # the first comes to its end, while the others wait
        paid = [await first]
        shelf.open.set()
        paid += await asyncio.gather(*others)
        assert (await refused)[0] == 422
    spans = [span for span in traced.spans if span.name.startswith("publish")]
    published = {(span.attributes or {})["messaging.message.id"]: span for span in spans}
    assert {one.body: one.headers["traceparent"] for one in memory.published} == {
        one.body: traceparent(published[one.id]) for one in memory.published
    }
    assert {one.body: one.headers["traceparent"][3:35] for one in memory.published} == dict(paid)
    assert len(paid) == 20


async def test_the_payments_of_a_batch_are_parts_of_its_request(traced: Traced) -> None:
    memory = queue()
    items = json.dumps([{"amount": 440, "idempotency_key": key} for key in ("a", "b")])
    async with serving(traced, EmptyShelf(), fast=True, memory=memory) as port:
        status, _, _ = await ask(port, sent(items, path="/v1/payments/batch"))
    assert status == 207
    request = traced.span("POST /v1/payments/batch")
    spans = [span for span in traced.spans if span.name.startswith("publish")]
    assert [is_child(span, request) for span in spans] == [True, True]
    assert len({one.headers["traceparent"] for one in memory.published}) == 2


def test_a_request_that_is_given_up_is_an_error(traced: Traced) -> None:
    assert traced.tracing.requests is not None
    traced.tracing.requests.request("POST", "/v1/payments", "/v1/payments", []).abandon()
    [span] = traced.spans
    assert span.status.status_code is StatusCode.ERROR


async def test_an_accepted_payment_is_named_in_its_requests_span(traced: Traced, database_url: str) -> None:
    store = PaymentStore(database_url, actor="api", lease=LEASE, grace=GRACE)
    assert traced.tracing.requests is not None
    with traced.tracing.requests.request("POST", "/v1/payments", "/v1/payments", []):
        [found] = await traced.tracing.row_writer(store).accept_many([new(SECRET)], wakes=1)
        assert isinstance(found, AcceptedRow)
    await store.aclose()
    attributes = dict(traced.span("POST /v1/payments").attributes or {})
    assert attributes["okane.payment.id"] == str(found.payment.id)
    assert attributes["okane.payment.created"] is True
    assert SECRET not in traced.span("POST /v1/payments").to_json()


async def test_while_it_is_off_nothing_goes_along(api: Api, redis_url: str) -> None:
    assert tracing.start(Settings(_env_file=None), role="api", name="api") is tracing.OFF
    memory = queue()
    assert tracing.OFF.publisher(memory) is memory
    store = cast("PaymentStore", Shelf())
    assert tracing.OFF.row_writer(store) is store
    assert tracing.OFF.claim_store(store) is store
    headers = {"traceparent": SAMPLED}
    async with api.client.post("/v1/payments", json={"amount": 440, "idempotency_key": "a"}, headers=headers) as one:
        assert one.status == 202
        assert "traceresponse" not in one.headers
    async with connect(redis_url) as redis:
        [(_, fields)] = cast("Any", await redis.xrange(api.stream.lane_key("low")))
    assert set(fields) == {b"b"}


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("okane.tracing.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(tracing, name.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SetupError, match=re.escape("pip install 'okane[otel]'")):
        tracing.start(Settings(_env_file=None, tracing=True), role="api", name="api")


class Collector(SpanExporter):
    """Takes what it is sent, or not, or hangs."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS
        self.open = threading.Event()
        self.open.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.open.wait()
        return self.result


def test_a_collector_that_is_away_is_said_once() -> None:
    collector = Collector()
    telling = export.LoggingExporter(collector)
    with capture_logs() as lines:
        for result in ("SUCCESS", "FAILURE", "FAILURE", "SUCCESS", "SUCCESS"):
            collector.result = SpanExportResult[result]
            assert telling.export([]) is collector.result
    assert [line["event"] for line in lines] == ["spans_lost", "spans_sent_again"]


async def test_a_collector_that_is_silent_keeps_no_process_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CLOSE_TIMEOUT_S", 0.05)
    collector, provider = Collector(), TracerProvider(shutdown_on_exit=False)
    collector.open.clear()
    provider.add_span_processor(BatchSpanProcessor(collector))
    provider.get_tracer("test").start_span("left").end()
    async with asyncio.timeout(20):
        await export.close(provider)
    collector.open.set()


async def test_what_is_left_is_sent_before_a_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CLOSE_TIMEOUT_S", 60)
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    provider.get_tracer("test").start_span("left").end()
    await export.close(provider)
    assert [span.name for span in exporter.get_finished_spans()] == ["left"]


async def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    provider = export.provider(role="worker", name="w1")
    expected = {"service.name": "okane-worker", "service.instance.id": "w1", "deployment.environment.name": "test"}
    assert expected.items() <= dict(provider.resource.attributes).items()
    assert not provider.get_tracer("test").start_span("one").is_recording()
    await export.close(provider)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    provider = export.provider(role="worker", name="w1")
    assert provider.resource.attributes["service.name"] == "mine"
    await export.close(provider)

"""One request to an endpoint over real connections: each outcome against a receiver that misbehaves so, over HTTP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks
import trustme

from okane import __version__
from okane.http import resolver
from okane.http.connection import BODY_GRACE_S
from okane.http.guard import Guard
from okane.webhooks import keys, sender
from okane.webhooks.keys import Masters
from okane.webhooks.sender import Answer, Sender
from tests.okane.provider_server import Act, RawServer, answer, close, hang, raw_server, reset, then_close
from tests.okane.test_connection_pool import LOOPS, run

MASTERS = Masters((b"m" * 32,))
LOOPBACK = (ip_network("127.0.0.0/8"),)
ENDPOINT_ID = UUID(int=7)
EVENT_ID = "evt_01a2b3c4000070008000000000000001_2"
BODY = '{"name":"Zoë 😀"}'.encode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str | None
    id: UUID = ENDPOINT_ID
    account_id: str = "default"
    version: int = 1
    timeout_s: int = 5
    max_in_flight: int = 8
    key_generation: int = 1
    older_key_until: datetime | None = None
    asymmetric: bool = False


@asynccontextmanager
async def sending(guard: Guard | None = None) -> AsyncIterator[Sender]:
    one = Sender(Guard(allow=LOOPBACK) if guard is None else guard, MASTERS)
    try:
        yield one
    finally:
        await one.aclose()


async def sent(url: str, *, guard: Guard | None = None, timeout_s: int = 5) -> Answer:
    async with sending(guard) as one:
        return await one.send(Endpoint(url, timeout_s=timeout_s), EVENT_ID, BODY, now=datetime.now(UTC))


async def answered(*acts: Act, timeout_s: int = 5) -> Answer:
    async with raw_server(*acts) as receiver:
        return await sent(f"{receiver.base_url}/hook", timeout_s=timeout_s)


def raw(text: bytes) -> Act:
    """Write these bytes, and keep the connection."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return act


def fields(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return the first line, the header fields and the body of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


async def test_a_request_has_the_fields_of_standard_webhooks_and_verifies() -> None:
    async with raw_server(answer(204)) as receiver, sending() as one:
        endpoint = Endpoint(f"{receiver.base_url}/hook?a=b")
        result = await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))
    assert (result.outcome, result.status, result.reason) == ("delivered", 204, "HTTP 204")
    first, head, body = fields(receiver.requests[0])
    assert first == "POST /hook?a=b HTTP/1.1"
    assert head["Host"] == receiver.base_url.removeprefix("http://")
    assert head["Content-Type"] == "application/json"
    assert head["User-Agent"] == f"okane/{__version__}"
    assert head["webhook-id"] == EVENT_ID
    secret = keys.secret(MASTERS.current, endpoint.id, 1)
    assert standardwebhooks.Webhook(secret).verify(body, head) == {"name": "Zoë 😀"}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "delivered"),
        (202, "delivered"),
        (301, "status_3xx"),
        (304, "status_3xx"),
        (400, "status_4xx"),
        (410, "status_410"),
        (429, "status_4xx"),
        (500, "status_5xx"),
        (503, "status_5xx"),
        (600, "status_5xx"),
    ],
)
async def test_an_answer_is_judged_by_its_status(status: int, outcome: str) -> None:
    result = await answered(answer(status, b"whatever"))
    assert (result.outcome, result.status) == (outcome, status)
    assert result.reason == f"HTTP {status}"
    assert result.text == ("" if status in (204, 304) else "whatever")


async def test_a_redirect_is_not_followed() -> None:
    async with (
        raw_server(answer(200)) as elsewhere,
        raw_server(answer(302, b"", f"Location: {elsewhere.base_url}/")) as one,
    ):
        assert (await sent(one.base_url)).outcome == "status_3xx"
        assert (len(one.requests), len(elsewhere.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("99999", 3600.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
async def test_retry_after_is_read(said: str, seconds: float | None) -> None:
    assert (await answered(answer(503, b"", f"Retry-After: {said}"))).retry_after == seconds


async def test_a_silent_receiver_is_a_timeout() -> None:
    result = await answered(hang, timeout_s=1)
    assert (result.outcome, result.status, result.reason) == ("timeout", None, "no answer within 1 s")
    assert 900 <= result.ms < 4000


@pytest.mark.parametrize("act", [close, reset, then_close(raw(b"HTTP/1.1 200 OK\r\nContent-Le"))])
async def test_a_receiver_that_hangs_up_before_the_head_is_a_failed_connection(act: Act) -> None:
    result = await answered(act)
    assert (result.outcome, result.status) == ("connect", None)
    assert result.reason.startswith("connection lost")
    assert not result.is_reconnected


async def test_bytes_that_are_no_http_are_a_failed_connection() -> None:
    assert (await answered(raw(b"SSH-2.0-OpenSSH_9.2\r\n"))).outcome == "connect"


async def test_a_refused_connection_is_one() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert (await sent(f"http://127.0.0.1:{unused.getsockname()[1]}/")).outcome == "connect"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_is_not_made_in_time_is_a_timeout(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CONNECT_TIMEOUT_S", 0.2)

    async def story() -> None:
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):  # its queue is full then, and the kernel drops what comes next
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            guard = Guard(allow=LOOPBACK)
            result = await sent(f"http://127.0.0.1:{full.getsockname()[1]}/", guard=guard)
        assert (result.outcome, result.reason) == ("timeout", "no connection within 0.2 s")
        assert guard.open_connections == 0

    run(story(), loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_is_not_answered_is_a_timeout(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CONNECT_TIMEOUT_S", 0.2)

    async def story() -> None:
        async with raw_server(hang) as receiver:
            url = receiver.base_url.replace("http://", "https://")
            result = await sent(url)
        assert (result.outcome, result.reason) == ("timeout", "no connection within 0.2 s")

    run(story(), loop=loop)


HEAD = b"HTTP/1.1 200 OK\r\n"
ODD_BODIES = {
    "cut": (then_close(answer(200, b"half", length=100)), "half"),
    "reset": (raw(HEAD + b"Content-Length: 9\r\n\r\nhalf"), "half"),
    "too long": (answer(200, b"x" * 100_000), "x" * 1024),
    "too long, without an end": (raw(HEAD + b"\r\n" + b"x" * 100_000), "x" * 1024),
    "another coding": (raw(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\nxx"), ""),
    "bad chunks": (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense"), "ok"),
    "not utf-8": (answer(200, b"\xff\0"), "\ufffd\ufffd"),
    "gzip that was not wanted": (answer(200, b"\x1f\x8b", "Content-Encoding: gzip"), "\x1f\ufffd"),
    "until the end of the connection": (then_close(raw(b"HTTP/1.0 200 OK\r\n\r\nbye")), "bye"),
    "nothing until the end of the connection": (then_close(raw(HEAD + b"\r\n")), ""),
    "two answers": (raw((HEAD + b"Content-Length: 2\r\n\r\nok") * 2), "ok"),
}


@pytest.mark.parametrize("name", ODD_BODIES)
async def test_an_answer_counts_when_its_head_has_come(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.http.connection.BODY_GRACE_S", 0.05)
    act, text = ODD_BODIES[name]
    result = await answered(act)
    assert (result.outcome, result.status, result.text) == ("delivered", 200, text)


async def test_a_body_that_trickles_does_not_hold_the_request() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    result = await answered(trickle, timeout_s=15)
    assert result.outcome == "status_5xx"
    assert BODY_GRACE_S * 900 <= result.ms < 10_000


async def test_an_interim_answer_does_not_count() -> None:
    assert (await answered(then_close(raw(b"HTTP/1.1 100 Continue\r\n\r\n")))).outcome == "connect"
    assert (
        await answered(raw(b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    ).status == 200


@pytest.mark.parametrize("said", [answer(200, b"ok"), answer(204), raw(b"HTTP/1.1 204 No Content\r\n\r\n")])
async def test_a_connection_is_kept_for_the_next_request(said: Act) -> None:
    async with raw_server(said) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url)
        results = [await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC)) for _ in range(3)]
    assert [result.is_kept for result in results] == [False, True, True]
    assert receiver.connections == 1


async def test_a_204_with_a_body_ends_its_connection() -> None:
    async with raw_server(answer(204, b"ok"), answer(503)) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url)
        statuses = [(await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))).status for _ in range(2)]
    assert (statuses, receiver.connections) == ([204, 503], 2)


async def test_a_cut_answer_does_not_reach_the_next_request() -> None:
    async with raw_server(answer(200, b"ok" * 50_000), answer(503)) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url)
        statuses = [(await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))).status for _ in range(2)]
    assert (statuses, receiver.connections) == ([200, 503], 2)


async def test_a_kept_connection_that_closes_is_replaced_once_and_the_same_bytes_are_sent() -> None:
    async with raw_server(answer(200), close, answer(200)) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url)
        now = datetime.now(UTC)
        first, second = [await one.send(endpoint, EVENT_ID, BODY, now=now) for _ in range(2)]
    assert (first.is_reconnected, second.is_reconnected) == (False, True)
    assert (second.outcome, second.is_kept) == ("delivered", False)
    assert receiver.requests[1] == receiver.requests[2]


async def test_a_receiver_that_closes_every_connection_is_asked_twice_at_most() -> None:
    async with raw_server(answer(200), close) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url)
        results = [await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC)) for _ in range(2)]
    assert [result.outcome for result in results] == ["delivered", "connect"]
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("seed", range(5))
async def test_no_answer_reaches_another_request_whatever_the_receiver_does(seed: int) -> None:
    dice = random.Random(seed)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request with its id, in a way that is drawn."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(BODY))
                id_ = fields(head)[1]["webhook-id"].encode()
                whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(id_), id_)
                writer.write(
                    dice.choice(
                        [
                            whole,
                            whole,
                            whole,
                            whole + whole,
                            whole + b"HTTP/1.1 200 OK\r\nContent-Le",
                            whole[: dice.randrange(len(whole))],
                            b"HTTP/1.1 103 Hints\r\n\r\n" + whole,
                            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevt_\r\nnonsense",
                            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + id_ + b"." * 70_000,
                            b"nonsense",
                            b"",
                        ]
                    )
                )
                if dice.random() < 0.3:
                    break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, sending() as one:
        endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=1)
        ids = [f"evt_{number:032x}_1" for number in range(200)]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("okane.http.connection.BODY_GRACE_S", 0.02)
            sends = (one.send(endpoint, id_, BODY, now=datetime.now(UTC)) for id_ in ids)
            answers = await asyncio.gather(*sends)
    for id_, result in zip(ids, answers, strict=True):
        assert {*re.findall("evt_[0-9a-f]{32}_1", result.text)} <= {id_}
    assert {result.outcome for result in answers} >= {"delivered", "connect"}


async def test_idle_connections_close_without_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "IDLE_LIMIT_S", 0.05)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n" + BODY)
        writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, sending() as one:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await one.send(Endpoint(url), EVENT_ID, BODY, now=datetime.now(UTC))
        await asyncio.wait_for(ended.wait(), 10)


async def test_no_connection_is_kept_beyond_the_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MAX_KEPT", 1)
    guard = Guard(allow=LOOPBACK)
    async with raw_server(answer(200)) as receiver, sending(guard) as one, sending(guard) as other:
        results = [
            await by.send(Endpoint(receiver.base_url), EVENT_ID, BODY, now=datetime.now(UTC))
            for by in (one, other, other, one)
        ]
    assert [result.is_kept for result in results] == [False, False, False, True]


async def test_a_changed_endpoint_takes_effect_with_the_next_request() -> None:
    began, finish = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.set()
        await finish.wait()
        await answer(200, b"old")(reader, writer)

    now = datetime.now(UTC)
    async with raw_server(slow) as old, raw_server(answer(200, b"new")) as new, sending() as one:
        endpoint = Endpoint(old.base_url)
        in_flight = asyncio.create_task(one.send(endpoint, EVENT_ID, BODY, now=now))
        await began.wait()
        changed = replace(endpoint, url=new.base_url, version=2)
        assert (await one.send(changed, EVENT_ID, BODY, now=now)).text == "new"
        finish.set()
        assert (await in_flight).text == "old"  # a request in flight ends as it would have


async def test_both_secrets_sign_until_the_older_one_ends() -> None:
    now = datetime.now(UTC)
    async with raw_server(answer(200)) as receiver, sending() as one:
        endpoint = Endpoint(receiver.base_url, key_generation=2, older_key_until=now + timedelta(hours=1))
        for at in (now, now + timedelta(hours=1)):
            await one.send(endpoint, EVENT_ID, BODY, now=at)
    both, newer = (fields(request)[1]["webhook-signature"].split(" ") for request in receiver.requests)
    assert (len(both), len(newer)) == (2, 1)
    older = standardwebhooks.Webhook(keys.secret(MASTERS.current, endpoint.id, 1))
    assert older.sign(EVENT_ID, now, BODY.decode()) == both[1]


async def test_the_asymmetric_signature_is_beside_the_other_one() -> None:
    async with raw_server(answer(200)) as receiver, sending() as one:
        await one.send(Endpoint(receiver.base_url, asymmetric=True), EVENT_ID, BODY, now=datetime.now(UTC))
    signatures = fields(receiver.requests[0])[1]["webhook-signature"].split(" ")
    assert [signature.partition(",")[0] for signature in signatures] == ["v1", "v1a"]


# The guard


async def test_an_address_that_is_not_allowed_is_never_connected_to() -> None:
    async with raw_server(answer(200)) as receiver:
        port = receiver.base_url.rpartition(":")[2]
        for url in (receiver.base_url, f"https://127.0.0.1:{port}", f"https://localhost:{port}"):
            result = await sent(url, guard=Guard())
            assert (result.outcome, result.status, result.text) == ("guard", None, "")
        assert receiver.connections == 0


def names(*answers: Sequence[str]) -> resolver.GetAddressInfo:
    """Return a resolver whose answers are these, in turn, the last one for all further look-ups."""
    remaining = list(answers)

    def get(host: str, port: int) -> Sequence[Any]:
        found = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [info for address in found for info in resolver.get_address_info(address, port)]

    return get


async def test_a_name_with_one_private_address_is_refused() -> None:
    guard = Guard(get_address_info=names(["93.184.215.14", "127.0.0.1"]))
    result = await sent("https://receiver.example/", guard=guard)
    assert result.outcome == "guard"
    assert "127" not in result.reason


async def test_a_name_that_changes_its_address_is_checked_at_every_connection() -> None:
    async with raw_server(then_close(answer(200))) as receiver:
        port = receiver.base_url.rpartition(":")[2]
        guard = Guard(allow=[ip_network("127.0.0.2/32")], get_address_info=names(["127.0.0.2"], ["127.0.0.1"]))
        async with sending(guard) as one:
            endpoint = Endpoint(f"http://receiver.example:{port}")
            outcomes = [(await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC))).outcome for _ in range(2)]
        # The receiver is at 127.0.0.1: the first request reached the checked address, where no server is.
        assert outcomes == ["connect", "guard"]
        assert receiver.connections == 0


async def test_a_name_without_an_address_is_a_failure_of_dns() -> None:
    def get(host: str, port: int) -> Sequence[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    result = await sent("https://receiver.example/", guard=Guard(get_address_info=get))
    assert result.outcome == "dns"
    assert "Name or service not known" in result.reason


async def test_the_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answer(200)) as receiver, raw_server(answer(200)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url)
        assert (await sent(receiver.base_url)).outcome == "delivered"
        assert (receiver.connections, proxy.connections) == (1, 0)


# TLS


@asynccontextmanager
async def tls_receiver(
    certificate: trustme.LeafCert, *, has_chain: bool = True, server_names: list[str | None] | None = None
) -> AsyncIterator[tuple[int, RawServer]]:
    server_names = [] if server_names is None else server_names
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pems = [certificate.private_key_pem, *certificate.cert_chain_pems[: None if has_chain else 1]]
    with trustme.Blob(b"".join(pem.bytes() for pem in pems)).tempfile() as path:
        context.load_cert_chain(path)
    context.sni_callback = lambda _connection, name, _context: server_names.append(name)
    receiver = RawServer([answer(200, b"ok")])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], receiver


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def tls_guard(ca: trustme.CA) -> Guard:
    return Guard(allow=LOOPBACK, get_address_info=names(["127.0.0.1"]), tls=trusting(ca))


@pytest.mark.parametrize("loop", LOOPS)
def test_requests_share_a_connection_over_tls(loop: str) -> None:
    async def story() -> None:
        ca = trustme.CA()
        async with tls_receiver(ca.issue_cert("receiver.example")) as (port, receiver), sending(tls_guard(ca)) as one:
            receiver.acts = [answer(200), answer(200), close, answer(200)]
            endpoint = Endpoint(f"https://receiver.example:{port}/")
            results = [await one.send(endpoint, EVENT_ID, BODY, now=datetime.now(UTC)) for _ in range(3)]
        assert [result.outcome for result in results] == ["delivered"] * 3
        assert [result.is_kept for result in results] == [False, True, False]
        assert [result.is_reconnected for result in results] == [False, False, True]
        assert receiver.connections == 2

    run(story(), loop=loop)


async def test_the_certificate_must_be_for_the_name_of_the_url() -> None:
    ca = trustme.CA()
    asked: list[str | None] = []
    async with tls_receiver(ca.issue_cert("receiver.example"), server_names=asked) as (port, receiver):
        good = await sent(f"https://receiver.example:{port}/hook", guard=tls_guard(ca))
        wrong = await sent(f"https://other.example:{port}/hook", guard=tls_guard(ca))
    assert (good.outcome, good.text) == ("delivered", "ok")
    assert fields(receiver.requests[0])[1]["Host"] == f"receiver.example:{port}"
    assert asked == ["receiver.example", "other.example"]
    assert wrong.outcome == "tls"
    assert "Hostname mismatch" in wrong.reason
    assert "_ssl.c" not in wrong.reason
    assert len(receiver.requests) == 1


async def test_an_address_in_the_url_needs_a_certificate_for_the_address() -> None:
    ca = trustme.CA()
    async with tls_receiver(ca.issue_cert("127.0.0.1")) as (port, _):
        assert (await sent(f"https://127.0.0.1:{port}/", guard=tls_guard(ca))).outcome == "delivered"
    async with tls_receiver(ca.issue_cert("receiver.example")) as (port, _):
        assert (await sent(f"https://127.0.0.1:{port}/", guard=tls_guard(ca))).outcome == "tls"


async def test_a_certificate_that_proves_nothing_fails() -> None:
    ca, now = trustme.CA(), datetime.now(UTC)
    certificates = {
        "has expired": ca.issue_cert("receiver.example", not_after=now - timedelta(days=1)),
        "not yet valid": ca.issue_cert("receiver.example", not_before=now + timedelta(days=1)),
        "unable to get local issuer": trustme.CA().issue_cert("receiver.example"),
    }
    for said, certificate in certificates.items():
        async with tls_receiver(certificate) as (port, receiver):
            result = await sent(f"https://receiver.example:{port}/", guard=tls_guard(ca))
        assert (result.outcome, receiver.requests) == ("tls", [])
        assert said in result.reason


async def test_a_chain_needs_its_intermediate() -> None:
    ca = trustme.CA()
    certificate = ca.create_child_ca().issue_cert("receiver.example")
    async with tls_receiver(certificate) as (port, _):
        assert (await sent(f"https://receiver.example:{port}/", guard=tls_guard(ca))).outcome == "delivered"
    async with tls_receiver(certificate, has_chain=False) as (port, receiver):
        result = await sent(f"https://receiver.example:{port}/", guard=tls_guard(ca))
    assert (result.outcome, receiver.requests) == ("tls", [])
    assert "unable to get local issuer" in result.reason


async def test_plain_http_behind_https_is_a_failure_of_tls() -> None:
    async def bad_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(bad_request, "127.0.0.1", 0) as server:
        url = f"https://receiver.example:{server.sockets[0].getsockname()[1]}/"
        assert (await sent(url, guard=tls_guard(trustme.CA()))).outcome == "tls"

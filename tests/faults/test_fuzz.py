"""Tens of thousands of generated requests, most of them wrong, against a real API process.

Two kinds of connection. On a *framed* one every request is wrong in what it says and right in how it is cut off from the
next one: each must get its own answer. On a *wild* one anything may be wrong: bytes flip, lengths lie.
There, what comes back must be answers, and the server must hang up.

`OKANE_FUZZ_REQUESTS` sets how many, `OKANE_FUZZ_SEED` which.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import pytest

from tests.faults.request_generator import (
    ON_ONE,
    Generator,
)
from tests.flow.system import System

REQUESTS = int(os.environ.get("OKANE_FUZZ_REQUESTS", "50000"))
SEED = int(os.environ.get("OKANE_FUZZ_SEED", "1"))
CONNECTIONS = 96
WAIT_S = 60.0  # an answer, or the end of a connection, that takes longer is a hang
OURS = frozenset({501, 505})  # what a client can bring a server to say beyond 499


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Seen:
    """The results of all connections."""

    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    amounts: dict[UUID, int] = field(default_factory=dict)


def _answers(received: bytes, methods: Sequence[str] | None) -> list[Answer]:
    """The answers in these bytes. Raises ValueError where they are none."""
    answers: list[Answer] = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        if not end or not version.startswith("HTTP/1."):
            raise ValueError(f"not the head of an answer: {head[:200]!r}")
        if status == "100":
            continue
        headers = dict(one.split(": ", 1) for one in lines)
        bare = status == "304" or (methods is not None and methods[len(answers)] == "HEAD")
        length = 0 if bare else int(headers["Content-Length"])
        if len(received) < length:
            raise ValueError(f"half an answer: {head[:200]!r}")
        answers.append(Answer(int(status), headers, received[:length]))
        received = received[length:]
    return answers


def _check(answer: Answer, seen: Seen) -> None:
    seen.statuses[answer.status] += 1
    assert answer.headers["X-Request-Id"] or answer.status == 503, answer
    if answer.status >= 400:
        assert answer.status < 500 or answer.status in OURS, answer
        assert answer.headers["Content-Type"] == "application/problem+json", answer
        if answer.body:  # HEAD has none
            problem = json.loads(answer.body)
            assert problem["status"] == answer.status, answer
            seen.codes[problem["code"]] += 1
    elif answer.status in (200, 202) and b"payment" in answer.body:
        document = json.loads(answer.body)
        if "payments" in document or "payment_methods" in document:  # a list
            return
        payment = document.get("payment", document)
        seen.amounts[UUID(payment.get("id") or payment["payment_id"].removeprefix("pay_"))] = payment["amount"]


async def _exchange(port: int, sent: bytes, methods: list[str] | None, seen: Seen) -> None:
    """Send all of it, and read until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        writer.write(sent)
        async with asyncio.timeout(WAIT_S):
            try:
                while part := await reader.read(1 << 16):
                    received += part
            except ConnectionResetError:
                assert methods is None  # the server may not wait for the end of nonsense
    except TimeoutError:
        raise AssertionError(f"the connection stayed open after {sent!r}, answered by {bytes(received)!r}") from None
    finally:
        writer.close()
    try:
        answers = _answers(bytes(received), methods)
    except ValueError as error:
        raise AssertionError(f"{error}, after {sent!r}") from None
    assert methods is None or len(answers) == len(methods), (len(answers), len(methods), sent, answers[-1:])
    for answer in answers:
        _check(answer, seen)


async def _rows(database_url: str) -> dict[UUID, int]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT id, amount_minor FROM payments")
        return dict(await cursor.fetchall())


@pytest.mark.timeout(1800)
async def test_whatever_is_sent_is_answered_and_breaks_nothing(system: System, database_url: str) -> None:
    system.env |= {"OKANE_HEAD_TIMEOUT": "5s", "OKANE_KEEP_ALIVE_TIMEOUT": "5s", "OKANE_ALLOWED_HOSTS": "x"}
    await system.start_api()
    port = int(system.url.rsplit(":", 1)[1])
    generator, seen = Generator(SEED), Seen()
    # All are made beforehand: a client that has connected and is slow to think of something to say is cut off.
    todo = iter([generator.connection() for _ in range(-(-REQUESTS // ON_ONE))])

    async def client() -> None:
        for sent, methods in todo:
            await _exchange(port, sent, methods, seen)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CONNECTIONS):
            clients.create_task(client())

    rows = await _rows(database_url)
    assert seen.amounts.items() <= rows.items()
    # Few of the generated requests are right, but some of every kind must have come through: a fuzz of refusals tests little.
    assert len(seen.amounts) > REQUESTS / 50, seen.statuses
    assert {"json_invalid", "validation_failed", "route_not_found", "payment_not_found"} <= seen.codes.keys(), (
        seen.codes
    )
    assert {"request_invalid", "request_line_invalid", "idempotency_key_reused"} <= seen.codes.keys(), seen.codes
    status, body = await system.post("afterwards")
    assert (status, body["enqueued"]) == (202, True)
    await _nobody_stays(system)
    louder = [line for line in system.log("api") if line["level"] not in ("debug", "info")]
    assert louder == []
    assert "Traceback" not in json.dumps(system.log("api"))
    assert await system.stop("api") == 0


async def _nobody_stays(system: System) -> None:
    """All connections end, but for the test's own."""
    try:
        async with asyncio.timeout(WAIT_S):
            while await system.metric("api", "okane_http_connections") > 1:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError("connections of the fuzz are still open") from None

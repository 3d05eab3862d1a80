"""Plain requests: aiohttp's parser reads every one of them in the same way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from aiohttp import HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from okane.api.http import plain_request, protocol_errors
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from tests.faults.request_generator import Generator
from tests.okane.fast_path import corpus, post, sent

FIELDS = (
    "X-Request-Id: mine-1",
    "Connection: keep-alive",
    "Authorization: Bearer sk_test_0",
    "User-Agent:none",
    "Accept: */*, text/html;q=0.5",
    "Accept-Encoding: gzip, deflate",
)
KEYS = ("Idempotency-Key: k", "idempotency-key: k", "IDEMPOTENCY-KEY: k")
# Bytes at which parsers are known to part ways.
TRICKS = (b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b"\t", b" ", b":", b",", b"\x0b", b"\xa0", b"+", b"0")


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Yield plain requests, and some with a few changed bytes."""
    dice = random.Random(seed)
    for number in range(count):
        fields = dice.sample((*FIELDS, dice.choice(KEYS)), dice.randrange(len(FIELDS) + 1))
        request = bytearray(post(f"k-{number}", *fields, path=dice.choice([*RENDERERS])))
        for _ in range(dice.choice((0, 1, 1, 2, 3))):
            at = dice.randrange(len(request))
            match dice.randrange(4):
                case 0:
                    request[at : at + 1] = dice.choice(TRICKS)
                case 1:
                    request[at:at] = dice.choice(TRICKS)
                case 2:
                    request[at] = dice.randrange(256)
                case 3:
                    request[at:at] = request[dice.randrange(len(request)) :][: dice.randrange(40)]
        yield bytes(request)


def check(data: bytes) -> bool:
    """Tell whether a request is plain; if it is, assert that aiohttp's parser finds the same and nothing else in it."""
    request = plain_request.parse_plain_request(data)
    if request is None:
        return False
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop),
        loop,
        limit=2**16,
        max_line_size=protocol_errors.MAX_LINE_BYTES,
        max_field_size=protocol_errors.MAX_FIELD_BYTES,
        max_headers=protocol_errors.MAX_FIELDS,
        auto_decompress=False,
    )
    [(message, payload)], upgraded, tail = parser.feed_data(data)
    assert (message.method, message.path, message.version) == ("POST", request.path, HttpVersion11)
    fields = dict(request.fields)
    if request.idempotency_keys:
        [fields["idempotency-key"]] = request.idempotency_keys
    assert sorted((name.lower(), value) for name, value in message.headers.items()) == sorted(fields.items())
    assert tuple(request.credentials) == tuple(message.headers.getall("Authorization", ()))
    assert tuple(request.idempotency_keys) == tuple(message.headers.getall("Idempotency-Key", ()))
    assert (upgraded, tail, message.upgrade, message.chunked, message.should_close, message.compression) == (
        False,
        b"",
        False,
        False,
        False,
        None,
    )
    assert payload.is_eof()
    assert payload.read_nowait() == request.body
    return True


async def test_a_plain_request_is_the_same_to_aiohttps_parser() -> None:
    assert sum(check(data) for data in corpus()) > 100
    assert sum(check(data) for data in mutants(seed=1, count=20_000)) > 4_000
    generator = Generator(seed=1)
    assert sum(check(generator._request().render()) for _ in range(2_000)) > 50


WHOLE = post("a")


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-1],
        WHOLE + b"\r\n",
        WHOLE + WHOLE,
        b"\r\n" + WHOLE,
        WHOLE.replace(b"POST", b"post"),
        WHOLE.replace(b"Host: x\r\n", b""),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(b"Content-Length: ", b"Content-Length: 0"),
        WHOLE.replace(b"Content-Length: ", b"Content-Length: +"),
        WHOLE.replace(b"Host: x", b"Host: x "),
        WHOLE.replace(b"Host: x", b"Host : x"),
        WHOLE.replace(b"Host: x", b"Host:  x"),
        WHOLE.replace(b"Host: x", b"Host: x\r\n folded"),
        WHOLE.replace(b"Host: x", b"Host: x\r\nHost: x"),
        WHOLE.replace(b"Host: x", b"Host:"),
        post("a", "Content-Length: 39"),
        post("a", "Transfer-Encoding: chunked"),
        post("a", "Transfer-Encoding: identity"),
        post("a", "Connection: close"),
        post("a", "Connection: Keep-Alive, Upgrade", "Upgrade: h2c"),
        post("a", "Expect: 100-continue"),
        post("a", "Prefer: wait=1"),
        post("a", "Sec-WebSocket-Key1: x"),
        post("a", "A: \xe9"),
        post("a", "Idempotency-Key: \xe9"),
        post("a", "Idempotency-Key: "),
        post("a", "Idempotency-Key:  a"),
        post("a", "Idempotency-Key: a", " folded"),
        post("a", "Idempotency-Key: a", "Idempotency-Key: a"),
        post("a", "Idempotency-Key: a", "idempotency-key: b"),
        post("a", "Idempotency-Key: a", "IDEMPOTENCY-KEY: b"),
        post("a", "A_b: c"),
        post("a", *(f"A{number}: b" for number in range(40))),
        post("a", "A: " + "a" * 5000),
        post("a", "Content-Type: application/json; charset=latin-1"),
        post("a", path="/payments?a=b"),
        sent(""),
        sent(" " * (MAX_BODY_BYTES + 1)),
    ],
)
def test_anything_unusual_is_for_the_parser(data: bytes) -> None:
    assert plain_request.parse_plain_request(WHOLE) is not None
    assert plain_request.parse_plain_request(data) is None


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key", "IDEMPOTENCY-key"])
@pytest.mark.parametrize("at", range(3))
def test_the_key_is_found_wherever_it_stands(name: str, at: int) -> None:
    """Heads that differ in their key alone are parsed once: none may get another's key, body or fields."""
    for number in range(3):
        fields = [f"A: {number % 2}", "B: b"]
        fields.insert(at, f"{name}: key-{number}")
        body = f'{{"amount": {number + 1}}}'
        request = plain_request.parse_plain_request(sent(body, *fields))
        assert request is not None
        assert request.idempotency_keys == (f"key-{number}",)
        assert request.fields["a"] == str(number % 2)
        assert request.body == body.encode()
        assert plain_request.parse_plain_request(sent(body + " ", *fields)[:-1]) is None
    without = plain_request.parse_plain_request(sent("{}", "A: 0", "B: b"))
    assert without is not None
    assert without.idempotency_keys == ()

"""A generator of HTTP requests, well formed and broken ones, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from okane.api.payment_creation import MAX_BODY_BYTES

ON_ONE = 12  # requests on one connection


WILD = 0.3  # of the connections


KEY = "Idempotency-Key"


LAST = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


_FIELD_BYTES = bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)


Json = Any


class Raw(str):
    """Stands for itself in a JSON text."""

    __slots__ = ()


@dataclass(slots=True)
class Request:
    """A request that is cut off rightly from what follows it."""

    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes | None = None
    chunks: int = 0  # into how many the body is cut, 0: not chunked

    def render(self) -> bytes:
        fields = [(b"Host", b"localhost"), *self.fields]
        body = self.body or b""
        if self.chunks:
            fields.append((b"Transfer-Encoding", b"chunked"))
            size = max(1, -(-len(body) // self.chunks))
            parts = [body[start : start + size] for start in range(0, len(body), size)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif self.body is not None:
            fields.append((b"Content-Length", str(len(body)).encode()))
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (self.method.encode(), self.target, head, body)


class Generator:
    """Requests, from one seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._made = 0

    def connection(self) -> tuple[bytes, list[str] | None]:
        """The bytes for one connection, and the methods of the requests that must be answered; None: undefined."""
        requests = [self._request() for _ in range(ON_ONE - 1)]
        if self._dice.random() >= WILD:
            return b"".join(one.render() for one in requests) + LAST, [*(one.method for one in requests), "GET"]
        sent = bytearray(b"".join(one.render() for one in requests if one.method != "HEAD"))
        damages: list[Callable[[bytearray], None]] = [self._flip, self._cut, self._double, self._insert, self._lie]
        for _ in range(self._dice.randint(1, 4)):
            self._dice.choice(damages)(sent)
        return bytes(sent) + LAST, None

    def _request(self) -> Request:
        dice = self._dice
        if dice.random() < 0.6:
            request = self._valid()
            for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
                dice.choice([self._other_method, self._other_target, self._other_field, self._other_body])(request)
            return request
        method = dice.choice(["GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
        request = Request(method, b"/v1/health", [])
        self._other_target(request)
        for _ in range(dice.choice([0, 0, 1, 2])):
            self._other_field(request)
        return request

    def _valid(self) -> Request:
        self._made += 1
        # A key comes again now and then: with the same meaning, or another.
        number = self._made if self._dice.random() < 0.9 else self._dice.randint(1, self._made)
        body = {"amount": self._dice.choice([1, 440, 20_000, 2**53 - 1]), "idempotency_key": f"k-{number}"}
        if self._dice.random() < 0.3:
            body["metadata"] = {self._text(20) or "n": self._text(60)}
        if self._dice.random() < 0.3:
            body |= {"payment_method": f"pm_{number}", "return_url": "https://shop.example/", "provider": "http"}
        target = self._dice.choice([b"/payments", b"/v1/payments", b"/pay"])
        fields = [(b"Content-Type", b"application/json")]
        return Request("POST", target, fields, json.dumps(body).encode(), self._dice.choice([0, 0, 0, 1, 3]))

    def _other_method(self, request: Request) -> None:
        request.method = self._dice.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "GET", "PURGE"])

    def _other_target(self, request: Request) -> None:
        dice = self._dice
        some_id = self._some_id()
        request.target = dice.choice(
            [
                b"/v1/payments/" + some_id,
                b"/payments/" + some_id,
                b"/payments/" + some_id + b"/retry",
                b"/v1/health",
                b"/healthz",
                b"/readyz",
                b"/v1/../v1/health",
                b"//v1//health",
                b"/v1%2fhealth",
                b"/v1/health%00",
                b"/payments?" + self._visible(40),
                b"/v1/payments?" + self._visible(40),
                b"/v1/payments?status=pending&limit=2&after=" + self._visible(22),
                b"/v1/payments?metadata[" + self._visible(5) + b"]=" + self._visible(5),
                b"/v1/payments/batch",
                b"/v1/payments/" + some_id + dice.choice([b"/capture", b"/operations", b"/resolve"]),
                dice.choice([b"/v1/refunds", b"/v1/payment-methods", b"/v1/disputes"])
                + dice.choice([b"", b"/" + some_id]),
                b"/v1/refunds/" + some_id + dice.choice([b"/cancel", b"/retry", b"/resolve"]),
                b"/v1/refunds?status=success&limit=2&after=" + self._visible(22),
                b"/v1/payments/" + some_id + dice.choice([b"/cancel", b"/events", b"/attempts"]),
                b"/v1/dead-letters?after=" + self._visible(32),
                b"/v1/dead-letters/replay",
                b"/payments;a=b",
                b"/payments/#" + self._visible(10),
                b"http://x/v1/health",
                b"http://user:password@x:80/payments/" + some_id,
                b"/" + self._visible(dice.choice([1, 10, 200, 3000])),
            ]
        )

    def _some_id(self) -> bytes:
        dice = self._dice
        return dice.choice(
            [
                str(UUID(int=dice.getrandbits(128))).encode(),
                b"pay_" + UUID(int=dice.getrandbits(128)).hex.encode(),
                b"pay_" * 3,
                b"%00" * dice.randint(1, 40),
                b"%ff%fe",
                b"%zz",
                b"%2e%2e%2f%2e%2e%2fetc%2fpasswd",
                b"{" + UUID(int=dice.getrandbits(128)).hex.encode() + b"}",
                b"urn:uuid:" + str(UUID(int=dice.getrandbits(128))).encode(),
                b"0_" * 16,
                b"%D9%A1" * 32,  # digits, in Arabic
                b"9" * dice.choice([31, 32, 33, 3000]),
                self._visible(36),
            ]
        )

    def _other_field(self, request: Request) -> None:
        dice = self._dice
        noise = self._bytes(dice.choice([0, 3, 40, 400]))
        name, value = dice.choice(
            [
                (KEY.encode(), b'"k-%d"' % dice.randint(1, self._made + 1)),
                (KEY.encode(), noise),
                (KEY.encode(), b"k" * dice.choice([255, 256, 4000])),
                (b"If-None-Match", dice.choice([b"*", b'"1"', b'W/"2", "x"', b",,,", noise])),
                (b"Content-Encoding", dice.choice([b"gzip", b"br", b"identity", b"zstd, gzip", noise])),
                (b"Accept-Encoding", noise),
                (b"X-Request-Id", dice.choice([b"mine", b"x" * 129, noise])),
                (b"Cookie", noise),
                (b"Authorization", b"Basic " + noise),
                (b"Range", b"bytes=0-1,9-" + b"9" * 30),
                (b"Accept", b"text/html;q=" + noise),
                (b"Forwarded", noise),
                (b"If-Modified-Since", noise),
                (b"Connection", dice.choice([b"keep-alive", b"foo", noise])),
                (b"Expect", b"100-continue"),
                (b"Trailer", noise),
                (self._token(30), noise),
            ]
        )
        if name == KEY.encode() and dice.random() < 0.5:
            request.fields = [one for one in request.fields if one[0] != name]
        request.fields.append((name, value))
        if dice.random() < 0.15:
            types = [b"text/plain", b"application/json; charset=utf-16", b"application/json;;=", b"a/b/c", noise]
            request.fields = [one for one in request.fields if one[0] != b"Content-Type"]
            request.fields.append((b"Content-Type", dice.choice(types)))

    def _other_body(self, request: Request) -> None:
        dice = self._dice
        bodies: list[Callable[[], bytes]] = [self._some_payment, self._some_payment, self._damaged, self._noise]
        # What is over the cap ends its connection, and nothing behind it is answered.
        request.body = dice.choice(bodies)()[: MAX_BODY_BYTES - 1]
        request.chunks = dice.choice([0, 0, 1, 3])

    def _some_payment(self) -> bytes:
        """A payment, some of whose members are anything."""
        self._made += 1
        members: list[tuple[str, Json]] = [
            ("amount", self._dice.randint(1, 10**6)),
            ("currency", "USD"),
            ("idempotency_key", f"k-{self._made}"),
            ("metadata", {"a": "b"}),
            ("payment_method", "pm_card_visa"),
            ("return_url", "https://shop.example/?a=b"),
            ("provider", "http"),
        ]
        for _ in range(self._dice.randint(1, 3)):
            place = self._dice.randrange(len(members))
            what = self._dice.random()
            if what < 0.2:
                members.pop(place)
            elif what < 0.3:
                members.append(members[place])
            elif what < 0.4:
                members.append((self._text(20), self._value(0)))
            else:
                members[place] = (members[place][0], self._value(0))
            if not members:
                break
        return _json_object(members).encode("utf-8", "surrogatepass")

    def _noise(self) -> bytes:
        return self._dice.randbytes(300)

    def _damaged(self) -> bytes:
        body = bytearray(self._some_payment())
        for _ in range(self._dice.randint(1, 3)):
            self._dice.choice([self._flip, self._cut, self._double, self._insert])(body)
        return bytes(body)

    def _value(self, depth: int) -> Json:
        dice = self._dice
        scalar: list[Callable[[], Json]] = [
            lambda: dice.choice([None, True, False, 0, -1, 1, 1.5, 2**63, -(2**63), 10**400, "", "USD", "usd", "XXQ"]),
            lambda: Raw(dice.choice(["NaN", "Infinity", "-Infinity", "1e400", "1E2", "-0", "01", "1.", ".5", "+1"])),
            lambda: Raw(dice.choice([r'"\ud800"', r'"\u0000"', r'"\udc00\ud800"', r'"\x"', "'a'", "nul", "9" * 5000])),
            lambda: self._text(dice.choice([5, 50, 600])),
            lambda: Raw("[" * dice.choice([5, 50, 5000])),
        ]
        if depth < 4 and dice.random() < 0.3:
            if dice.random() < 0.5:
                return [self._value(depth + 1) for _ in range(dice.randint(0, 5))]
            return {self._text(45): self._value(depth + 1) for _ in range(dice.choice([0, 1, 3, 3 if depth else 60]))}
        return dice.choice(scalar)()

    def _text(self, length: int) -> str:
        dice = self._dice
        alphabet = dice.choice(
            ["abc", "aé€", "\U0001f600a", "\x00\x01\x7f", "\u202e\ufeff\uffff", "'\";--\\/", "\ud800a"]
        )
        return "".join(dice.choice(alphabet) for _ in range(dice.randint(0, length)))

    def _token(self, length: int) -> bytes:
        return bytes(self._dice.choice(b"abcxyz-_!#$%&*+.^`|~019") for _ in range(self._dice.randint(1, length)))

    def _visible(self, length: int) -> bytes:
        return bytes(self._dice.randint(0x21, 0x7E) for _ in range(length))

    def _bytes(self, length: int) -> bytes:
        """A field's value: no control characters."""
        return bytes(self._dice.choice(_FIELD_BYTES) for _ in range(length))

    def _flip(self, text: bytearray) -> None:
        if text:
            text[self._dice.randrange(len(text))] = self._dice.randrange(256)

    def _cut(self, text: bytearray) -> None:
        start = self._dice.randint(0, len(text))
        del text[start : start + self._dice.choice([1, 10, 100])]

    def _double(self, text: bytearray) -> None:
        start = self._dice.randint(0, len(text))
        text[start:start] = text[start : start + self._dice.choice([1, 10, 100])]

    def _insert(self, text: bytearray) -> None:
        start = self._dice.randint(0, len(text))
        some = [
            b"\x00",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b":",
            b" ",
            b"\xff" * 9,
            b"HTTP/0.9",
            b"0\r\n\r\n",
            b"a" * 9000,
        ]
        text[start:start] = self._dice.choice(some)

    def _lie(self, text: bytearray) -> None:
        """A field that contradicts the framing, or requests another protocol, before a foreign Host."""
        fields = [
            b"Content-Length: 5",
            b"Content-Length: 99999999",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Expect: " + self._token(9),
            b"Upgrade: websocket\r\nConnection: upgrade",
            b"Upgrade: h2c\r\nConnection: upgrade",
            b"Connection: close",
        ]
        hosts = [place for place in range(len(text)) if text.startswith(b"Host: localhost\r\n", place)]
        if hosts:
            place = self._dice.choice(hosts)
            text[place:place] = self._dice.choice(fields) + b"\r\n"


def _json_object(members: Sequence[tuple[str, Json]]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {_json(value)}" for name, value in members) + "}"


def _json(value: Json) -> str:
    match value:
        case Raw():
            return str(value)
        case dict():
            return _json_object(list(value.items()))
        case list():
            return "[" + ", ".join(map(_json, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return json.dumps(value)

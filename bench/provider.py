"""A provider that costs little: the wire contract of `okane provider` in memory, approving everything.

Run as `python -m bench.provider --port N [--latency-ms MS]`. The mock provider of the product keeps a durable journal and
can misbehave; measured with it, a pipeline that is fast enough would show the mock's limit instead of its own. One key is
charged once here, too: `GET /summary` returns the number of charged keys and of calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

from bench.plain_http import PlainConnection, header, json_response, serve

_NOT_FOUND = b'{"code":"charge_not_found","message":"no charge under this idempotency key"}'


class Till:
    """The charges by idempotency key."""

    def __init__(self) -> None:
        self.calls = 0
        self.charges: dict[bytes, bytes] = {}

    def charge(self, key: bytes, body: bytes) -> bytes:
        """The answer to a charge under `key`; a repeat is answered as the first time."""
        self.calls += 1
        reference = b"ch_%d" % (len(self.charges) + 1)
        if key not in self.charges:
            self.charges[key] = body
        else:
            reference = b"ch_repeated"
        return b'{"provider_ref":"%s","status":"captured"}' % reference

    def look_up(self, key: bytes) -> bytes | None:
        body = self.charges.get(key)
        if body is None:
            return None
        wanted = json.loads(body)
        found = {"provider_ref": "ch_looked_up", "status": "captured"}
        return json.dumps(found | {name: wanted[name] for name in ("amount", "currency")}).encode()

    def summary(self) -> bytes:
        return json.dumps({"charged": len(self.charges), "calls": self.calls}).encode()


class Connection(PlainConnection):
    """One connection of a client."""

    def __init__(self, till: Till, latency_s: float) -> None:
        super().__init__()
        self._till = till
        self._latency_s = latency_s

    def handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            answer = json_response(self._till.charge(header(head, b"idempotency-key"), body))
            if self._latency_s:
                asyncio.get_running_loop().call_later(self._latency_s, self.write, answer)
                return
        elif path.startswith(b"/charges/"):
            found = self._till.look_up(path.removeprefix(b"/charges/"))
            answer = json_response(_NOT_FOUND, b"404 Not Found") if found is None else json_response(found)
        else:
            answer = json_response(self._till.summary())
        self.write(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    options = parser.parse_args()
    till, latency_s = Till(), options.latency_ms / 1000
    uvloop.run(serve(lambda: Connection(till, latency_s), options.port))


if __name__ == "__main__":
    main()

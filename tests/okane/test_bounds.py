"""No request, right or wrong, holds the event loop for long, or gets an answer without a bound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from okane.api import batch, batch_items
from okane.api.payment_creation import MAX_BODY_BYTES, RENDERERS
from okane.api.problems import Problem
from okane.api.routes import SCOPES
from tests.okane.api_requests import rows
from tests.okane.holding import Said, garbage_as_in_the_api, send, watching_the_loop
from tests.okane.served_api import Api

MOST_S = 0.005
MAX_ANSWER = 64 * 1024  # of all but lists and batches
TRIES = 20

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    with garbage_as_in_the_api():
        yield


def filled(start: str, part: str, end: str, size: int, *, joint: str = ",") -> bytes:
    """Return a body of `size` bytes at most, filled with parts; `#` in a part is its number."""
    parts: list[str] = []
    length, number = len((start + end).encode()), 0
    if "#" not in part:
        return (start + joint.join([part] * ((size - length) // len((part + joint).encode()))) + end).encode()
    while True:
        one = part.replace("#", str(number))
        length += len((one + joint).encode())
        if length > size:
            return (start + joint.join(parts) + end).encode()
        parts.append(one)
        number += 1


def payment(key: str, **members: Any) -> dict[str, Any]:
    return {"amount": 440, "idempotency_key": key} | members


def metadata(letter: str, count: int = 50, size: int = 500) -> dict[str, str]:
    return {f"{number:02}{letter * 38}": letter * size for number in range(count)}


def compact(value: Any, *, ascii_only: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()


KEY = '"amount":440,"idempotency_key":"k"'
ROW_OF_DIGITS = "4 " * 39 + "4x"  # each digit begins three numbers that an issuer may have; the check digits are wrong
RIGHT_ONES = {
    "ascii": compact(payment("k", metadata=metadata("v"))),
    "two bytes": compact(payment("k", metadata=metadata("é"))),
    "four bytes": compact(payment("k", metadata=metadata("😀", 26))),
    "escaped": compact(payment("k", metadata=metadata("é", 19)), ascii_only=True),
    "control characters": compact(payment("k", metadata=metadata("\x01", 17))),
    "newlines": compact(payment("k", metadata=metadata("\n", 50))),
    "quotes": compact(payment("k", metadata=metadata('"', 50))),
    "blanks": b"{" + b" " * 65_000 + f"{KEY}}}".encode(),
    "brackets": compact(payment("k", metadata=metadata("{", 50))),
    "digits like those of cards": compact(payment("k", metadata=dict.fromkeys(metadata("v"), ROW_OF_DIGITS * 6))),
    "digits of cards": compact(payment("k", metadata=dict.fromkeys(metadata("v"), "4111-1111-1111-1112x" * 25))),
}
WRONG_ONES = {
    "members": filled(f"{{{KEY},", '"#":1', "}", MAX_BODY_BYTES),
    "short members": filled(f"{{{KEY},", '"#":1', "}", 2_000),
    "metadata": filled(f'{{{KEY},"metadata":{{', '"#":1', "}}", MAX_BODY_BYTES),
    "metadata of empty texts": filled(f'{{{KEY},"metadata":{{', '"#":""', "}}", MAX_BODY_BYTES),
    "metadata of objects": filled(f'{{{KEY},"metadata":{{', '"#":{}', "}}", MAX_BODY_BYTES),
    "wrong values": compact(payment("k", metadata={"k" * 41 + str(n): "v" * 501 for n in range(60)})),
    "long names": compact(payment("k", **{f"{n}" + "é/~" * 300: 1 for n in range(40)})),
    "one long name": compact(payment("k", **{"\U0001f600" * 16_000: 1})),
    "a long name twice": b'{"%s":1,"%s":1}' % (("😀" * 8_000).encode(), ("😀" * 8_000).encode()),
    "names twice": filled("{", '"a":1', "}", MAX_BODY_BYTES),
    "empty lists": filled(f'{{{KEY},"a":[', "[]", "]}", MAX_BODY_BYTES),
    "empty objects": filled(f'{{{KEY},"a":[', "{}", "]}", MAX_BODY_BYTES),
    "small objects": filled(f'{{{KEY},"a":[', '{"b":1}', "]}", MAX_BODY_BYTES),
    "numbers": filled(f'{{{KEY},"a":[', "1", "]}", MAX_BODY_BYTES),
    "numbers as metadata": filled(f'{{{KEY},"metadata":[', "1", "]}", MAX_BODY_BYTES),
    "texts": filled(f'{{{KEY},"a":[', r'"\n"', "]}", MAX_BODY_BYTES),
    "large numbers": filled(f'{{{KEY},"a":[', "9" * 4_299, "]}", MAX_BODY_BYTES),
    "large fractions": filled(f'{{{KEY},"a":[', "0." + "9" * 700, "]}", MAX_BODY_BYTES),
    "large exponents": filled(f'{{{KEY},"a":[', "1e308", "]}", MAX_BODY_BYTES),
    "one number": b'{"idempotency_key":"k","amount":1' + b"0" * 60_000 + b"}",
    "one fraction": b'{"idempotency_key":"k","amount":1.' + b"1" * 60_000 + b"}",
    "one exponent": b'{"idempotency_key":"k","amount":1e' + b"9" * 60_000 + b"}",
    "one negative number": b'{"idempotency_key":"k","amount":-' + b"9" * 60_000 + b"}",
    "a number of 4,000 digits": b'{"idempotency_key":"k","amount":' + b"9" * 4_000 + b"}",
    "a number as a body": b"9" * 65_000,
    "open lists": b"[" * 65_000,
    "lists": b"[" * 32_000 + b"]" * 32_000,
    "objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "an unfinished text": b'{"a":"' + b"x" * 65_000,
    "escapes": b'{"a":"' + b"\\n" * 32_000 + b'"}',
    "escaped NULs": b'{"a":"' + b"\\u0000" * 10_000 + b'"}',
    "surrogates": b'{"a":"' + b"\\ud800" * 10_000 + b'"}',
    "pairs": b'{"a":"' + b"\\ud83d\\ude00" * 5_000 + b'"}',
    "blanks": b" " * 65_000,
    "NUL bytes": b"\x00" * 65_000,
    "no UTF-8": b'{"a":"' + b"\xff" * 65_000 + b'"}',
    "a long currency": compact(payment("k", currency="U" * 65_000)),
    "a long key": compact(payment("k" * 65_000)),
    "a long time": compact(payment("k", execute_at="2026-01-01T00:00:00." + "1" * 65_000 + "Z")),
    "a long list of nothing": filled("[", "null", "]", MAX_BODY_BYTES),
}


MB = batch.MAX_BYTES
RIGHT_BATCHES = {
    "small": [payment(f"k{n}") for n in range(1_000)],
    "ascii": [payment(f"k{n}", metadata={"a": "v" * 460, "b": "w" * 440}) for n in range(1_000)],
    "two bytes": [payment(f"k{n}", metadata={"a": "é" * 230, "b": "é" * 220}) for n in range(1_000)],
    "brackets": [payment(f"k{n}", metadata={"a": '[{"' * 100, "b": "]}," * 100}) for n in range(1_000)],
    "members": [payment(f"k{n}", metadata={str(m): "123456" for m in range(50)}) for n in range(1_000)],
    "digits like those of cards": [payment(f"k{n}", metadata={"a": ROW_OF_DIGITS * 6}) for n in range(1_000)],
    "the largest": [payment(f"k{n}", metadata=metadata("é")) for n in range(19)],
    "one key": [payment("k") for _ in range(1_000)],
    "refused": [payment(f"k{n}", expires_at="2020-01-01T00:00:00Z") for n in range(1_000)],
    "unknown members": [payment(f"k{n}", **{f"{m:02}": 1 for m in range(60)}) for n in range(1_000)],
    "wrong metadata": [payment(f"k{n}", metadata={f"{m:02}": 1 for m in range(60)}) for n in range(1_000)],
}
LARGE_ITEM = filled(f'{{{KEY},"metadata":{{', '"#":1', "}}", MAX_BODY_BYTES)
WRONG_BATCHES = {
    "one large item": filled(f'[{{{KEY},"metadata":{{', '"#":1', "}}]", MB),
    "large items": b"[" + b",".join([LARGE_ITEM] * 15) + b"]",
    "open lists": b"[" * (MB - 1),
    "lists": filled("[", "[]", "]", MB),
    "objects": filled("[", "{}", "]", MB),
    "numbers": filled("[", "1", "]", MB),
    "texts": filled("[", '""', "]", MB),
    "blanks": b" " * MB,
    "lines": b"\n" * MB,
    "quotes": b'"' * MB,
    "commas": b"[" + b"," * (MB - 2) + b"]",
    "backslashes": b"[" + b"\\" * (MB - 2) + b"]",
    "one text": b'["' + b"x" * (MB - 4) + b'"]',
    "one escaped text": b'["' + b"\\n" * (MB // 2 - 2) + b'"]',
    "one number": b"[" + b"9" * (MB - 2) + b"]",
    "no UTF-8": b'["' + b"\xff" * (MB - 4) + b'"]',
    "an unfinished item": b'[{"a":"' + b"x" * (MB - 10),
    "lines of numbers": b"1\n" * (MB // 2),
}
IDS = [str(uuid4()) for _ in range(1_600)]
REPLAYS = {
    "as many ids as may be": compact({"filter": {"payment_ids": IDS[:500]}, "limit": 500}),
    "too many ids": compact({"filter": {"payment_ids": IDS}}),
    "numbers": filled('{"filter":{"payment_ids":[', "1", "]}}", MAX_BODY_BYTES),
    "five hundred wrong ids": compact({"filter": {"payment_ids": ["x"] * 500}}),
    "members": filled('{"filter":{', '"#":1', "}}", MAX_BODY_BYTES),
}
QUERIES = {
    "parameters": "&".join(f"{n:x}" for n in range(1_000)),
    "one parameter": "&".join(["a"] * 1_900),
    "statuses": "&".join(["status=x"] * 420),
    "hundred statuses": "&".join(["status=x"] * 100),
    "metadata": "&".join(f"metadata[{n}]=1" for n in range(220)),
    "hundred names": "&".join(f"metadata[{n}]={'%00' * 10}" for n in range(90)),
    "escapes": "&".join(f"%c3%a9{n}" for n in range(290)),
    "brackets": "metadata" + "[" * 3_900,
    "equal signs": "=" * 3_900,
    "a long limit": "limit=" + "9" * 3_900,
    "a long cursor": "after=" + "A" * 3_900,
    "a long name": "metadata[" + "x" * 3_900 + "]=1",
}
LONG = 8_000
HEADS: dict[str, dict[str, str]] = {
    "preferences": {"Prefer": "," * LONG},
    "a long preference": {"Prefer": "wait=" + " " * LONG},
    "tags": {"If-None-Match": "," * LONG},
    "a long key": {"Authorization": "Basic " + "A" * LONG},
    "a long id": {"X-Request-Id": "x" * LONG},
    "quotes": {"Idempotency-Key": '"' + "\\" * LONG + '"'},
    "fields": {f"X-{number}": "v" * LONG for number in range(50)},
}


async def held(api: Api, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[float, Said]:
    """Return the shortest of the longest turns in a few tries (a busy machine adds to some), and the last answer."""
    longest_s = []
    while True:
        with watching_the_loop() as hold:
            said = await send(api.url, method, target, body, **headers)
        longest_s.append(hold.longest_s)
        if hold.longest_s < MOST_S or len(longest_s) == TRIES:
            return min(longest_s), said


class Found(dict[str, str]):
    """Return the bounds that were broken, by name; none if all held."""

    def look(self, name: str, longest_s: float, said: Said, most_bytes: int = MAX_ANSWER) -> None:
        if longest_s >= MOST_S or len(said.body) > most_bytes:
            self[name] = f"{longest_s * 1000:.1f} ms, {len(said.body):,} bytes, {said.status}"


@pytest.mark.parametrize("more", [{}, {"Content-Encoding": "identity"}], ids=["fast path", "aiohttp"])
async def test_a_payment_of_the_largest_size_delays_no_other(api: Api, more: dict[str, str]) -> None:
    found = Found()
    for key, (name, body) in zip("abcdefghijk", RIGHT_ONES.items(), strict=False):
        assert len(body) <= MAX_BODY_BYTES
        sent = body.replace(b'"k"', compact(key))
        longest_s, said = await held(api, "POST", "/v1/payments", sent, **JSON, **more)
        assert said.status in (200, 202), said.body
        found.look(name, longest_s, said)
        found.look(f"GET {name}", *await held(api, "GET", said.headers["Location"]))
        assert json.loads(said.body)["payment"]["metadata"] == json.loads(body).get("metadata", {})
    assert not found


@pytest.mark.parametrize("path", ["/v1/payments", "/payments", "/pay"])
async def test_no_wrong_body_of_a_payment_holds_anybody_up(api: Api, path: str) -> None:
    found = Found()
    for name, body in WRONG_ONES.items():
        assert len(body) <= MAX_BODY_BYTES, name
        for more in ({}, {"Content-Encoding": "identity"}):
            longest_s, said = await held(api, "POST", path, body, **JSON, **more)
            assert said.status in (400, 422), name
            found.look(name, longest_s, said)
    assert not found
    assert await rows(api) == 0


@pytest.mark.parametrize("lines", [False, True])
async def test_no_batch_holds_anybody_up(api: Api, lines: bool) -> None:
    found = Found()
    for name, items in RIGHT_BATCHES.items():
        body = b"\n".join(map(compact, items)) if lines else compact(items)
        body = body.replace(b'"k', b'"' + name.replace(" ", "-").encode())
        assert len(body) <= MB, name
        longest_s, said = await held(api, "POST", "/v1/payments/batch", body, **(LINES if lines else JSON))
        assert said.status == 207
        assert len(json.loads(said.body)["results"]) == len(items)
        found.look(name, longest_s, said, most_bytes=2 * MB)
    for name, body in WRONG_BATCHES.items():
        assert len(body) <= MB, name
        found.look(name, *await held(api, "POST", "/v1/payments/batch", body, **(LINES if lines else JSON)))
    assert not found


async def test_a_body_in_chunks_of_a_byte_each_delays_no_other(api: Api) -> None:
    right = compact(payment("k", metadata=metadata("v"))).ljust(60_000)
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in right) + b"0\r\n\r\n"
    longest_s, said = await held(api, "POST", "/v1/payments", body, **JSON, **{"Transfer-Encoding": "chunked"})
    assert said.status in (200, 202)
    assert longest_s < MOST_S


async def test_many_requests_at_once_delay_no_other(api: Api) -> None:
    """Heads are parsed in slices of time, and all requests are answered, in order."""
    head = b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: b\r\n" * 60
    many = b"".join(head + b"X-Request-Id: r%d\r\n\r\n" % number for number in range(500))
    many += b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    longest_s, said = await held(api, "GET", "/v1/health", many, **{"Connection": "keep-alive", "Content-Length": "0"})
    ids = re.findall(rb"X-Request-Id: r(\d+)", said.body)
    assert [int(one) for one in ids] == list(range(500))
    assert longest_s < MOST_S


async def test_no_request_of_any_route_holds_anybody_up(api: Api) -> None:
    found, known = (
        Found(),
        json.loads((await send(api.url, "POST", "/v1/payments", compact(payment("k")), **JSON)).body),
    )
    for method, pattern in SCOPES:
        path = pattern.replace("{payment_id}", known["payment"]["id"])
        most_bytes = 384 * 1024 if pattern in ("/docs", "/v1/openapi.json") else MAX_ANSWER
        if pattern in ("/docs", "/v1/openapi.json"):
            await send(api.url, method, path)  # the description is built at its first request, in a thread
        for name, query in QUERIES.items():
            found.look(f"{method} {path}?{name}", *await held(api, method, f"{path}?{query}"), most_bytes)
        for name, headers in HEADS.items():
            found.look(f"{method} {path} {name}", *await held(api, method, path, b"", **headers), most_bytes)
        if method == "POST" and pattern not in RENDERERS:
            for name, body in (REPLAYS | WRONG_ONES).items():
                found.look(f"{path} {name}", *await held(api, method, path, body, **JSON))
    for target in ("/" + "x/" * 2_000, "/%c3%a9" * 500):
        found.look("no route", *await held(api, "GET", target))
    assert not found


async def test_pages_of_the_largest_payments_delay_no_other_and_go_on(api: Api) -> None:
    """A page ends early where it is large enough: the next one goes on from there, and no payment is missing."""
    bodies = [compact([payment(f"k{page}-{n}", metadata=metadata("é")) for n in range(19)]) for page in range(6)]
    made: list[str] = []
    for body in bodies:
        said = await send(api.url, "POST", "/v1/payments/batch", body, **JSON)
        made += [one["payment"]["id"] for one in json.loads(said.body)["results"]]
    statement = "UPDATE payments SET status = 'failed_final', dead_at = now() - attempts * interval '1 s' RETURNING 1"
    assert len(await api.store._rare.fetch(statement)) == len(made)
    found = Found()
    for path, name in (("/v1/payments", "payments"), ("/v1/dead-letters", "dead_letters")):
        seen, target = list[str](), f"{path}?limit=100"
        while target:
            longest_s, said = await held(api, "GET", target)
            found.look(target, longest_s, said, most_bytes=2 * MB)
            page = json.loads(said.body)
            seen += [one.get("payment", one)["id"] for one in page[name]]
            target = f"{path}?limit=100&after={page['after']}" if page["has_more"] else ""
        assert sorted(seen) == sorted(made)
    replay = compact({"limit": 500, "dry_run": True})
    longest_s, said = await held(api, "POST", "/v1/dead-letters/replay", replay, **JSON)
    found.look("replay", longest_s, said)
    assert sorted(json.loads(said.body)["retried"]) == sorted(made)
    found.look("batch of repeats", *await held(api, "POST", "/v1/payments/batch", bodies[0], **JSON), 2 * MB)
    assert not found


async def test_an_answer_lists_twenty_errors_and_counts_all(api: Api) -> None:
    many = payment("k", **{f"m{number}": 1 for number in range(40)})
    for target, body in (("/v1/payments", many), ("/v1/dead-letters/replay", many)):
        said = json.loads((await send(api.url, "POST", target, compact(body), **JSON)).body)
        assert (said["code"], len(said["errors"])) == ("validation_failed", 20)
        assert said["error_count"] == (40 if target == "/v1/payments" else 42)
    said = json.loads((await send(api.url, "GET", "/v1/payments?" + "&".join(f"p{n}=1" for n in range(60)))).body)
    assert (said["code"], len(said["errors"]), said["error_count"]) == ("query_invalid", 20, 60)
    said = json.loads((await send(api.url, "POST", "/v1/payments/batch", compact([many, {"amount": 0}]), **JSON)).body)
    problems = [one["problem"] for one in said["results"]]
    assert [(len(one["errors"]), one["error_count"]) for one in problems] == [(5, 40), (1, 1)]


@pytest.mark.parametrize("count", [64, 65, 1_001, 7_000])
async def test_too_many_members_are_refused_at_any_depth(api: Api, count: int) -> None:
    many = {f"{number}": 1 for number in range(count)}
    expected = "validation_failed" if count <= 64 else "too_many_members"
    for target, body in (
        ("/v1/payments", many),
        ("/v1/payments", payment("k", metadata=many)),
        ("/v1/payments", payment("k", unknown=[[many]])),
        ("/v1/dead-letters/replay", {"filter": many}),
        ("/v1/dead-letters/replay", {"filter": {"payment_ids": [many]}}),
    ):
        said = await send(api.url, "POST", target, compact(body), **JSON)
        assert (said.status, json.loads(said.body)["code"]) == (422, expected)
    said = await send(api.url, "POST", "/v1/payments/batch", compact([payment("a"), many, payment("b")]), **JSON)
    results = json.loads(said.body)["results"]
    assert [one["status"] for one in results] == [202, 422, 202]
    assert results[1]["problem"]["code"] == expected


@pytest.mark.parametrize("lines", [False, True])
async def test_an_item_is_held_to_the_size_of_a_request_and_harms_no_other(api: Api, lines: bool) -> None:
    large = b'{"amount":1,"idempotency_key":"large"' + b" " * MAX_BODY_BYTES + b"}"
    items = [compact(payment("a")), large, compact(payment("b"))]
    body = b"\n".join(items) if lines else b"[" + b",".join(items) + b"]"
    said = json.loads((await send(api.url, "POST", "/v1/payments/batch", body, **(LINES if lines else JSON))).body)
    assert [one["status"] for one in said["results"]] == [202, 413, 202]
    assert said["results"][1]["problem"]["code"] == "body_too_large"


async def test_texts_full_of_commas_and_brackets_are_no_members(api: Api) -> None:
    texts = {str(number): '[{,\\"' * 100 for number in range(50)}
    said = await send(api.url, "POST", "/v1/payments", compact(payment("k", metadata=texts)), **JSON)
    assert json.loads(said.body)["payment"]["metadata"] == texts


async def test_metadata_that_no_answer_has_room_for_is_refused(api: Api) -> None:
    large = compact(payment("k", metadata=metadata("😀", 30)))
    assert len(large) <= MAX_BODY_BYTES
    said = await send(api.url, "POST", "/v1/payments", large, **JSON)
    assert (said.status, json.loads(said.body)["errors"][0]["pointer"]) == (422, "/metadata")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0) if isinstance(value, list | dict) else 0


@given(st.lists(VALUES, max_size=5), st.booleans(), st.sampled_from([None, 2]), st.integers(1, 40))
def test_a_batch_is_cut_where_a_parser_would(items: list[Any], ascii_only: bool, indent: int | None, step: int) -> None:
    assume(depth(items) <= 8)
    body = json.dumps(items, ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(batch_items, "STEP_BYTES", step + 1)  # every text and every run is cut off somewhere
        found = [json.loads(piece) for piece in batch_items.of_array(body) if piece is not None]
    assert found == items


@given(st.text(alphabet='[]{}",:\\1a \n', max_size=24))
def test_a_body_that_is_not_json_is_never_taken_for_a_batch(text: str) -> None:
    try:
        expected = json.loads(f"[{text}]")
    except ValueError:
        expected = None
    try:
        found = [json.loads(piece) for piece in batch_items.of_array(f"[{text}]".encode()) if piece is not None]
    except (ValueError, Problem):
        found = None
    assert found == (expected if isinstance(expected, list) else None) or (expected is not None and depth(expected) > 8)

"""Requests that no route can read: too long, too slow, broken. Each gets a page that says what is wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest

from okane.console import form_body
from tests.console.served_console import LIMITS, Answer, Console, serve_console, text_of

HOST = "Host: console\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded"
POST = f"POST /console/login HTTP/1.1\r\n{HOST}Sec-Fetch-Site: same-origin\r\nConnection: close\r\n"


async def sent(url: str, request: bytes) -> Answer:
    """Send these bytes, and return the answer and its end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    assert int(headers["Content-Length"]) == len(body)
    return Answer(int(status.split()[1]), body.decode(), headers)


def check_page(answer: Answer, status: HTTPStatus, words: str) -> None:
    assert answer.status == status, text_of(answer.text)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert answer.headers["Cache-Control"] == "no-store, private"
    assert "<!doctype html>" in answer.text
    assert words in text_of(answer.text)


HEADS = (
    (f"GET /console/payments?q={'a' * 10_000} HTTP/1.1\r\n{HOST}", 414, "up to 500 characters: shorten it"),
    (f"GET /console/ HTTP/1.1\r\n{HOST}Cookie: {'a' * 9_000}\r\n", 431, "Delete the cookies of this site"),
    (f"GET /console/ HTTP/1.1\r\n{HOST}" + "A: a\r\n" * 70, 431, "Delete the cookies of this site"),
    ("no http at all\r\n", 501, "The console cannot read this request"),
    ("\x16\x03\x01\r\n", 400, "The console cannot read this request"),
    (f"GET /console/ HTTP/3.1\r\n{HOST}", 505, "The console cannot read this request"),
    (f"GET /console/ HTTP/1.1\r\n{HOST}Expect: tea\r\n", 417, "The console cannot read this request"),
    (f"DELETE /console/keys HTTP/1.1\r\n{HOST}Connection: close\r\n", 405, "does not take that method"),
)
FORMS = (
    (f"{FORM}; charset=utf-16", b"key=a", 415, "in UTF-8 only"),
    (f"{FORM}; charset=unheard-of", b"key=a", 415, "in UTF-8 only"),
    (FORM, b"key=\xff\xfe", 400, "The form cannot be read"),
    (FORM, b"key=" + b"a" * 70_000, 413, "holds more than the console takes"),
    ("Content-Type: multipart/form-data; boundary=a", b"--a--", 415, "plain forms only"),
)


async def test_a_head_that_cannot_be_read_gets_a_page(console: Console) -> None:
    for head, status, words in HEADS:
        check_page(await sent(console.url, f"{head}\r\n".encode()), HTTPStatus(status), words)


async def test_a_form_that_cannot_be_read_gets_a_page(console: Console) -> None:
    for fields, body, status, words in FORMS:
        head = f"{POST}{fields}\r\nContent-Length: {len(body)}\r\n\r\n"
        check_page(await sent(console.url, head.encode() + body), HTTPStatus(status), words)


async def test_a_form_that_breaks_off_or_does_not_come_gets_a_page(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = f"{POST}{FORM}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
    check_page(await sent(console.url, broken), HTTPStatus.BAD_REQUEST, "cannot")
    monkeypatch.setattr(form_body, "BODY_TIMEOUT_S", 0.05)
    late = f"{POST}{FORM}\r\nContent-Length: 10\r\n\r\nkey".encode()
    check_page(await sent(console.url, late), HTTPStatus.REQUEST_TIMEOUT, "The form did not come in time")


async def test_clients_that_are_too_slow_or_too_many_get_a_page(database_url: str, redis_url: str) -> None:
    limits = replace(LIMITS, connections=1, head_timeout_s=0.3)
    async with serve_console(database_url, redis_url, limits=limits) as console:
        slow = asyncio.create_task(sent(console.url, b"GET /console/ HTTP/1.1\r\nHost: con"))
        await asyncio.sleep(0)
        parts = urlsplit(console.url)
        while True:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            if body:
                break
        assert b" 503 " in head
        assert b"Retry-After: 1" in head
        assert "as many connections as it takes" in text_of(body.decode())
        check_page(await slow, HTTPStatus.REQUEST_TIMEOUT, "The request did not come in time")

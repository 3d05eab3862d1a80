"""Postgres or Redis hangs: every page answers within seconds, says which server is silent and since when, and recovers."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator

import psutil

from okane.api_key import Scope
from okane.console.outages import SILENT_S, SLOW_S, Outage
from okane.console.services import utc_now
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.local.server import Server
from tests.console.console_payments import accepted
from tests.console.served_console import serve_console, text_of

BOUND_S = 3.0 + 2.0  # a statement with the cut of its connection; then the machine's own slowness
SINCE = re.compile(r"(?:since|No answer since) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC")
POSTGRES_PAGES = ("/dead", "/reviews", "/disputes", "/keys", "/audit", "/webhooks", "/providers", "/payments")


@contextlib.contextmanager
def hanging(server: Server) -> Iterator[None]:
    """Stop a server and its processes for the length of the block, without an end of any connection."""
    assert server.child is not None
    root = psutil.Process(server.child.pid)
    family = [root, *root.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)


async def test_while_postgres_hangs_pages_say_so_within_seconds(
    private_postgres: PostgresServer, redis_url: str
) -> None:
    async with serve_console(private_postgres.url, redis_url) as console:
        browser, payment = await console.logged_in(), await accepted(console)
        page = f"/payments/{payment.id}"
        for path in (page, *POSTGRES_PAGES):
            assert (await browser.get(path)).status == 200, path
        token = await browser.csrf()
        with hanging(private_postgres):
            began_s = time.monotonic()
            for path in (page, *POSTGRES_PAGES):
                answer = await browser.get(path)
                assert answer.status == 503, (path, text_of(answer.text))
                assert "Postgres does not answer" in text_of(answer.text), path
                assert SINCE.search(text_of(answer.text)), (path, text_of(answer.text))
            assert time.monotonic() - began_s < 2 * BOUND_S  # the first one waited; and one tries again
            overview = await browser.get("/")
            assert overview.status == 200
            assert "Postgres does not answer since" in text_of(overview.text)
            acted_s = time.monotonic()
            refused = await browser.post(f"{page}/cancel", {"csrf": token, "version": "0"})
            assert time.monotonic() - acted_s < BOUND_S
            assert (refused.status, "Nothing was changed." in text_of(refused.text)) == (503, True)
        answer = await browser.get(page)
        # What another reader asked while it hung may end only now, and says so once more.
        while answer.status != 200 or "Postgres does not answer" in text_of(answer.text):
            answer = await browser.get(page)
        assert (await console.services.payments.get(payment.id, account_id="default")).version == payment.version


async def test_while_redis_hangs_pages_say_so_within_seconds(database_url: str, private_redis: RedisServer) -> None:
    async with serve_console(database_url, private_redis.url) as console:
        browser, payment = await console.logged_in(), await accepted(console)
        with hanging(private_redis):
            for path in ("/", "/streams/delayed", "/streams/low/pending"):
                began_s = time.monotonic()
                answer = await browser.get(path)
                assert time.monotonic() - began_s < BOUND_S
                assert "Redis does not answer" in text_of(answer.text), path
                assert SINCE.search(text_of(answer.text)), path
            began_s = time.monotonic()
            answer = await browser.get(f"/payments/{payment.id}")
            assert "Redis does not answer, so its place on the stream is not known." in text_of(answer.text)
            other = await console.browser()
            other.secret = await console.key(Scope.READ)
            assert (await other.log_in(other.secret)).status == 303
            assert time.monotonic() - began_s < BOUND_S
        answer = await browser.get("/streams/delayed")
        while answer.status != 200:
            answer = await browser.get("/streams/delayed")


def test_one_page_at_a_time_waits_for_a_server_that_hangs() -> None:
    clock = [100.0]
    outage = Outage(utc_now, lambda: clock[0])
    since = outage.notice(SLOW_S)
    assert outage.is_silent()
    clock[0] += SILENT_S
    assert not outage.is_silent()  # this page tries
    assert outage.is_silent()
    assert outage.notice(SLOW_S) == since
    outage.end()
    assert (outage.is_silent(), outage.since) == (False, None)


def test_a_server_that_refuses_at_once_is_asked_by_every_page() -> None:
    outage = Outage(utc_now)
    outage.notice(0.01)
    assert not outage.is_silent()
    assert outage.since is not None

"""The cost of pages over many payments: what the plans read is bounded, and the number of statements is constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import pytest
from redis.asyncio.connection import AbstractConnection

from bench.console.filling import fill_everything
from okane.console import sampler, search_windows, services
from okane.store.dead_letters import WINDOW as DEAD_WINDOW
from okane.store.lists import WINDOW
from streams import connect
from tests.console.served_console import Browser, Console, serve_console, text_of
from tests.console.watched_statements import Watched, watch

MANY = 500_000  # a million take over 40 s of two cores to put in: `python -m bench.console --only e` has them
ROWS, BLOCKS = 700, 3_000  # of a page: some times the fifty or hundred rows that it shows
# Its sample counts dead letters and payments that wait, which are few; dead letters are looked through as a search is.
_SAMPLED, _LOOKED_THROUGH = (2 * MANY // 100, 20_000), (2 * DEAD_WINDOW + ROWS, 8 * DEAD_WINDOW)
LARGER = {
    **dict.fromkeys(("overview", "streams", "workers", "providers"), _SAMPLED),
    **dict.fromkeys(
        ("dead letters", "dead letters of a currency", "dry run of a replay", "dry run of a purge"), _LOOKED_THROUGH
    ),
}

_NEWEST = "SELECT id::text FROM payments WHERE account_id = 'default' ORDER BY id DESC LIMIT 1"
_MIDDLE = "SELECT id::text FROM payments WHERE account_id = 'default' AND idempotency_key = 'order-500'"
_ENDPOINT = "SELECT id::text FROM webhook_endpoints WHERE account_id = 'default' ORDER BY id LIMIT 1"


async def pages_of(database_url: str) -> Mapping[str, str]:
    """Return the address of every screen, by what it is."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:

        async def one(statement: str) -> str:
            row = await (await connection.execute(statement.encode())).fetchone()
            assert row is not None
            return str(row[0])

        newest, middle, endpoint = await one(_NEWEST), await one(_MIDDLE), await one(_ENDPOINT)
    return {
        "overview": "/",
        "streams": "/streams",
        "pending": "/streams/low/pending",
        "delayed": "/streams/delayed",
        "workers": "/workers",
        "payments": "/payments",
        "older payments": f"/payments?after={middle}",
        "payments of an hour": "/payments?from=2020-01-01&to=2020-01-01T01:00",
        "payments of a rare status": "/payments?status=failed_final",
        "payments of two rare statuses": "/payments?status=canceled&status=needs_review",
        "successes": "/payments?status=success",
        "a key": "/payments?q=key:order-500",
        "an id": f"/payments?q={middle}",
        "newest payment": f"/payments/{newest}",
        "older payment": f"/payments/{middle}",
        "dead letters": "/dead",
        "dead letters of a currency": "/dead?currency=EUR&lane=low",
        "dry run of a replay": "/dead/replay?limit=50",
        "dry run of a purge": "/dead/purge?limit=50",
        "reviews": "/reviews",
        "disputes": "/disputes",
        "disputes of a status": "/disputes?status=won",
        "disputes of a payment": f"/disputes?payment={newest}",
        "providers": "/providers",
        "webhooks": "/webhooks",
        "endpoint": f"/webhooks/{endpoint}",
        "keys": "/keys",
        "audit": "/audit",
    }


SEARCHES = {
    "metadata of one payment": "/payments?q=metadata.order=A-77",
    "reference of one payment": "/payments?q=ref:ch_77",
    "amount of none": "/payments?currency=EUR&amount_from=499999.99",
    "open status": "/payments?status=pending",
    "provider of none": "/payments?provider=stripe",
    "deliveries in a state of none": "{endpoint}?state=waiting",
    "dead letters of none": "/dead?currency=JPY",
    "disputes of none": "/disputes?provider=none",
}


async def costs_of(browser: Browser, watched: Watched, pages: Mapping[str, str]) -> dict[str, Watched]:
    """Request each page, and return its statements. The session's key is known before."""
    costs = {}
    for name, path in pages.items():
        watched.clear()
        answer = await browser.get(path)
        assert answer.status in (200, 303), (name, text_of(answer.text))
        costs[name] = Watched(statements=[*watched.statements])
    return costs


def is_within(cost: Watched, rows: int, blocks: int) -> bool:
    return cost.rows <= rows and cost.blocks <= blocks


def with_bounded_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search read one window, whatever the speed of the machine, and every page a sample of its own."""
    monkeypatch.setattr(search_windows, "BUDGET_S", 0.0)
    monkeypatch.setattr(services, "FACTS_S", 0.0)
    monkeypatch.setattr(sampler, "INTERVAL_S", 0.0)


@pytest.mark.timeout(240)
async def test_no_page_reads_more_rows_than_its_bound_among_many_payments(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_everything(database_url, MANY, events=20_000, lists=400)
    with_bounded_searches(monkeypatch)
    watched = watch(monkeypatch, explains=True)
    pages = await pages_of(database_url)
    async with serve_console(database_url, redis_url) as console:
        browser = await console.logged_in()
        costs = await costs_of(browser, watched, pages)
        searches = {name: path.format(endpoint=pages["endpoint"]) for name, path in SEARCHES.items()}
        found = await costs_of(browser, watched, searches)
    assert all(cost.rows for name, cost in costs.items() if name not in {"pending", "delayed", "payments of an hour"})
    too_many = {name: cost for name, cost in costs.items() if not is_within(cost, *LARGER.get(name, (ROWS, BLOCKS)))}
    assert not too_many, "\n".join(
        f"{name} {cost.rows} {cost.blocks} {cost.statements}" for name, cost in too_many.items()
    )
    assert {name: cost.rows for name, cost in found.items() if not 0 < cost.rows <= 4 * WINDOW + ROWS} == {}


async def test_a_screen_takes_as_many_statements_however_much_it_shows(
    new_database: Callable[[], str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payments, deliveries, endpoints, reviews, dead letters, keys, the audit table; workers and messages in Redis."""
    with_bounded_searches(monkeypatch)
    watched = watch(monkeypatch, explains=False)
    requests = count_redis(monkeypatch)
    counts: list[dict[str, tuple[int, int]]] = []
    for payments, events, lists, in_redis in ((1_600, 10, 0, 1), (20_000, 500, 400, 30)):
        url = new_database()
        fill_everything(url, payments, events=events, lists=lists)
        pages = await pages_of(url)
        counts.append({})
        async with serve_console(url, redis_url) as console:
            await fill_redis(console, redis_url, in_redis)
            browser = await console.logged_in()
            for path in pages.values():
                await browser.get(path)  # connections are made, scripts loaded
            for name, path in pages.items():
                watched.clear()
                requests.clear()
                assert (await browser.get(path)).status in (200, 303), name
                counts[-1][name] = (len(watched.statements), len(requests))
    few, many = counts
    assert few == many
    assert max(statements for statements, _ in many.values()) <= 12, many
    assert max(commands for _, commands in many.values()) <= 8, many


def count_redis(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list to which every round trip to Redis is added."""
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    async def counting(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        sent.append(command)
        await send(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
    return sent


async def fill_redis(console: Console, redis_url: str, count: int) -> None:
    """Announce so many processes, and leave as many entries pending and messages delayed."""
    one = console.services
    for number in range(count):
        await one.presence.announce(f"127.0.0.1:{number + 1}", role="worker", name=f"worker-{number}")
        await one.producer.publish(b"x" * 16, lane="low")
    async with connect(redis_url) as redis:
        await redis.xgroup_create(one.stream.lane_key("low"), one.settings.group, "0")
        await redis.xreadgroup(one.settings.group, "worker-0", {one.stream.lane_key("low"): ">"}, count=count)
        await redis.zadd(one.stream.delayed_key, {f"member-{number}": 5_000 + number for number in range(count)})

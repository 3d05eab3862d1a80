"""`okane webhooks` and `okane events` against a served API: what they print for people and for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from okane.api.contract import webhook_schemas
from okane.cli import app, webhook_output
from okane.cli.listen import take_endpoint
from okane.client import Client, Endpoint, NewEndpoint, NewPayment
from okane.errors import SetupError
from okane.payment import Status
from okane.store.webhook_events import WebhookEventStore
from tests.okane.api_requests import settle
from tests.okane.served_api import Api

Command = Callable[..., Awaitable[Result]]
URL = "https://example.com/hook"
NOTHING = "0198b2f0-0000-7000-8000-000000000000"


@pytest.fixture
def command(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `okane WORDS` beside an API that is in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", api.url])

    return run


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[WebhookEventStore]:
    store = WebhookEventStore(database_url)
    yield store
    await store.aclose()


async def answered(command: Command, *words: str) -> Any:
    """Run a command with --json; return what it prints."""
    result = await command(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.output)


async def text(command: Command, *words: str) -> str:
    result = await command(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def refused(command: Command, *words: str) -> str:
    """Run a command that fails; return its reason, as `main` prints it."""
    result = await command(*words)
    assert isinstance(result.exception, SetupError), (result.output, result.exception)
    return str(result.exception)


async def changed(api: Api, client: Client, log: WebhookEventStore, count: int) -> list[str]:
    """Settle payments of an account with an endpoint; return the ids of the events."""
    ids = []
    for number in range(count):
        payment = (await client.pay(NewPayment(amount=440 + number, idempotency_key=f"k-{number}"))).payment
        await settle(api, str(payment.id), Status.SUCCESS)
        ids.append(f"evt_{payment.id.hex}_2")
    await log.sequence()
    return ids


async def test_without_endpoints_the_list_says_how_to_add_one(command: Command) -> None:
    assert await text(command, "webhooks", "ls") == "no endpoints: add one with `okane webhooks add URL`\n"
    assert await answered(command, "webhooks", "ls") == {"endpoints": []}
    assert "okane webhooks add" in await refused(command, "webhooks", "test")


async def test_an_endpoint_is_added_listed_shown_and_deleted(command: Command) -> None:
    first, line = (await text(command, "webhooks", "add", URL, "--types", "payment.*")).splitlines()
    assert first.startswith("whsec_")
    assert URL in line
    [listed] = (await answered(command, "webhooks", "ls"))["endpoints"]
    assert (listed["url"], listed["types"], listed["status"], listed["backlog"]) == (URL, ["payment.*"], "enabled", 0)
    for word in (listed["id"], URL, "enabled", "payment.*"):
        assert word in await text(command, "webhooks", "ls")
        assert word in await text(command, "webhooks", "show")
    assert (await answered(command, "webhooks", "secret"))["secret"] == first
    assert f"deleted {listed['id']}" in await text(command, "webhooks", "rm", "--yes")
    assert (await answered(command, "webhooks", "ls"))["endpoints"] == []
    assert "endpoint_not_found" in await refused(command, "webhooks", "show", listed["id"])


async def test_an_endpoint_is_deleted_only_after_a_confirmation(command: Command) -> None:
    added = await answered(command, "webhooks", "add", URL)
    result = await command("webhooks", "rm")  # with nothing to read the answer from
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert added["id"] in result.stderr
    assert [one["id"] for one in (await answered(command, "webhooks", "ls"))["endpoints"]] == [added["id"]]


async def test_a_secret_is_rotated_and_an_endpoint_paused_and_resumed(command: Command) -> None:
    added = await answered(command, "webhooks", "add", URL, "--thin", "--max-in-flight", "2", "--description", "shop")
    assert (added["payload"], added["max_in_flight"], added["description"]) == ("thin", 2, "shop")
    rotated = await answered(command, "webhooks", "rotate", "--older-valid-for", "1h")
    assert rotated["secret"] != added["secret"]
    assert rotated["older_key_until"] is not None
    both = await answered(command, "webhooks", "secret")
    assert (both["secret"], both["older_secret"]) == (rotated["secret"], added["secret"])
    assert f": {added['secret']}" in await text(command, "webhooks", "secret")
    assert "also signs" not in await text(command, "webhooks", "rotate", added["id"], "--older-valid-for", "0")
    assert "also signs until" in await text(command, "webhooks", "rotate")
    assert (await answered(command, "webhooks", "disable"))["status"] == "disabled"
    assert "disabled" in await text(command, "webhooks", "ls")
    assert f"enabled {added['id']}" in await text(command, "webhooks", "enable", "--from-now")


async def test_with_two_endpoints_one_has_to_be_named(command: Command) -> None:
    one, _two = [(await answered(command, "webhooks", "add", URL))["id"] for _ in range(2)]
    assert "there are 2 endpoints" in await refused(command, "webhooks", "disable")
    assert (await answered(command, "webhooks", "disable", one))["status"] == "disabled"


async def test_an_operator_lists_the_endpoints_of_every_account_those_in_trouble_first(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert await text(command, "webhooks", "ls", "--every-account") == "no account has an endpoint\n"
    ids = [(await answered(command, "webhooks", "add", URL))["id"] for _ in range(3)]
    await answered(command, "webhooks", "disable", ids[1])
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE webhook_queues SET failing_since = now() - interval '2 h', last_error = 'HTTP 500', owner = 'd1',"
            " lease_until = now() + interval '1 min' WHERE endpoint_id = %s",
            (ids[2],),
        )
    listed = (await answered(command, "webhooks", "ls", "--every-account"))["endpoints"]
    assert [(one["id"], one["status"], one["owner"]) for one in listed] == [
        (ids[2], "enabled", "d1"),
        (ids[1], "disabled", None),
        (ids[0], "enabled", None),
    ]
    first = (await text(command, "webhooks", "ls", "--every-account", "--limit", "1")).splitlines()
    assert first == [
        f"{ids[2]}  failing for 2.0 h: HTTP 500  0 behind  d1",
        f"    account default  {URL}",
    ]


async def test_events_are_listed_page_by_page(
    command: Command, api: Api, client: Client, log: WebhookEventStore
) -> None:
    assert "no such events" in await text(command, "events")
    await answered(command, "webhooks", "add", URL)
    ids = await changed(api, client, log, 5)
    page = await answered(command, "events", "--limit", "2")
    assert ([one["id"] for one in page["events"]], page["has_more"]) == (ids[:2], True)
    assert f"more: okane events --after {page['after']}" in await text(command, "events", "--limit", "2")
    rest = await answered(command, "events", "--after", page["after"])
    assert ([one["id"] for one in rest["events"]], rest["has_more"]) == (ids[2:], False)
    lines = (await text(command, "events", "--after", page["after"])).splitlines()
    assert [line.split()[2:] for line in lines] == [
        ["payment.succeeded", ids[number], str(440 + number), "USD", f"k-{number}"] for number in (2, 3, 4)
    ]
    assert (await answered(command, "events", "--types", "payment.failed"))["events"] == []
    payment = page["events"][0]["data"]["payment"]["id"]
    assert [one["id"] for one in (await answered(command, "events", "--payment", payment))["events"]] == ids[:1]
    assert [one["id"] for one in (await answered(command, "events", "--since", "1h"))["events"]] == ids
    assert await answered(command, "events", ids[0]) == page["events"][0]


async def test_an_event_is_redelivered_and_a_time_recovered(
    command: Command, api: Api, client: Client, log: WebhookEventStore
) -> None:
    endpoint = (await answered(command, "webhooks", "add", URL))["id"]
    [event] = await changed(api, client, log, 1)
    assert "no deliveries" in await text(command, "webhooks", "deliveries", event)
    assert (await answered(command, "webhooks", "redeliver", event))["endpoint"] == endpoint
    [delivery] = (await answered(command, "webhooks", "deliveries", event))["deliveries"]
    assert (delivery["endpoint_id"], delivery["state"]) == (endpoint, "waiting")
    assert "waiting" in await text(command, "webhooks", "deliveries", event)
    [listed] = (await answered(command, "webhooks", "deliveries"))["deliveries"]
    assert (listed["event_id"], listed["type"], listed["state"]) == (event, "payment.succeeded", "waiting")
    assert event in await text(command, "webhooks", "deliveries", endpoint, "--state", "waiting")
    given_up = await text(command, "webhooks", "deliveries", endpoint, "--state", "given_up")
    assert given_up == "no deliveries that are given_up\n"
    assert "1 event since" in await text(command, "webhooks", "recover", "--since", "2h")
    recovered = await answered(
        command, "webhooks", "recover", endpoint, "--since", "2026-01-01T00:00:00Z", "--until", "1h", "--all"
    )
    assert (recovered["all"], recovered["events"]) == (True, 0)


async def test_a_test_that_is_not_delivered_ends_with_1(command: Command) -> None:
    await answered(command, "webhooks", "add", "https://127.0.0.1:1/hook")
    result = await command("webhooks", "test")
    assert result.exit_code == 1
    assert result.output.startswith("connect")


@pytest.mark.parametrize(
    ("last_error", "expected"),
    [
        ("status_5xx\nno database\n", "status_5xx (no database)"),
        ("timeout\n", "timeout"),
        ("status_4xx\n" + "no " * 99, "status_4xx (" + ("no " * 99)[:80] + "…)"),
        ("tls\n\x1b[31mred", "tls (\N{REPLACEMENT CHARACTER}[31mred)"),
        ("", ""),
    ],
)
def test_the_state_of_a_failing_endpoint_is_one_line(last_error: str, expected: str) -> None:
    document = dict(webhook_schemas.ENDPOINT, failing_since=datetime.now(UTC).isoformat(), last_error=last_error)
    said = webhook_output.state(Endpoint.of(document))
    assert said.startswith("failing for ")
    assert said.partition(": ")[2] == expected


async def test_a_moment_that_is_none_is_refused_with_both_forms(command: Command) -> None:
    result = await command("webhooks", "recover", "--since", "yesterday")
    assert result.exit_code == 2
    assert "neither a duration like 2h nor a time like 2027-01-31T12:00:00Z" in " ".join(result.output.split())


BAD: Sequence[tuple[list[str], str]] = [
    (["webhooks", "show", "7"], "is not an endpoint's id"),
    (["webhooks", "show", NOTHING], "endpoint_not_found"),
    (["webhooks", "deliveries", "7"], "is not an event's (evt_…) or an endpoint's id"),
    (["webhooks", "deliveries", "evt_7"], "is not an event's id"),
    (["webhooks", "deliveries", NOTHING], "endpoint_not_found"),
    (["webhooks", "deliveries", f"evt_{'0' * 32}_1"], "event_not_found"),
    (["webhooks", "add", "ftp://example.com"], "endpoint_url_refused"),
    (["webhooks", "add", "https://u:p@example.com/"], "endpoint_url_refused"),
    (["webhooks", "add", URL, "--types", "payment.payed"], "payment.succeeded"),
    (["events", "--after", "???"], "query_invalid"),
    (["events", "7"], "is not an event's id"),
]


async def test_bad_input_is_one_line(command: Command) -> None:
    for words, reason in BAD:
        said = await refused(command, *words)
        assert reason in said
        assert "\n" not in said
        assert "u:p@" not in said


async def test_listen_ends_when_its_endpoint_was_deleted(
    command: Command, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.cli.forwarding.WAIT_S", 1)
    listening = asyncio.ensure_future(command("listen", "--forward-to", "127.0.0.1:1"))
    async with asyncio.timeout(30):
        while not (found := await client.webhooks.endpoints()):
            await asyncio.sleep(0.01)
        await client.webhooks.delete(found[0].id)
        result = await listening
    assert "the endpoint was deleted" in str(result.exception)
    assert result.output.splitlines()[1].startswith("secret  whsec_")
    assert "to go on from here" in result.output


async def test_listen_takes_over_the_endpoint_of_an_earlier_run(client: Client) -> None:
    made = await take_endpoint(client)
    assert (made.endpoint.url, made.endpoint.types) == (None, ["*"])
    await client.webhooks.create(NewEndpoint(url=None, types=["*"], description="another reader"))
    again = await take_endpoint(client)
    assert (again.endpoint.id, again.secret) == (made.endpoint.id, made.secret)


@pytest.mark.parametrize(
    "words",
    [
        ["webhooks", "recover"],
        ["webhooks", "recover", "--since", "soon"],
        ["webhooks", "recover", "--since", "2026-01-01T00:00:00"],
        ["webhooks", "add", URL, "--types", "a,,b"],
        ["webhooks", "add", URL, "--max-in-flight", "0"],
        ["webhooks", "rotate", "--older-valid-for", "never"],
        ["events", "--since", "1h", "--after", "x"],
        ["events", "--limit", "0"],
        ["listen"],
        ["listen", "--forward-to", "ftp://x"],
        ["listen", "--forward-to", "localhost:3000", "--since", "1h", "--after", "x"],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, words).exit_code == 2


async def test_an_api_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("okane.cli.api_client.PATIENCE_S", 0.0)
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["webhooks", "ls", "--url", "http://127.0.0.1:1", "--key", "sk_test_x"]
    )
    assert isinstance(result.exception, SetupError)
    assert str(result.exception) == "the API at http://127.0.0.1:1 does not answer (connection refused): `okane doctor`"

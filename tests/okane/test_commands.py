"""The operator's commands against real servers: what they print for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import redis

from okane import __version__
from okane.cli.context import find_context
from okane.config import Settings
from okane.duration_text import format_duration
from okane.lanes import payments_stream
from okane.monitoring.doctor import durability
from okane.payment import Status
from okane.store import PaymentStore
from okane.store.server_facts import PostgresFacts
from streams import Consumer, Dead, Done, Message, Outcome, Producer, connect
from tests.forked_process import run_okane
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

Run = Callable[..., subprocess.CompletedProcess[str]]
ID = "0198b2f0-0000-7000-8000-000000000000"


@pytest.fixture
def stream_name() -> str:
    return f"test-{uuid4()}"


@pytest.fixture
def okane(database_url: str, redis_url: str, stream_name: str, tmp_path: Path) -> Run:
    """Run `okane ARGUMENTS` as a user would, with these servers in the environment."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OKANE_STREAM": stream_name}
        return run_okane(*arguments, env={**os.environ, **servers, "COLUMNS": "200", **env})

    return run


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


async def buried(store: PaymentStore, redis_url: str, stream_name: str, count: int) -> list[UUID]:
    """Payments that have spent their retries, with their dead letters."""
    stream = payments_stream(stream_name)
    ids = []
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        for number in range(count):
            payment = (await accept_one(store, new(f"k-{number}"))).payment
            claim = await claimed(store, payment.id)
            await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason="HTTP 503"))
            await producer.publish(payment.id.bytes, lane="low")
            ids.append(payment.id)

        async def give_up(_message: Message) -> Outcome:
            return Dead("HTTP 503")

        await Consumer(redis, stream, group="workers", name="w", handler=give_up).run_once()
        await producer.aclose()
    return ids


def test_help_names_every_command(okane: Run) -> None:
    text = okane("--help").stdout
    for command in ("up", "api", "worker", "provider", "migrate", "status", "top", "load", "dead", "doctor"):
        assert f" {command} " in text


def test_the_version_is_printed(okane: Run) -> None:
    done = okane("--version")
    assert (done.returncode, done.stdout) == (0, f"okane {__version__}\n")


@pytest.mark.parametrize(
    "command",
    [
        *("up", "api", "worker", "provider", "migrate", "status", "top", "load", "doctor"),
        *("webhooks", "webhooks recover", "events", "listen"),
    ],
)
def test_every_command_has_help(okane: Run, command: str) -> None:
    done = okane(*command.split(), "--help")
    assert done.returncode == 0
    assert f"okane {command}" in done.stdout


def test_status_of_an_empty_system(okane: Run) -> None:
    done = okane("status")
    assert done.returncode == 0
    assert "no consumers: start a worker" in done.stdout
    assert "no payments yet" in done.stdout
    assert "oldest due -    dead letters 0" in done.stdout


async def test_status_shows_the_queue_and_the_payments(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    await buried(store, redis_url, stream_name, 2)
    await accept_one(store, new("waiting"))
    seen = json.loads(okane("status", "--json").stdout)
    assert seen["payments"]["failed_final"] == 2
    assert seen["payments"]["pending"] == 1
    assert (seen["dead"], seen["delayed"], seen["trouble"]) == (2, 0, [])
    assert [lane["lane"] for lane in seen["lanes"]] == ["critical", "default", "low"]
    assert [one["name"] for one in seen["consumers"]] == ["w"]
    assert seen["oldest_due_s"] > 0
    text = okane("status").stdout
    assert "dead letters 2" in text
    assert "failed_final" in text


def test_status_says_what_is_away(okane: Run, free_port: int) -> None:
    done = okane("status", REDIS_URL=f"redis://127.0.0.1:{free_port}")
    assert done.returncode == 0
    assert "Redis:" in done.stdout
    assert "no payments yet" in done.stdout


async def test_dead_letters_are_listed_page_by_page(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    assert "no dead letters" in okane("dead", "ls").stdout
    ids = await buried(store, redis_url, stream_name, 3)
    first = json.loads(okane("dead", "ls", "--limit", "2", "--json").stdout)
    assert (len(first["letters"]), first["total"]) == (2, 3)
    second = json.loads(okane("dead", "ls", "--limit", "2", "--before", first["before"], "--json").stdout)
    assert (len(second["letters"]), second["before"]) == (1, None)
    listed = [letter["payment_id"] for letter in first["letters"] + second["letters"]]
    assert listed == [str(payment_id) for payment_id in reversed(ids)]
    text = okane("dead", "ls").stdout
    assert "HTTP 503" in text
    assert str(ids[0]) in text


async def test_the_next_page_is_there_when_the_last_of_this_one_has_left_the_list(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    ids = await buried(store, redis_url, stream_name, 3)
    first = json.loads(okane("dead", "ls", "--limit", "1", "--json").stdout)
    okane("dead", "purge", str(ids[2]))
    second = json.loads(okane("dead", "ls", "--limit", "1", "--before", first["before"], "--json").stdout)
    assert [letter["payment_id"] for letter in second["letters"]] == [str(ids[1])]
    okane("dead", "replay", str(ids[1]))
    third = json.loads(okane("dead", "ls", "--limit", "1", "--before", second["before"], "--json").stdout)
    assert [letter["payment_id"] for letter in third["letters"]] == [str(ids[0])]


@pytest.mark.parametrize("place", [ID, "", f"yesterday,{ID}", f"2026-01-01T00:00:00,{ID}", "2026-01-01T00:00:00Z,1"])
def test_what_names_no_place_in_the_list_is_refused(okane: Run, place: str) -> None:
    done = okane("dead", "ls", "--before", place)
    assert (done.returncode, "is not a position in the list" in done.stderr) == (2, True)


async def test_a_dead_letter_shows_its_payments_timeline(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    await buried(store, redis_url, stream_name, 1)
    letter = json.loads(okane("dead", "ls", "--json").stdout)["letters"][0]
    shown = json.loads(okane("dead", "show", letter["payment_id"], "--json").stdout)
    assert [event["event"] for event in shown["events"]] == ["accepted", "claimed", "spent"]
    assert shown["provider_key"] == (await store.get(UUID(letter["payment_id"]), account_id="default")).provider_key
    assert "spent" in okane("dead", "show", letter["payment_id"]).stdout
    missing = okane("dead", "show", str(uuid4()))
    assert (missing.returncode, "no dead letter" in missing.stderr) == (2, True)
    nonsense = okane("dead", "show", "nonsense")
    assert (nonsense.returncode, "is not a payment's id" in nonsense.stderr) == (2, True)


async def test_the_list_outlives_redis(okane: Run, store: PaymentStore, redis_url: str, stream_name: str) -> None:
    await buried(store, redis_url, stream_name, 2)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(payments_stream(stream_name).dead_key)
    assert json.loads(okane("dead", "ls", "--json").stdout)["total"] == 2
    assert json.loads(okane("dead", "replay", "--all", "--json").stdout)["retried"] == 2


async def test_a_payment_that_needs_a_review_is_listed_and_not_replayed(okane: Run, store: PaymentStore) -> None:
    payment = (await accept_one(store, new())).payment
    assert await store.bury(payment.id, reason="poison")
    assert json.loads(okane("dead", "ls", "--json").stdout)["letters"][0]["status"] == "needs_review"
    done = okane("dead", "replay", str(payment.id))
    assert "retried 0, 1 kept: they need a review" in done.stdout


async def test_replay_retries_the_payment_and_drops_the_letter(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    ids = await buried(store, redis_url, stream_name, 3)
    assert json.loads(okane("dead", "replay", "--all", "--dry-run", "--json").stdout)["retried"] == 3
    done = json.loads(okane("dead", "replay", "--all", "--limit", "2", "--json").stdout)
    assert done == {"retried": 2, "kept": 0, "dry_run": False}
    statuses = [(await store.get(payment_id, account_id="default")).status for payment_id in ids]
    assert statuses == [Status.PENDING, Status.PENDING, Status.FAILED_FINAL]  # the oldest first
    seen = json.loads(okane("status", "--json").stdout)
    assert seen["dead"] == 1
    assert sum(lane["length"] for lane in seen["lanes"]) == 2
    with redis.Redis.from_url(redis_url) as client:  # the notes are struck off, too
        assert client.xlen(payments_stream(stream_name).dead_key) == 1
    assert okane("dead", "replay").returncode == 2  # which?


async def test_purge_asks_first_and_leaves_the_payments(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    ids = await buried(store, redis_url, stream_name, 2)
    assert okane("dead", "purge", "--all").returncode != 0  # not confirmed
    assert json.loads(okane("dead", "purge", "--older-than-h", "1", "--yes", "--json").stdout) == {"purged": 0}
    assert json.loads(okane("dead", "purge", "--all", "--yes", "--json").stdout) == {"purged": 2}
    assert (await store.get(ids[0], account_id="default")).status is Status.FAILED_FINAL


def test_migrate_says_what_it_did(okane: Run) -> None:
    assert "already there" in okane("migrate").stdout
    assert "index on metadata: built" in okane("migrate", "--metadata-index").stdout
    assert "index on metadata: dropped" in okane("migrate", "--no-metadata-index").stdout


def test_keys_are_made_listed_rotated_and_revoked(okane: Run) -> None:
    assert "no keys" in okane("keys", "ls").stdout
    made = json.loads(
        okane("keys", "create", "--account", "acme", "--scopes", "read,operate", "--expires", "720h", "--json").stdout
    )
    assert made["secret"].startswith(f"{made['key']}_")
    assert (made["account_id"], made["mode"], made["scopes"]) == ("acme", "test", ["operate", "read"])
    live = okane("keys", "create", "--name", "shop", "--rate-limit", "100/s burst 500", OKANE_MODE="live").stdout
    assert live.startswith("sk_live_")
    assert "it is not shown again" in live
    listed = json.loads(okane("keys", "ls", "--json").stdout)["keys"]
    assert [(key["account_id"], key["name"], key["rate_limit"]) for key in listed] == [
        ("acme", "", None),
        ("default", "shop", "100/s burst 500"),
    ]
    assert made["secret"] not in okane("keys", "ls").stdout

    rotated = json.loads(okane("keys", "rotate", made["key"], "--overlap", "1h", "--json").stdout)
    assert rotated["key"] != made["key"]
    assert f"the old one, {rotated['key']}, expires in" in okane("keys", "rotate", rotated["secret"]).stdout
    revoked = json.loads(okane("keys", "revoke", made["secret"], "--json").stdout)
    assert revoked["revoked_at"] is not None
    names = {key["key"] for key in json.loads(okane("keys", "ls", "--account", "acme", "--json").stdout)["keys"]}
    assert made["key"] not in names
    everything = json.loads(okane("keys", "ls", "--all", "--json").stdout)["keys"]
    assert made["key"] in {key["key"] for key in everything}


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--scopes", "read,everything"),
        ("create", "--account", "no spaces"),
        ("create", "--rate-limit", "fast"),
        ("create", "--expires", "soon"),
        ("revoke", "sk_test_nobodysnamee"),
        ("rotate", "sk_test_nobodysnamee"),
    ],
)
def test_a_key_that_cannot_be_is_one_line(okane: Run, arguments: Sequence[str]) -> None:
    done = okane("keys", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


BRACKETS = "[/x] :smile: [red]"


async def done(_message: Message) -> Outcome:
    return Done()


async def test_texts_that_look_like_markup_are_printed_as_they_are(
    okane: Run, store: PaymentStore, redis_url: str, stream_name: str
) -> None:
    okane("keys", "create", "--name", BRACKETS)
    assert BRACKETS in okane("keys", "ls").stdout
    async with connect(redis_url) as redis:
        await Consumer(redis, payments_stream(stream_name), group="workers", name=BRACKETS, handler=done).run_once()
    assert BRACKETS in okane("status").stdout
    payment = (await accept_one(store, new("brackets"))).payment
    claim = await claimed(store, payment.id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason=BRACKETS))
    assert BRACKETS in okane("dead", "ls").stdout
    assert okane("dead", "show", str(payment.id)).stdout.count(BRACKETS) == 2


def test_doctor_finds_what_is_wrong_and_says_what_to_do(okane: Run, free_port: int) -> None:
    done = okane("doctor", PORT=str(free_port), OKANE_PROVIDER_BASE_URL=f"http://127.0.0.1:{free_port}")
    assert done.returncode == 1
    for line in ("postgres schema", "redis eviction", "workers", "-> start one: okane worker", "start it: okane api"):
        assert line in done.stdout
    found = json.loads(okane("doctor", "--json", PORT=str(free_port)).stdout)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert (found["healthy"], states["postgres schema"], states["api"]) == (False, "ok", "fail")


def test_doctor_checks_the_providers_file(okane: Run, free_port: int, tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(
        '[providers.stripe]\nkind = "stripe"\napi_key = "sk_test_canary"\nwebhook_secrets = ["file:absent"]\n'
        f'base_url = "http://127.0.0.1:{free_port}"\n'
    )
    env = {"PORT": str(free_port), "OKANE_PROVIDERS_FILE": str(path)}
    checks = {check["name"]: check for check in json.loads(okane("doctor", "--json", **env).stdout)["checks"]}
    assert checks["providers file"] == checks["providers file"] | {
        "state": "ok",
        "found": f"stripe in mode test, from {path}",
    }
    assert checks["secrets of charges"] == checks["secrets of charges"] | {"state": "ok", "found": "stripe"}
    assert checks["secrets of notices"]["state"] == "fail"
    assert "providers.stripe.webhook_secrets[0]" in checks["secrets of notices"]["found"]
    assert checks["provider stripe"]["state"] == "fail"  # nothing listens there
    assert checks["rate of stripe"]["found"] == "25/s, all workers together"
    done = okane("doctor", **env, OKANE_MODE="live")
    assert (done.returncode, "canary" in done.stdout + done.stderr) == (1, False)
    assert "providers.stripe.api_key must be file:PATH or env:NAME" in done.stdout


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "ok"),
        ({"fsync": False}, "fail"),
        ({"full_page_writes": False}, "fail"),
        ({"synchronous_commit": "off"}, "fail"),
        ({"synchronous_commit": "local"}, "ok"),
        ({"synchronous_commit": "local", "synchronous_standbys": "one"}, "warn"),
        ({"synchronous_commit": "remote_write", "synchronous_standbys": "one"}, "warn"),
        ({"synchronous_commit": "remote_apply", "synchronous_standbys": "one"}, "ok"),
    ],
)
def test_doctor_judges_what_a_commit_means(changed: dict[str, Any], state: str) -> None:
    facts = PostgresFacts(
        version="18.0",
        major=18,
        standby=False,
        fsync=True,
        full_page_writes=True,
        synchronous_commit="on",
        synchronous_standbys="",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        schema_version=1,
    )
    check = durability(replace(facts, **changed))
    assert (check.state, bool(check.advice)) == (state, state != "ok")


def test_a_wrong_setting_is_one_line(okane: Run) -> None:
    done = okane("status", LOG_LEVEL="loud")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "LOG_LEVEL" in done.stderr.upper()


def test_without_addresses_the_command_says_how_to_get_some(tmp_path: Path, okane: Run) -> None:
    done = okane("status", "--data", str(tmp_path), DATABASE_URL="", REDIS_URL="")
    assert (done.returncode, "start `okane up`" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://127.0.0.1:8080"),
        ("[::1]", "http://[::1]:8080"),
        ("10.0.0.7,::1", "http://10.0.0.7:8080"),
    ],
)
def test_the_api_is_asked_where_it_listens(tmp_path: Path, host: str, url: str) -> None:
    assert find_context(tmp_path, Settings(_env_file=None, host=host, port=8080)).api_url == url


def test_a_worker_refuses_a_server_that_evicts(
    okane: Run, private_redis: object, database_url: str, free_port: int
) -> None:
    url = private_redis.url  # type: ignore[attr-defined]  # a RedisServer
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    done = okane("worker", REDIS_URL=url, PROVIDER_BASE_URL=f"http://127.0.0.1:{free_port}")
    assert done.returncode == 2
    assert "noeviction" in done.stderr


def test_a_taken_port_is_one_line(okane: Run, redis_server: object) -> None:
    taken = str(urlsplit(redis_server.url).port)  # type: ignore[attr-defined]  # a RedisServer
    done = okane("api", "--port", taken)
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr


def test_durations_read_well() -> None:
    spans = [0.04, 9.96, 45, 119, 150, 9_000, 400_000]
    assert [format_duration(timedelta(seconds=span)) for span in spans] == [
        "0.0 s",
        "10.0 s",
        "45 s",
        "119 s",
        "2 min",
        "2.5 h",
        "5 d",
    ]

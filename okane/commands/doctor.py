"""`okane doctor`: is everything as it has to be, and if not, what to do about it."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape

from okane.addresses import shown
from okane.commands.context import Context
from okane.errors import SetupError, StoreUnavailable
from okane.lanes import payments_stream
from okane.redis.rights import missing_rights
from okane.store import schema
from okane.store.facts import OLDEST_MAJOR, PostgresFacts, postgres_facts
from okane.store.pooler import PoolerRefused
from streams import Inspector, ServerFacts, StreamError, StreamRefused, connect, server_facts, user_of

SKEW = timedelta(seconds=2)
SILENT = timedelta(seconds=15)  # a live worker reads every second

State = Literal["ok", "warn", "fail"]
_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `advice` says what to do where `state` is not ok."""

    name: str
    state: State
    found: str
    advice: str = ""


async def run(where: Context, *, as_json: bool) -> bool:
    """Check everything and print it. False if anything failed."""
    console = Console(highlight=False, emoji=False)
    parts: list[Callable[[Context], Awaitable[list[Check]]]] = [_postgres, _redis, _provider, _api]
    checks = [check for part in await asyncio.gather(*(part(where) for part in parts)) for check in part]
    healthy = all(check.state != "fail" for check in checks)
    if as_json:
        print(json.dumps({"healthy": healthy, "checks": [asdict(check) for check in checks]}))  # noqa: T201 - the answer
        return healthy
    console.print(f"addresses from {escape(where.source)}")
    for check in checks:
        found = escape(check.found)
        console.print(f"[{_STYLE[check.state]}]{check.state:<4}[/] {check.name:<20} {found}", soft_wrap=True)
        if check.advice:
            console.print(f"     {'':<20} -> {escape(check.advice)}", soft_wrap=True)
    console.print("healthy" if healthy else "something has to be done: see the lines marked fail")
    return healthy


async def _postgres(where: Context) -> list[Check]:
    try:
        asked = datetime.now(UTC)
        facts = await postgres_facts(where.database_url)
    except PoolerRefused as error:
        return [Check("postgres pooler", "fail", str(error), "payments are neither accepted nor settled behind it")]
    except (StoreUnavailable, SetupError) as error:
        return [Check("postgres", "fail", str(error), "start it, or correct DATABASE_URL")]
    wanted = f"version {schema.VERSION}"
    return [
        _that(
            "postgres version",
            facts.major >= OLDEST_MAJOR,
            facts.version,
            f"upgrade to Postgres {OLDEST_MAJOR} or newer",
        ),
        _that(
            "postgres role",
            not facts.standby,
            "standby" if facts.standby else "primary",
            "point DATABASE_URL at the primary",
        ),
        _that(
            "postgres schema",
            facts.schema_version == schema.VERSION,
            "none" if facts.schema_version is None else f"version {facts.schema_version}",
            f"run `okane migrate` (this okane needs {wanted})"
            if (facts.schema_version or 0) < schema.VERSION
            else f"upgrade okane (it knows {wanted})",
        ),
        Check("postgres pooler", "ok", "in session mode" if facts.pooled else "none in between"),
        durability(facts),
        _clock("postgres clock", facts.now - asked),
    ]


def durability(facts: PostgresFacts) -> Check:
    """Whether a commit of this server is still there after a crash, and after a failover."""
    settings = {"fsync": facts.fsync, "full_page_writes": facts.full_page_writes}
    found = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in settings.items())
    found += f", synchronous_commit {facts.synchronous_commit}"
    if not all(settings.values()) or facts.synchronous_commit == "off":
        advice = "turn all of them on: an accepted payment must survive a power cut"
        return Check("postgres durability", "fail", found, advice)
    if facts.synchronous_standbys and facts.synchronous_commit in ("local", "remote_write"):
        advice = "set synchronous_commit to on: the standby that is to take over may lack what was acknowledged"
        return Check("postgres durability", "warn", found, advice)
    return Check("postgres durability", "ok", found)


async def _redis(where: Context) -> list[Check]:
    stream, group = payments_stream(where.settings.stream), where.settings.group
    checks: list[Check] = []
    try:
        async with connect(where.redis_url) as redis:
            missing = await missing_rights(redis, stream, group=group, consumes=True, limits_rates=True)
            if missing is not None:
                advice = (
                    f"a worker needs all of them, an API fewer: docs/operations.md, Rights in Redis. {missing.grant}"
                )
                checks.append(Check("redis rights", "warn", f"no right to {missing.lacks} ({missing.said})", advice))
            asked = datetime.now(UTC)
            try:
                checks += _redis_server(await server_facts(redis), asked)
            except StreamRefused as error:
                advice = f"ACL SETUSER {user_of(redis)} +info, or OKANE_CHECK_EVICTION=false if it is noeviction"
                state: State = "fail" if where.settings.check_eviction else "warn"
                checks.append(Check("redis eviction", state, f"not known: {error}", advice))
            stats = await Inspector(redis, stream, group=group).stats()
    except (StreamError, SetupError) as error:
        advice = "start it, or correct REDIS_URL; payments are accepted meanwhile"
        return [*checks, Check("redis", "fail", str(error), advice)]
    live = {each.name for each in stats.consumers if each.idle_ms < SILENT / timedelta(milliseconds=1)}
    if live:
        return [*checks, Check("workers", "ok", ", ".join(sorted(live)))]
    return [*checks, Check("workers", "fail", "none reads the stream", "start one: okane worker")]


def _redis_server(facts: ServerFacts, asked: datetime) -> list[Check]:
    return [
        _that(
            "redis version", facts.supported, f"{facts.kind} {facts.version}", "upgrade: Redis >= 6.2 or Valkey >= 7.2"
        ),
        _that("redis role", facts.role == "master", facts.role, "point REDIS_URL at the primary"),
        _that(
            "redis eviction",
            facts.noeviction,
            f"maxmemory-policy {facts.maxmemory_policy}",
            "set maxmemory-policy noeviction: anything else deletes the queue when memory is full",
        ),
        Check("redis persistence", "ok", "appendonly yes")
        if facts.appendonly
        else Check(
            "redis persistence",
            "warn",
            "appendonly no",
            "set appendonly yes: without it a restart leaves every wake-up to the sweep (nothing is lost, it takes longer)",
        ),
        _clock("redis clock", facts.now - asked),
    ]


async def _provider(where: Context) -> list[Check]:
    url = where.provider_base_url
    if url is None:
        return [Check("provider", "fail", "not known", "set PROVIDER_BASE_URL, or run `okane up`")]
    parts, seen = urlsplit(url), shown(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        return [
            Check(
                "provider", "fail", f"{seen}: {str(error) or 'no connection in time'}", "payments wait and are retried"
            )
        ]
    return [Check("provider", "ok", seen)]


async def _api(where: Context) -> list[Check]:
    url = f"{where.api_url}/v1/health"
    try:
        await asyncio.to_thread(_get, url)
    except urllib.error.HTTPError as error:
        advice = f"something else has the port: stop it, or give the API another one (PORT, now {where.settings.port})"
        return [Check("api", "fail", f"{url} answers {error.code}", advice)]
    except (OSError, http.client.HTTPException) as error:
        return [Check("api", "fail", f"{url}: {getattr(error, 'reason', error)}", "start it: okane api")]
    return [Check("api", "ok", where.api_url)]


def _get(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        response.read()


def _that(name: str, fine: bool, found: str, advice: str) -> Check:
    return Check(name, "ok", found) if fine else Check(name, "fail", found, advice)


def _clock(name: str, skew: timedelta) -> Check:
    seconds = skew.total_seconds()
    found = f"{abs(seconds):.1f} s {'ahead of' if seconds >= 0 else 'behind'} this machine's"
    if abs(skew) <= SKEW:
        return Check(name, "ok", found)
    return Check(name, "warn", found, "set the clocks by NTP; until then payments of this machine go through the sweep")

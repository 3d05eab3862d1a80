"""The checks of `okane doctor`: servers, providers, webhooks, operations and processes, each with what to do about it."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from okane.addresses import shown
from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.lanes import operations_stream, payments_stream
from okane.monitoring.checked_system import CheckedSystem
from okane.monitoring.cluster_checks import cluster_checks
from okane.monitoring.findings import Check
from okane.monitoring.host_checks import host_checks
from okane.monitoring.operation_checks import operation_checks, reading_consumers
from okane.monitoring.partition_checks import check_partitions
from okane.monitoring.webhook_checks import webhook_checks
from okane.providers.config import load_providers
from okane.providers.registry import base_urls, load_charge_secrets, load_notice_secrets
from okane.redis.presence import Presence
from okane.redis.rights import missing_rights
from okane.store import schema
from okane.store.pooler import PoolerRefused
from okane.store.providers import ProviderState, ProviderStore
from okane.store.server_facts import OLDEST_MAJOR, PostgresFacts, read_host_roles, read_postgres_facts
from okane.timestamp_text import format_time
from streams import (
    Inspector,
    ServerFacts,
    StreamError,
    StreamRefused,
    cluster_facts,
    connect,
    server_facts,
    user_of,
)
from streams.connection import RedisClient

SKEW = timedelta(seconds=2)


async def diagnose(system: CheckedSystem) -> Sequence[Check]:
    """Check everything, side by side. Takes some seconds at most, also where a server is away."""
    parts: list[Callable[[CheckedSystem], Awaitable[list[Check]]]] = [
        _postgres,
        check_partitions,
        _redis,
        _providers,
        _switches,
        webhook_checks,
        operation_checks,
        _api,
    ]
    return [check for part in await asyncio.gather(*(part(system) for part in parts)) for check in part]


async def _postgres(system: CheckedSystem) -> list[Check]:
    try:
        sent_at = datetime.now(UTC)
        facts = await read_postgres_facts(system.database_url, tries_sessions=True)
    except PoolerRefused as error:
        return [Check("postgres pooler", "fail", str(error), "payments are neither accepted nor settled behind it")]
    except (StoreUnavailable, SetupError) as error:
        return [Check("postgres", "fail", str(error), "start Postgres, or correct DATABASE_URL")]
    required = f"version {schema.VERSION}"
    return [
        _check(
            "postgres version",
            facts.major >= OLDEST_MAJOR,
            facts.version,
            f"upgrade to Postgres {OLDEST_MAJOR} or newer",
        ),
        _check(
            "postgres role",
            not facts.standby,
            "standby" if facts.standby else "primary",
            "point DATABASE_URL at the primary",
        ),
        _check(
            "postgres schema",
            facts.schema_version == schema.VERSION,
            "none" if facts.schema_version is None else f"version {facts.schema_version}",
            f"run `okane migrate` (this okane needs {required})"
            if (facts.schema_version or 0) < schema.VERSION
            else f"upgrade okane (it supports {required})",
        ),
        Check("postgres pooler", "ok", "in session mode" if facts.pooled else "none in between"),
        durability(facts),
        *host_checks(await read_host_roles(system.database_url)),
        _clock("postgres clock", facts.now - sent_at),
    ]


def durability(facts: PostgresFacts) -> Check:
    """Check that a commit of this server survives a crash and a failover."""
    settings = {"fsync": facts.fsync, "full_page_writes": facts.full_page_writes}
    found = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in settings.items())
    found += f", synchronous_commit {facts.synchronous_commit}"
    if not all(settings.values()) or facts.synchronous_commit == "off":
        advice = "turn all of these on: an accepted payment must survive a power cut"
        return Check("postgres durability", "fail", found, advice)
    if facts.synchronous_standbys and facts.synchronous_commit in ("local", "remote_write"):
        advice = "set synchronous_commit to on: after a failover the standby may lack acknowledged payments"
        return Check("postgres durability", "warn", found, advice)
    return Check("postgres durability", "ok", found)


async def _redis(system: CheckedSystem) -> list[Check]:
    stream, group = payments_stream(system.settings.stream), system.settings.group
    checks: list[Check] = []
    try:
        async with connect(system.redis_url) as redis:
            checks += await _redis_rights(redis, system)
            try:
                checks += await _redis_servers(redis, system)
            except StreamRefused as error:
                checks.append(_unknown_eviction(redis, system.settings, str(error)))
            stats = await Inspector(redis, stream, group=group).stats()
    except (StreamError, SetupError) as error:
        advice = "start Redis, or correct REDIS_URL; payments are accepted meanwhile"
        return [*checks, Check("redis", "fail", str(error), advice)]
    if live := reading_consumers(stats):
        return [*checks, Check("workers", "ok", ", ".join(sorted(live)))]
    advice = "start one: okane worker; one that can use no provider reads nothing either: okane providers ls"
    return [*checks, Check("workers", "fail", "no worker reads the stream", advice)]


async def _redis_rights(redis: RedisClient, system: CheckedSystem) -> list[Check]:
    """Return a warning for each stream family that the user has not all rights to."""
    settings, checks = system.settings, list[Check]()
    here = system.api_url is not None  # else the user is this process's own, and workers have another
    for stream in (payments_stream(settings.stream), operations_stream(settings.operations_stream_name)):
        missing = await missing_rights(
            redis, stream, group=settings.group, consumes=here, limits_rates=True, inspects=not here
        )
        if missing is not None:
            needs = "a worker needs all of them, an API fewer" if here else "this process needs them"
            advice = f"{needs}: docs/operations.md, Rights in Redis. {missing.grant}"
            checks.append(Check("redis rights", "warn", f"no right to {missing.lacks} ({missing.error})", advice))
    return checks


async def _redis_servers(redis: RedisClient, system: CheckedSystem) -> list[Check]:
    """Return the findings about the server. Of a cluster: about all of it, and the faults of single nodes."""
    settings = system.settings
    streams = payments_stream(settings.stream), operations_stream(settings.operations_stream_name)
    facts = await cluster_facts(redis, streams)
    if facts is None:
        return _redis_server(await server_facts(redis))
    checks = cluster_checks(facts)
    for node in facts.nodes:
        if node.refused and node.slots:
            checks.append(_unknown_eviction(redis, settings, f"{node.address}: {node.error}"))
        for one in _redis_server(node.server) if node.server is not None else ():
            if one.state != "ok" and one.name != "redis role":  # replicas belong to it
                checks.append(replace(one, found=f"{node.address}: {one.found}"))
    return checks


def _unknown_eviction(redis: RedisClient, settings: Settings, error: str) -> Check:
    advice = f"ACL SETUSER {user_of(redis)} +info, or OKANE_CHECK_EVICTION=false if it is noeviction"
    return Check("redis eviction", "fail" if settings.check_eviction else "warn", f"unknown: {error}", advice)


def _redis_server(facts: ServerFacts) -> list[Check]:
    return [
        _check(
            "redis version", facts.supported, f"{facts.kind} {facts.version}", "upgrade: Redis >= 6.2 or Valkey >= 7.2"
        ),
        _check("redis role", facts.role == "master", facts.role, "point REDIS_URL at the primary"),
        _check(
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
            "set appendonly yes: without it the sweep repairs every wake-up after a restart (slower, no loss)",
        ),
        _clock("redis clock", facts.now - facts.sent_at),
    ]


async def _providers(system: CheckedSystem) -> list[Check]:
    if system.settings.providers_file is not None:
        return await _providers_of_file(system.settings, here=system.api_url is not None)
    url = system.provider_base_url
    if url is None:
        advice = "set PROVIDER_BASE_URL or OKANE_PROVIDERS_FILE, or run `okane up`"
        return [Check("provider", "fail", "no address", advice)]
    return [await _reached("provider", url, here=system.api_url is not None)]


async def _providers_of_file(settings: Settings, *, here: bool) -> list[Check]:
    """Check the file, the secrets of both kinds of process if they run here, and the way to each gateway."""
    checks = []
    try:
        config = load_providers(settings)
        kinds = (("charges", load_charge_secrets), ("notices", load_notice_secrets))
        for what, load in kinds if here else ():
            try:
                names = sorted({name.partition(".")[0] for name in load(config)})
            except SetupError as error:
                # Each kind of process loads its own secrets, and this user may not read those of both.
                checks.append(
                    Check(f"secrets of {what}", "fail", str(error), "correct it, or run this as okane's user")
                )
            else:
                checks.append(Check(f"secrets of {what}", "ok", ", ".join(names) or "none is needed"))
        urls = base_urls(config)
    except SetupError as error:
        return [*checks, Check("providers file", "fail", str(error), "no process starts with it: docs/operations.md")]
    found = f"{', '.join(config.default)} in mode {config.mode}, from {config.path}"
    reached = await asyncio.gather(*(_reached(f"provider {name}", url, here=here) for name, url in urls.items()))
    rates = [Check(f"rate of {name}", "ok", f"{rate}, all workers together") for name, rate in config.rates.items()]
    return [Check("providers file", "ok", found), *checks, *reached, *rates]


async def _switches(system: CheckedSystem) -> list[Check]:
    """Check that no provider is switched off, or behind an open circuit breaker."""
    if system.database is None:
        return []
    store = ProviderStore(system.database)
    try:
        found = await store.read_all()
    except StoreUnavailable:  # no Postgres or no schema, which has its own line
        return []
    finally:
        await store.aclose()
    return [check for one in found if (check := switch(one)) is not None]


def switch(one: ProviderState) -> Check | None:
    """Check one provider's row; None if nothing is wrong."""
    if one.mode != "on":
        doing = "draining: no new charge" if one.mode == "drain" else "off: no call"
        since = "" if one.changed_at is None else f" since {format_time(one.changed_at)}"
        advice = f"okane providers enable {one.name} --reason …"
        return Check(f"switch of {one.name}", "warn", f"{doing}{since} ({one.changed_by}: {one.reason})", advice)
    if one.open_s > 0:
        found = f"the circuit breaker is open, for another {one.open_s:.0f} s"
        advice = "the provider is away or refuses our key; payments wait: okane providers ls"
        return Check(f"circuit of {one.name}", "warn", found, advice)
    return None


async def _reached(name: str, url: str, *, here: bool) -> Check:
    """Check the way to a gateway. `here`: workers run on this machine, and have the same way."""
    parts, seen = urlsplit(url), shown(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        found = f"{seen}: {str(error) or 'no connection in time'}"
        if not here:
            advice = "not reached from this process, which never calls it; circuits of the workers: okane providers ls"
            return Check(name, "warn", found, advice)
        return Check(name, "fail", found, "payments are retried meanwhile")
    return Check(name, "ok", seen)


async def _api(system: CheckedSystem) -> list[Check]:
    if system.api_url is None:
        return await _listed_apis(system)
    url = f"{system.api_url}/v1/health"
    try:
        await asyncio.to_thread(_get, url)
    except urllib.error.HTTPError as error:
        advice = f"something else has the port: stop it, or give the API another one (PORT, now {system.settings.port})"
        return [Check("api", "fail", f"{url} answers {error.code}", advice)]
    except (OSError, http.client.HTTPException) as error:
        return [Check("api", "fail", f"{url}: {getattr(error, 'reason', error)}", "start it: okane api")]
    return [Check("api", "ok", system.api_url)]


async def _listed_apis(system: CheckedSystem) -> list[Check]:
    """Check the APIs on the list of processes, each at its metrics port, which no client can keep busy."""
    try:
        async with connect(system.redis_url) as redis:
            listed = await Presence(redis, payments_stream(system.settings.stream)).processes()
    except (StreamError, SetupError):  # no Redis, which has its own line
        return []
    addresses = [one.address for one in listed if one.role == "api" and one.alive]
    if not addresses:
        return [Check("api", "fail", "none is on the list of processes", "start it: okane api")]
    answers = await asyncio.gather(
        *(asyncio.to_thread(_get, f"http://{address}/healthz") for address in addresses), return_exceptions=True
    )
    checks = []
    for address, answer in zip(addresses, answers, strict=True):
        if answer is None:
            checks.append(Check("api", "ok", f"its metrics are at {address}"))
            continue
        if not isinstance(answer, OSError | http.client.HTTPException):
            raise answer
        found = f"http://{address}/healthz: {getattr(answer, 'reason', answer)}"
        checks.append(Check("api", "warn", found, "it is on the list of processes and does not answer: read its log"))
    return checks


def _get(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        response.read()


def _check(name: str, passed: bool, found: str, advice: str) -> Check:
    return Check(name, "ok", found) if passed else Check(name, "fail", found, advice)


def _clock(name: str, skew: timedelta) -> Check:
    seconds = skew.total_seconds()
    found = f"{abs(seconds):.1f} s {'ahead of' if seconds >= 0 else 'behind'} this machine's"
    if abs(skew) <= SKEW:
        return Check(name, "ok", found)
    return Check(name, "warn", found, "synchronize by NTP; until then payments of this machine go through the sweep")

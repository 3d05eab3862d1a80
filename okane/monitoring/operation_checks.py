"""The checks of `okane doctor` about captures, voids and refunds, and about the routes of the providers file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from okane.errors import SetupError, StoreUnavailable
from okane.lanes import operations_stream, payments_stream
from okane.monitoring.checked_system import CheckedSystem
from okane.monitoring.findings import Check
from okane.monitoring.operation_summary import OperationCounts, read_counts
from okane.operation import OperationStatus
from okane.providers.base import Capability
from okane.providers.config import ProvidersConfig, load_providers
from okane.providers.route_checks import idle_routes
from okane.store import Overview
from streams import Inspector, StreamError, StreamStats, connect

SILENT = timedelta(seconds=15)  # a live worker reads every second
LATE = timedelta(minutes=5)  # as the alert OkaneOldestDueOperation


async def operation_checks(system: CheckedSystem) -> list[Check]:
    """Return the findings. A server that is away has its own line."""
    return [*await _readers(system), *await _waiting(system), *_of_file(system)]


async def _readers(system: CheckedSystem) -> list[Check]:
    settings = system.settings
    streams = (payments_stream(settings.stream), operations_stream(settings.operations_stream_name))
    try:
        async with connect(system.redis_url) as redis:
            payments, operations = [await Inspector(redis, stream, group=settings.group).stats() for stream in streams]
    except (StreamError, SetupError):
        return []
    # One that holds payments and reads nothing may have died with them: that says nothing about the other stream.
    return readers(reading_consumers(payments), live_consumers(operations), operations.stream)


def reading_consumers(stats: StreamStats) -> Collection[str]:
    """Return the consumers that have read any lane just now."""
    silent_ms = SILENT / timedelta(milliseconds=1)
    return {each.name for each in stats.consumers if each.idle_ms < silent_ms}


def live_consumers(stats: StreamStats) -> Collection[str]:
    """Return the consumers that have read any lane just now, or hold messages: with no place left they read nothing."""
    return {*reading_consumers(stats), *(each.name for each in stats.consumers if each.pending)}


def readers(of_payments: Collection[str], of_operations: Collection[str], stream: str) -> list[Check]:
    """Check that each worker reads the stream of operations, too; without any worker there is another line."""
    missing = sorted(set(of_payments) - set(of_operations))
    if not missing:
        return [Check("operation workers", "ok", ", ".join(sorted(of_operations)))] if of_operations else []
    advice = "upgrade it, or give it the same OKANE_OPERATIONS_STREAM as the API: docs/operations.md"
    if of_operations:
        found = f"{', '.join(missing)} of {len(of_payments):,} do not read the stream {stream}"
        return [Check("operation workers", "warn", found, advice)]
    found = f"no worker reads the stream {stream}: captures, voids and refunds go through the sweep, or wait"
    return [Check("operation workers", "fail", found, advice)]


async def _waiting(system: CheckedSystem) -> list[Check]:
    if system.database is None:
        return []
    overview = Overview(system.database)
    try:
        return waiting(await read_counts(overview))
    except (StoreUnavailable, SetupError):
        return []
    finally:
        await overview.aclose()


def waiting(counts: OperationCounts) -> list[Check]:
    """Check that no operation waits for a human, or for a worker for long."""
    checks = []
    if reviews := counts.count(OperationStatus.NEEDS_REVIEW):
        found = f"{reviews:,} captures, voids and refunds need one"
        checks.append(Check("operation reviews", "warn", found, "decide them: okane review ls --operations"))
    if counts.oldest_due > LATE:
        found = f"one has been due for {counts.oldest_due.total_seconds():,.0f} s"
        advice = "no worker takes it, or its provider is switched off or away: okane providers ls"
        checks.append(Check("operations due", "warn", found, advice))
    return checks


def _of_file(system: CheckedSystem) -> list[Check]:
    if system.settings.providers_file is None:
        return []
    try:
        config = load_providers(system.settings)
    except SetupError:
        return []
    return [*abilities(config.capabilities), *routes(config)]


def abilities(capabilities: Mapping[str, frozenset[Capability]]) -> list[Check]:
    """Check what each provider can do with money that it has charged or holds."""
    checks = []
    for name, able in sorted(capabilities.items()):
        label = f"operations of {name}"
        found = ", ".join(one.replace("_", " ") for one in sorted(able)) or "none"
        if "refund" not in able:
            advice = "its refunds are refused (422 unsupported_by_provider): make them in its dashboard"
            checks.append(Check(label, "warn", f"no refund: {found}", advice))
        elif "manual_capture" in able and "void" not in able:
            advice = "held money that is not wanted is let go in its dashboard, or when the authorization ends"
            checks.append(Check(label, "warn", f"no void: {found}", advice))
        else:
            checks.append(Check(label, "ok", found))
    return checks


def routes(config: ProvidersConfig) -> list[Check]:
    """Check that each route can lead a payment to a provider."""
    idle = idle_routes(config.routes, config.capabilities)
    advice = "move or remove it: okane providers route explains the choice for a payment"
    checks = [Check(f"route {number}", "warn", why, advice) for number, why in idle]
    if config.routes and not idle:
        checks.append(Check("routes", "ok", f"{len(config.routes):,}, each of which can decide"))
    return checks

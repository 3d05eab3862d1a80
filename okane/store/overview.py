"""Counts and the age of waiting payments, for scrapes and commands. On a connection of its own: it must delay no payment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from okane.store import sql_files
from okane.store.movements import read_ages, read_differences
from okane.store.partition_bounds import TABLES, gap_before, parse_bound
from okane.store.partition_conversion import parse_left_check
from okane.store.partition_making import SQL as PARTITION_SQL
from okane.store.payment_layout import PARTS
from okane.store.providers import ProviderState, read_providers
from okane.store.session import Session
from okane.store.webhook_overview import ListedEndpoint, WebhookOverview, is_used, list_endpoints, read_webhooks

SQL = sql_files.load_statements("overview.sql")
LEFT_CHECKS = PARTITION_SQL["left_checks"]


class Overview:
    """Read the counts."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="overview", timeout=timeout)
        # Opened with the first endpoint. A backlog is read in the order of its index: sorting would read all of it.
        self._webhooks = Session(url, name="webhook overview", timeout=timeout, in_order=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.aclose()
        await self._webhooks.aclose()

    async def oldest_due(self) -> timedelta:
        """Return how long the longest waiting payment has been due: the source of the alerts."""
        return timedelta(seconds=(await self._session.fetch_repeatable(SQL["oldest_due"]))[0][0])

    async def count_dead(self) -> int:
        """Return the number of dead letters."""
        return int((await self._session.fetch_repeatable(SQL["count_dead"]))[0][0])

    async def count_dead_operations(self) -> int:
        """Return the number of captures, voids and refunds that were given up or need a review."""
        return int((await self._session.fetch_repeatable(SQL["count_dead_operations"]))[0][0])

    async def partitions_ahead(self) -> timedelta | None:
        """Return the time until no table partition takes payments, or the CHECK of a conversion that has not ended refuses
        them; None if they are in one table. By this process's clock."""
        rows = await self._session.fetch_repeatable(PARTS)
        parts = [parse_bound(row[0]) for row in rows if row[0] is not None]
        ends = [gap_before(parts) or max(parts).end] if parts else []
        left = await self._session.fetch_repeatable(LEFT_CHECKS, {"tables": list(TABLES)})
        ends += [parse_left_check(*row).end for row in left]
        return min(ends) - datetime.now(UTC) if ends else None

    async def count_disputes(self) -> Mapping[str, int]:
        """Return the disputes that wait for evidence, by provider. Cheap: a partial index."""
        found = await self._session.fetch_repeatable(SQL["count_disputes"])
        return {str(provider): int(count) for provider, count in found}

    async def count_waiting(self) -> Mapping[Status, int]:
        """Return the payments that wait off the happy path, by status. Cheap: partial indexes."""
        return {Status(status): count for status, count in await self._session.fetch_repeatable(SQL["count_waiting"])}

    async def oldest_due_operation(self) -> timedelta:
        """Return how long the longest waiting capture, void or refund has been due."""
        return timedelta(seconds=(await self._session.fetch_repeatable(SQL["oldest_due_operation"]))[0][0])

    async def count_waiting_operations(self) -> Mapping[tuple[OperationKind, OperationStatus], int]:
        """Return the captures, voids and refunds that are open or need a review, by kind and status."""
        found = await self._session.fetch_repeatable(SQL["count_waiting_operations"])
        return {(OperationKind(kind), OperationStatus(status)): count for kind, status, count in found}

    async def count_all(self) -> Mapping[Status, int]:
        """Return all payments by status. Reads the whole table: for commands, not for scrapes."""
        return {Status(status): count for status, count in await self._session.fetch_repeatable(SQL["count_all"])}

    async def providers(self) -> Sequence[ProviderState]:
        """Return the providers that have been switched, or whose circuit breaker has opened."""
        return await read_providers(self._session)

    async def differences(self) -> Sequence[tuple[str, str, int]]:
        """Return the differences that the last comparisons with providers left, by provider and kind."""
        return await read_differences(self._session)

    async def reconcile_ages(self) -> Mapping[str, timedelta]:
        """Return the time since the last comparison with each provider that is compared as a routine."""
        return await read_ages(self._session)

    async def webhooks(self) -> WebhookOverview:
        """Return the state of the outbox, the log and the endpoint queues."""
        return await read_webhooks(self._webhooks) if await is_used(self._session) else WebhookOverview()

    async def webhook_endpoints(self, limit: int) -> Sequence[ListedEndpoint]:
        """Return up to `limit` webhook endpoints of every account, those in trouble first."""
        return await list_endpoints(self._session, limit)

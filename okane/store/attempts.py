"""The writes of attempts, in batches: renewals of their leases, and their outcomes, of payments and of operations alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Fetching
from okane.store.sql_parameters import milliseconds
from streams.failpoints import Failpoint


class AttemptOutcome(Protocol):
    """The outcome of one attempt, as far as payments and operations have the same."""

    @property
    def attempt(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def call(self) -> str | None: ...
    @property
    def provider(self) -> str: ...
    @property
    def latency(self) -> timedelta: ...
    @property
    def provider_ref(self) -> str | None: ...
    @property
    def decline_code(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def delay(self) -> timedelta | None: ...


S = TypeVar("S", bound=AttemptOutcome)


async def renew_leases(
    session: Fetching, statement: PreparedStatement, batch: Sequence[tuple[UUID, int]], parameters: Mapping[str, Any]
) -> Sequence[bool]:
    """Extend the leases of these attempts. False: it has lost its payment or operation."""
    ordered = sorted(batch)
    identity = {"ids": [one for one, _ in ordered], "attempts": [attempt for _, attempt in ordered]}
    held = {tuple(row) for row in await session.fetch(statement, {**identity, **parameters})}
    return [one in held for one in batch]


async def write_outcomes(
    session: Fetching,
    statements: Mapping[str, PreparedStatement],
    batch: Sequence[S],
    parameters: Mapping[str, Any],
    *,
    id_of: Callable[[S], UUID],
    more_columns: Callable[[Sequence[S]], Mapping[str, Any]],
    after: Failpoint,
) -> Sequence[timedelta | None]:
    """Write outcomes by `settle` and find those that were written before by `settled_before`. Return the ages of their
    payments or operations, None for an attempt that has lost its own."""
    ordered = sorted(batch, key=lambda one: id_of(one).int)
    identity = {
        "ids": [id_of(one) for one in ordered],
        "attempts": [one.attempt for one in ordered],
        "statuses": [one.status for one in ordered],
    }
    columns = {
        "events": [one.event for one in ordered],
        "provider_refs": [one.provider_ref for one in ordered],
        "decline_codes": [one.decline_code for one in ordered],
        "reasons": [one.reason for one in ordered],
        "calls": [one.call for one in ordered],
        "delays_ms": [None if one.delay is None else milliseconds(one.delay) for one in ordered],
        "providers": [one.provider for one in ordered],
        "latencies_ms": [milliseconds(one.latency) for one in ordered],
    }
    written = await session.fetch(statements["settle"], {**identity, **columns, **more_columns(ordered), **parameters})
    if after.armed:
        await after.hit()
    # By id and attempt: one batch may hold two attempts of one payment, of which one has lost it.
    ages_s = {(row[0], row[1]): row[2] for row in written}
    if len(ages_s) < len(batch):
        for one, attempt, age_s in await session.fetch(statements["settled_before"], identity):
            ages_s.setdefault((one, attempt), age_s)
    keys = ((id_of(one), one.attempt) for one in batch)
    return [timedelta(seconds=ages_s[key]) if key in ages_s else None for key in keys]

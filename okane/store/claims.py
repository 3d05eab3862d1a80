"""The claim of a batch of payments: the right to call their providers, chosen and written in the same statement."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from okane.errors import StoreUnavailable
from okane.payment import Status
from okane.store import columns, sql_files
from okane.store.claim_answers import answer_claims
from okane.store.prepared_statements import Row
from okane.store.records import Claim, ClaimRefusal, UsableProvider
from okane.store.session import Fetching
from okane.store.sql_parameters import milliseconds
from streams.failpoints import failpoint

STATEMENTS = sql_files.prepare_statements("payments.sql", "claim", "claim_and_choose", "refused", "postpone")
NO_PROVIDER_WAIT_S = 5.0  # before the next look at a payment whose provider cannot be reached from here,
SWITCHED_WAIT_S = 30.0  # or that an operator has switched off
CHOOSING_S = 1.0  # after a provider was found switched off or suspected, claims choose at once for so long

AFTER_CLAIM = failpoint("claim.after_commit", "claims committed, the reply lost", raises=StoreUnavailable)

ONLY_HTTP = (UsableProvider("http"),)


class ClaimStatements:
    """The claims of one store. `usable` returns the providers from which a claim may choose now, in their order."""

    def __init__(
        self, *, actor: str, lease: timedelta, grace: timedelta, usable: Callable[[], Sequence[UsableProvider]]
    ) -> None:
        self._actor = actor
        self._lease = lease
        self._grace = grace
        self._usable_providers = usable
        self._choosing_until_s = 0.0  # by time.monotonic

    async def claim(self, session: Fetching, ids: Sequence[UUID]) -> Sequence[Claim | ClaimRefusal | BaseException]:
        """Claim the payments of one batch; return a claim, a refusal, or the error of looking for one, for each."""
        # Counted from before the statement: the claim must end no later here than in the database.
        valid_until_s = time.monotonic() + self._lease.total_seconds()
        usable = self._usable()  # once: a half-open provider is offered to one claim
        parameters = {
            **usable,
            "ids": sorted(set(ids), key=columns.INT),  # sorted, so that two claimers never wait for each other
            "actor": self._actor,
            "lease_ms": milliseconds(self._lease),
            "grace_ms": milliseconds(self._grace),
        }
        claimed = {row[0]: _claimed(row, valid_until_s) for row in await self._claimed_rows(session, parameters)}
        if AFTER_CLAIM.armed:
            await AFTER_CLAIM.hit()
        return await answer_claims(
            ids,
            claimed,
            refuse=lambda missing: self._refused(session, missing, usable),
            unknown=ClaimRefusal(None, timedelta(0)),
        )

    async def _claimed_rows(self, session: Fetching, parameters: Mapping[str, Any]) -> Sequence[Row]:
        if time.monotonic() < self._choosing_until_s:
            return await session.fetch(STATEMENTS["claim_and_choose"], parameters)
        quick = await session.fetch(STATEMENTS["claim"], parameters)
        if len(quick) == len(parameters["ids"]):
            return quick
        # A batch can have both kinds: one payment goes to the first provider, and a route leads the other past it.
        claimed = {row[0] for row in quick}
        left = [one for one in parameters["ids"] if one not in claimed]
        try:
            rows = await session.fetch(STATEMENTS["claim_and_choose"], {**parameters, "ids": left})
        except StoreUnavailable:
            if not quick:
                raise
            return quick  # these are granted, and would wait for the end of their leases; the others are refused
        if rows and not quick:
            self._choosing_until_s = time.monotonic() + CHOOSING_S
        return [*quick, *rows]

    def _usable(self) -> dict[str, Any]:
        usable = self._usable_providers()
        defaults = [one.is_default for one in usable]
        names = [one.name for one in usable]
        return {
            "usable": names,
            "defaults": defaults,
            "first_default": names[defaults.index(True)] if any(defaults) else None,
        }

    async def _refused(
        self, session: Fetching, missing: Sequence[UUID], usable: Mapping[str, Any]
    ) -> Mapping[UUID, ClaimRefusal]:
        """Return why these claims were refused. Those that only lack a provider are postponed."""
        refused: dict[UUID, ClaimRefusal] = {}
        parameters = {"ids": sorted(set(missing), key=columns.INT), **usable}
        for payment_id, status, spent, wait_s, *more in await session.fetch(STATEMENTS["refused"], parameters):
            refused[payment_id] = ClaimRefusal(Status(status), timedelta(seconds=wait_s), spent, *more)
        if without := [payment_id for payment_id, one in refused.items() if one.no_provider and not one.wait]:
            parameters = {
                "ids": without,
                "wait_s": NO_PROVIDER_WAIT_S,
                "switched_wait_s": SWITCHED_WAIT_S,
                "grace_ms": milliseconds(self._grace),
            }
            for payment_id, wait_s in await session.fetch(STATEMENTS["postpone"], parameters):
                refused[payment_id] = dataclasses.replace(refused[payment_id], wait=timedelta(seconds=wait_s))
        return refused


def _claimed(row: Row, valid_until_s: float) -> Claim:
    look_up_first, look_ups, since_call_s, open_s, expired, pending_s, key_age_s, may_charge = row[columns.WIDTH :]
    return Claim(
        payment=columns.read_payment(row),
        look_up_first=look_up_first,
        look_ups=look_ups,
        since_call_s=since_call_s,
        open_s=open_s,
        valid_until_s=valid_until_s,
        expired=expired,
        pending_s=pending_s,
        key_age_s=key_age_s,
        may_charge=may_charge,
    )

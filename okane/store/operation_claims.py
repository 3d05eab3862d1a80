"""The claim of a batch of captures, voids and refunds: the right to call the provider of their payments."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from okane.errors import StoreUnavailable
from okane.operation import OperationStatus
from okane.store import columns, sql_files
from okane.store.claim_answers import answer_claims
from okane.store.claims import NO_PROVIDER_WAIT_S, SWITCHED_WAIT_S
from okane.store.operation_records import OperationClaim, OperationRefusal
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from streams.failpoints import failpoint

STATEMENTS = sql_files.prepare_statements("operations.sql", "claim", "refused", "postpone", blocks_of="payments.sql")

AFTER_CLAIM = failpoint(
    "operate.after_claim", "claims of operations committed, the reply lost", raises=StoreUnavailable
)


class OperationClaimStatements:
    """The claims of one store. `usable` returns the names of the providers that can be called from here now."""

    def __init__(self, *, actor: str, lease: timedelta, grace: timedelta, usable: Callable[[], Sequence[str]]) -> None:
        self._actor = actor
        self._lease = lease
        self._grace = grace
        self._usable = usable

    async def claim(
        self, session: Session, ids: Sequence[UUID]
    ) -> Sequence[OperationClaim | OperationRefusal | BaseException]:
        """Claim the operations of one batch; return a claim, a refusal, or the error of looking for one, for each."""
        # Counted from before the statement: the claim must end no later here than in the database.
        valid_until_s = time.monotonic() + self._lease.total_seconds()
        usable = self._usable()  # once: a half-open provider is offered to one claim
        rows = await session.fetch(
            STATEMENTS["claim"],
            {
                "ids": sorted(set(ids), key=columns.INT),  # sorted, so that two claimers never wait for each other
                "actor": self._actor,
                "usable": usable,
                "lease_ms": milliseconds(self._lease),
            },
        )
        claimed = {row[0]: _claimed(row, valid_until_s) for row in rows}
        if AFTER_CLAIM.armed:
            await AFTER_CLAIM.hit()
        return await answer_claims(
            ids,
            claimed,
            refuse=lambda missing: self._refused(session, missing, usable),
            unknown=OperationRefusal(None, timedelta(0)),
        )

    async def _refused(
        self, session: Session, missing: Sequence[UUID], usable: Sequence[str]
    ) -> Mapping[UUID, OperationRefusal]:
        """Return why these claims were refused. Those whose provider cannot be called are postponed."""
        refused: dict[UUID, OperationRefusal] = {}
        parameters = {"ids": sorted(set(missing), key=columns.INT), "usable": usable}
        for operation_id, status, spent, wait_s, *more in await session.fetch(STATEMENTS["refused"], parameters):
            refused[operation_id] = OperationRefusal(OperationStatus(status), timedelta(seconds=wait_s), spent, *more)
        if without := [one for one, refusal in refused.items() if refusal.no_provider and not refusal.wait]:
            postponed = {
                "ids": without,
                "wait_s": NO_PROVIDER_WAIT_S,
                "switched_wait_s": SWITCHED_WAIT_S,
                "grace_ms": milliseconds(self._grace),
            }
            for operation_id, wait_s in await session.fetch(STATEMENTS["postpone"], postponed):
                refused[operation_id] = dataclasses.replace(refused[operation_id], wait=timedelta(seconds=wait_s))
        return refused


def _claimed(row: Row, valid_until_s: float) -> OperationClaim:
    more = row[columns.OPERATION_WIDTH + columns.WIDTH :]
    look_up_first, look_ups, since_call_s, open_s, pending_s, key_age_s = more[:6]
    return OperationClaim(
        operation=columns.read_operation(row),
        payment=columns.read_payment(row[columns.OPERATION_WIDTH :]),
        look_up_first=look_up_first,
        look_ups=look_ups,
        since_call_s=since_call_s,
        open_s=open_s,
        valid_until_s=valid_until_s,
        pending_s=pending_s,
        key_age_s=key_age_s,
    )

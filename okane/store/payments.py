"""Read and write payments in Postgres, one method per transaction.

Concurrent calls of one method share a round trip (group commit); each returns its own result, after the commit. Time is the
database's: no method takes a clock.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from okane.errors import IdempotencyKeyReused, PaymentNotFound, StoreUnavailable, TimeOutOfRange
from okane.payment import (
    LATE_LOOK_UPS,
    NewPayment,
    NextAction,
    Payment,
    pending_payment,
)
from okane.payment_id import PaymentId
from okane.store import columns, sql_files
from okane.store.accept_statements import AcceptStatements
from okane.store.attempts import renew_leases, write_outcomes
from okane.store.claims import ONLY_HTTP, ClaimStatements
from okane.store.database_clock import DatabaseClock
from okane.store.group_commit import GroupCommit
from okane.store.payment_layout import PaymentLayout
from okane.store.rare_transitions import SQL, RareTransitionStore
from okane.store.readiness import Readiness
from okane.store.records import AcceptedRow, Claim, ClaimRefusal, Settlement, UsableProvider
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from streams import Coalescer
from streams.failpoints import failpoint

BATCHED = sql_files.prepare_statements(
    "payments.sql",
    *(
        "by_id",
        "claim",
        "claim_and_choose",
        "refused",
        "postpone",
        "renew",
        "settle",
        "settled_before",
    ),
)

BEFORE_INSERT = failpoint("accept.before_insert", "nothing is written yet", raises=StoreUnavailable)
AFTER_INSERT = failpoint("accept.after_commit", "rows committed, the reply lost", raises=StoreUnavailable)
AFTER_SETTLE = failpoint("settle.after_commit", "outcomes committed, the reply lost", raises=StoreUnavailable)


class PaymentStore(RareTransitionStore):
    """The payments in one Postgres database. `actor` (a worker's name, or `api`) is written into every event that has no
    actor of its own. `cell` is the number of this system in the ids of its payments."""

    def __init__(
        self,
        url: str,
        *,
        actor: str,
        lease: timedelta,
        grace: timedelta,
        late_look_ups: Sequence[timedelta] = LATE_LOOK_UPS,
        cell: int = 0,
        timeout: timedelta = timedelta(seconds=10),
        on_batch: Callable[[str, int], None] | None = None,
        on_round_trip: Callable[[str, float], None] | None = None,
    ) -> None:
        self.clock = DatabaseClock()  # set by `get`
        # The providers from which a claim may choose now, in their order; replaced by workers that have others.
        self.usable_providers: Callable[[], Sequence[UsableProvider]] = lambda: ONLY_HTTP
        self._lease = lease
        self._cell = cell
        self._group = GroupCommit(url, timeout=timeout, on_batch=on_batch, on_round_trip=on_round_trip)
        self._layout = PaymentLayout()
        super().__init__(
            self._group.session("other"), self._layout, actor=actor, grace=grace, late_look_ups=late_look_ups
        )
        self._readiness = Readiness(self._rare)
        self._accepts = AcceptStatements(self._layout, grace=grace)
        batched = self._group.batched
        self._accepting = batched("accept", self._accept)
        self._finding: Coalescer[tuple[str, str], tuple[Payment, bytes] | None] = batched("find", self._find)
        self._getting = batched("get", self._get)
        self._claims = ClaimStatements(actor=actor, lease=lease, grace=grace, usable=self._usable_now)
        self._claiming: Coalescer[UUID, Claim | ClaimRefusal] = batched("claim", self._claim)
        self._settling = batched("settle", self._settle)
        self._renewing = batched("renew", self._renew)

    def _usable_now(self) -> Sequence[UsableProvider]:
        return self.usable_providers()

    async def aclose(self) -> None:
        """Close every connection. Statements in flight fail with StoreUnavailable."""
        await self._group.aclose()

    async def accept_many(self, news: Sequence[NewPayment], *, wakes: int) -> Sequence[AcceptedRow | BaseException]:
        """Write these payments, or find those that their keys have already made. Only the first `wakes` of them will get a
        wake-up; the others are due for the sweep at once.

        In the place of a row: IdempotencyKeyReused if the key belongs to a payment of another meaning, TimeOutOfRange if it
        is new and one of its times is over, StoreUnavailable, or the error of a value that Postgres refuses.
        """
        return await self._accepting.submit_many([(new, number < wakes) for number, new in enumerate(news)])

    async def find(self, new: NewPayment) -> Payment | None:
        """Return the payment with this key, or None; write nothing. Raises IdempotencyKeyReused."""
        found = await self._finding.submit((new.account_id, new.idempotency_key))
        if found is None:
            return None
        payment, fingerprint = found
        if fingerprint != new.fingerprint:
            raise IdempotencyKeyReused(payment.id)
        return payment

    async def get(self, payment_id: UUID, *, account_id: str) -> Payment:
        """Return the payment as it is now. Raises PaymentNotFound, also for a payment of another account."""
        payment = await self._getting.submit(payment_id)
        if payment is None:
            raise await self._layout.missing(self._rare, payment_id)
        if payment.account_id != account_id:
            raise PaymentNotFound(str(payment_id))
        return payment

    async def claim(self, payment_id: UUID) -> Claim | ClaimRefusal:
        """Take the sole right to call the provider for a payment, for the length of the lease."""
        return await self._claiming.submit(payment_id)

    async def settle(self, settlement: Settlement) -> timedelta | None:
        """Write an outcome under its attempt. Return the payment's age, or None if the attempt has lost the payment.

        Repeatable after StoreUnavailable: an outcome that is already there counts as written.
        """
        return await self._settling.submit(settlement)

    async def renew(self, payment_id: UUID, attempt: int) -> bool:
        """Extend the lease of this attempt. Return False if it has lost the payment."""
        return await self._renewing.submit((payment_id, attempt))

    async def check_writable(self) -> None:
        """Raise StoreUnavailable unless payments can be accepted: Postgres is there, has the tables, and takes writes."""
        await self._readiness.check()

    async def _accept(
        self, session: Session, batch: Sequence[tuple[NewPayment, bool]]
    ) -> Sequence[AcceptedRow | BaseException]:
        wanted: dict[tuple[str, str], tuple[NewPayment, bool]] = {}
        for one in batch:
            wanted.setdefault(_key(one[0]), one)
        if BEFORE_INSERT.armed:
            await BEFORE_INSERT.hit()
        # Ids are made here, not when the request arrives: the database checks their time against its clock.
        ids = [PaymentId(self._cell) for _ in wanted]
        written = await self._accepts.insert(session, ids, list(wanted.values()))
        if AFTER_INSERT.armed:
            await AFTER_INSERT.hit()
        if len(written) == len(batch):  # all are new, with the time of one transaction
            created_at = written[0][2]
            return [
                AcceptedRow(pending_payment(new, payment_id, created_at), created=True)
                for (new, _), payment_id in zip(batch, ids, strict=True)
            ]
        made = {(account_id, key): created_at for account_id, key, created_at in written}
        found = {
            key: (pending_payment(new, payment_id, made[key]), new.fingerprint)
            for (key, (new, _)), payment_id in zip(wanted.items(), ids, strict=True)
            if key in made
        }
        missing = [key for key in wanted if key not in found]
        if missing:
            found |= await self._accepts.by_key(session, missing)
        own = dict(zip(wanted, ids, strict=True))
        refusal = TimeOutOfRange((await session.fetch(SQL["clock"]))[0][0]) if len(found) < len(wanted) else None
        # Of different requests with one key in this batch, the first was refused: the others are tried now.
        others = [
            one
            for one in batch
            if _key(one[0]) not in found and one[0].fingerprint != wanted[_key(one[0])][0].fingerprint
        ]
        later = iter(await self._accept(session, others) if others else ())
        answers: list[AcceptedRow | BaseException] = []
        for new, _ in batch:
            key = _key(new)
            if key not in found:
                assert refusal is not None
                answers.append(refusal if new.fingerprint == wanted[key][0].fingerprint else next(later))
                continue
            payment, fingerprint = found[key]
            # Of equal requests in one batch, one made the payment.
            created = own.pop(key, None) == payment.id
            meant = fingerprint == new.fingerprint
            answers.append(AcceptedRow(payment, created) if meant else IdempotencyKeyReused(payment.id))
        return answers

    async def _find(self, session: Session, keys: Sequence[tuple[str, str]]) -> Sequence[tuple[Payment, bytes] | None]:
        found = await self._accepts.by_key(session, list(set(keys)))
        return [found.get(key) for key in keys]

    async def _get(self, session: Session, ids: Sequence[UUID]) -> Sequence[Payment | None]:
        ours = await self._layout.session_for(session, ids)
        read = await ours.fetch_repeatable(BATCHED["by_id"], {"ids": list(set(ids))})
        if read:
            self.clock.set(read[0][columns.WIDTH])
        found = {payment.id: payment for payment in await columns.read_payments(read)}
        return [found.get(payment_id) for payment_id in ids]

    async def _claim(self, session: Session, ids: Sequence[UUID]) -> Sequence[Claim | ClaimRefusal | BaseException]:
        return await self._claims.claim(await self._layout.session_for(session, ids), ids)

    async def _renew(self, session: Session, batch: Sequence[tuple[UUID, int]]) -> Sequence[bool]:
        parameters = {"lease_ms": milliseconds(self._lease), "grace_ms": milliseconds(self._grace)}
        ours = await self._layout.session_for(session, [one for one, _ in batch])
        return await renew_leases(ours, BATCHED["renew"], batch, parameters)

    async def _settle(self, session: Session, batch: Sequence[Settlement]) -> Sequence[timedelta | None]:
        parameters = {"actor": self._actor, "grace_ms": milliseconds(self._grace), "late_ms": min(self._late_ms)}
        return await write_outcomes(
            await self._layout.session_for(session, [one.payment_id for one in batch]),
            BATCHED,
            batch,
            parameters,
            id_of=operator.attrgetter("payment_id"),
            more_columns=_columns_of_payments,
            after=AFTER_SETTLE,
        )


def _columns_of_payments(ordered: Sequence[Settlement]) -> Mapping[str, Any]:
    return {
        "attempt_refs": [one.attempt_ref for one in ordered],
        "next_actions": [_json(one.next_action) for one in ordered],
        "captures_before": [one.capture_before for one in ordered],
    }


def _key(new: NewPayment) -> tuple[str, str]:
    return new.account_id, new.idempotency_key


def _json(action: NextAction | None) -> str | None:
    return None if action is None else json.dumps({"kind": action.kind, "url": action.url})

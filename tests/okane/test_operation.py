"""The table of transitions of operations, the statements that repeat it, and random lives that keep to it."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from okane.errors import OkaneError
from okane.operation import AT_REST, TRANSITIONS, Operation, OperationStatus
from okane.payment import Payment
from okane.store import PaymentStore, sql_files
from okane.store.operation_records import OperationClaim, OperationSettlement
from okane.store.operations import OperationStore
from okane.store.schema import schema_sql
from tests.okane.stored_operations import (
    CAPTURE,
    REFUND,
    VOID,
    asked,
    assert_books_agree,
    authorized,
    charged,
    outcome,
    rows,
)
from tests.okane.stored_payments import GRACE, LEASE, execute

S = OperationStatus
LANES = dict.fromkeys(("capture", "void", "refund"))
ENDS: tuple[tuple[OperationStatus, dict[str, object]], ...] = (
    (S.SUCCESS, {}),
    (S.SUCCESS, {"provider_ref": None}),
    (S.FAILED_FINAL, {"event": "declined", "decline_code": "no"}),
    (S.FAILED_FINAL, {"event": "spent", "reason": "HTTP 503"}),
    (S.FAILED_RETRYABLE, {"event": "unavailable", "delay": timedelta(0)}),
    (S.UNKNOWN, {"delay": timedelta(0)}),
    (S.SUBMITTED, {"event": "pending", "delay": timedelta(0)}),
    (S.NEEDS_REVIEW, {"reason": "open for too long"}),
)


def test_every_status_stands_in_the_table() -> None:
    assert set(TRANSITIONS) == set(S)


def test_only_money_and_people_end_what_is_at_rest() -> None:
    for status in AT_REST:
        assert TRANSITIONS[status] <= {S.PENDING, S.NEEDS_REVIEW, S.SUCCESS, S.FAILED_FINAL}


def test_the_schema_knows_the_same_statuses() -> None:
    table = schema_sql().split("CREATE TABLE operations (", 1)[1]
    check = re.search(r"CHECK \(status IN \(([^)]*)\)\)", table)
    assert check is not None
    assert set(re.findall(r"'(\w+)'", check.group(1))) == {status.value for status in S}


MOVES = {
    "claim": ({S.PENDING, S.FAILED_RETRYABLE, S.UNKNOWN, S.SUBMITTED, S.PROCESSING}, {S.PROCESSING}),
    "settle": ({S.PROCESSING}, {end for end, _ in ENDS}),
    "cancel": ({S.PENDING, S.FAILED_RETRYABLE}, {S.CANCELED}),
    "retry": ({S.FAILED_FINAL, S.FAILED_RETRYABLE}, {S.PENDING}),
    "resolve": ({S.NEEDS_REVIEW}, {S.SUCCESS, S.FAILED_FINAL}),
    "bury": ({S.PENDING, S.FAILED_RETRYABLE, S.UNKNOWN, S.SUBMITTED, S.PROCESSING}, {S.NEEDS_REVIEW}),
    "record_late": ({S.FAILED_FINAL, S.CANCELED}, {S.NEEDS_REVIEW}),
    "fail_late_look_up": ({S.FAILED_FINAL, S.CANCELED}, {S.NEEDS_REVIEW}),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_statement_moves_only_as_the_table_allows(name: str) -> None:
    sources, targets = MOVES[name]
    for source in sources:
        assert targets <= TRANSITIONS[source]


def test_every_statement_that_sets_a_status_is_in_this_list() -> None:
    found = sql_files.load_statements("operations.sql", blocks_of="payments.sql")
    assert {name for name, text in found.items() if re.search(r"UPDATE operations o\s+SET status\b", text)} == set(
        MOVES
    )


class Life:
    """Random steps in the lives of operations, by three processes at once."""

    def __init__(self, url: str, payments: Sequence[Payment], seed: int) -> None:
        self._url = url
        self._payments = payments
        self._dice = random.Random(seed)
        self._steps = 0
        self.stores = [OperationStore(url, actor=f"w{n}", lease=LEASE, grace=GRACE) for n in range(3)]
        self.made: dict[UUID, Operation] = {}
        self._claims: list[OperationClaim] = []
        self.worked: set[str] = set()

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()

    async def round(self) -> None:
        """Several steps at once, of all kinds."""
        moves: Sequence[tuple[int, Callable[[OperationStore], Awaitable[object]]]] = (
            (8, self._request), (10, self._claim), (9, self._settle), (2, self._cancel), (3, self._retry),
            (3, self._resolve), (1, self._bury), (4, self._late), (1, self._void_expired), (1, self._lose_leases),
        )  # fmt: skip
        weights, calls = zip(*moves, strict=True)
        chosen = self._dice.choices(calls, weights, k=8)
        await asyncio.gather(*(self._try(call) for call in chosen))

    async def _try(self, call: Callable[[OperationStore], Awaitable[object]]) -> None:
        try:
            answer = await call(self._dice.choice(self.stores))
        except OkaneError as error:
            answer = type(error).__name__
        self.worked.add(f"{call.__name__.strip('_')}: {answer if isinstance(answer, str) else bool(answer)}")

    async def _request(self, store: OperationStore) -> bool:
        self._steps += 1
        payment = self._dice.choice(self._payments)
        kind = self._dice.choice((REFUND, REFUND, REFUND, CAPTURE, VOID))
        key = f"op {self._dice.choice((self._steps, self._steps, max(1, self._steps - 1)))}"
        amount = None if kind is VOID else self._dice.choice((None, 1, 50, 150))
        requested = await store.request(
            asked(payment.id, kind, key, amount_minor=amount, fingerprint=kind.value.encode())
        )
        self.made[requested.operation.id] = requested.operation
        return requested.created

    async def _claim(self, store: OperationStore) -> bool:
        claim = await store.claim(self._any())
        if isinstance(claim, OperationClaim):
            self._claims.append(claim)
        return isinstance(claim, OperationClaim)

    def _outcome(self) -> OperationSettlement | None:
        if not self._claims:
            return None
        at = self._dice.randrange(len(self._claims))
        claim = self._claims[at] if self._dice.random() < 0.1 else self._claims.pop(at)
        status, more = self._dice.choice(ENDS)
        return outcome(claim.operation, status, **more)

    async def _settle(self, store: OperationStore) -> bool:
        written = self._outcome()
        if written is None:
            return False
        settled = await store.settle(written) is not None
        if not settled:
            await store.record_late(written)
        return settled

    async def _late(self, store: OperationStore) -> str | None:
        operation = await store.get(self._any())
        status, more = self._dice.choice(ENDS[:3])
        return await store.record_late(outcome(operation, status, **{**more, "provider_ref": "re_late"}), once=True)

    async def _cancel(self, store: OperationStore) -> Operation:
        return await store.cancel(self._any(), account_id="default", actor="someone")

    async def _retry(self, store: OperationStore) -> Operation:
        return await store.retry(self._any(), account_id="default", actor="someone")

    async def _resolve(self, store: OperationStore) -> Operation:
        return await store.resolve(
            self._any(),
            account_id=None,
            decision=S.SUCCESS if self._dice.random() < 0.5 else S.FAILED_FINAL,
            reason="seen",
            provider_ref=None,
            actor="someone",
        )

    async def _bury(self, store: OperationStore) -> bool:
        return await store.bury(self._any(), reason="poison")

    async def _void_expired(self, store: OperationStore) -> bool:
        operation = await store.void_expired(self._dice.choice(self._payments).id)
        if operation is not None:
            self.made[operation.id] = operation
        return operation is not None

    async def _lose_leases(self, store: OperationStore) -> int:
        await execute(self._url, "UPDATE operations SET lease_until = now() WHERE status = %s", ["processing"])
        await execute(self._url, "UPDATE operations SET sweep_at = now() WHERE sweep_at > %s", ["-infinity"])
        return len(await store.due(LANES, limit=100))

    def _any(self) -> UUID:
        newest = list(self.made)[-12:]
        return self._dice.choice(newest) if newest else UUID(int=0)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_books_agree(database_url: str, payments: PaymentStore, seed: int) -> None:
    held = [await authorized(payments, f"held {number}", amount_minor=400) for number in range(3)]
    held += [await authorized(payments, "ends", amount_minor=400, ends_in=timedelta(0))]
    life = Life(database_url, [*held, await charged(payments, amount_minor=400)], seed)
    for _ in range(60):
        await life.round()
        await assert_books_agree(database_url, may_exceed=True)
    await life.aclose()
    changes = await rows(
        database_url,
        "SELECT operation_id, coalesce(lag(status) OVER (PARTITION BY operation_id ORDER BY version), 'pending'), status,"
        " event FROM operation_events ORDER BY operation_id, version",
    )
    for operation_id, before, after, event in changes:
        stays = event == "late_result" and before == after
        assert stays or S(after) in TRANSITIONS[S(before)], (operation_id, before, after, event)
    # The rare ways depend on who comes first.
    assert {"request: True", "claim: True", "settle: True"} <= life.worked

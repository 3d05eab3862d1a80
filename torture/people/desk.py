"""The desk of a person: the lists of what can be decided, and the intakes that write a decision, as the commands and the
console have them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from okane.api_key import ACCOUNT
from okane.cli.context import Context
from okane.cli.stores import Stores, open_stores
from okane.config import load
from okane.errors import OperationNotFound, OperationRefused, PaymentNotFound, StatusConflict, StoreUnavailable
from okane.operation import Operation, OperationStatus
from okane.payment import Payment, Status
from okane.store.lists import PaymentFilter, PaymentLists
from okane.store.operation_records import OperationEvent, OperationFilter
from okane.store.operations import OperationLists
from okane.store.records import Event
from torture.history.decisions import Action, Answer
from torture.system.cluster import Cluster
from torture.system.shape import OPERATORS

REASON = "as the books of the provider have it"
_LISTED = 50  # the newest ones


@dataclass(frozen=True, slots=True)
class Case:
    """A payment or an operation as a person has seen it, the decision about it, and the status that this leads to."""

    subject: Payment | Operation
    action: Action
    outcome: Status | OperationStatus


class Desk:
    """Reads lists and writes decisions."""

    def __init__(self, stores: Stores, payments: PaymentLists, operations: OperationLists) -> None:
        self._stores = stores
        self._payments = payments
        self._operations = operations

    async def payments(self, statuses: Collection[Status]) -> Sequence[Payment]:
        """Return the newest payments that have one of these statuses. Raises StoreUnavailable, AccountBusy."""
        wanted = PaymentFilter(statuses=frozenset(statuses))
        return (await self._payments.page(wanted, account_id=ACCOUNT, limit=_LISTED)).payments

    async def operations(self, statuses: Collection[OperationStatus]) -> Sequence[Operation]:
        """Return the newest operations that have one of these statuses. Raises StoreUnavailable, AccountBusy."""
        wanted = OperationFilter(statuses=frozenset(statuses))
        return (await self._operations.page(wanted, account_id=ACCOUNT, limit=_LISTED)).operations

    async def decide(self, case: Case, actor: str) -> Answer:
        """Write a decision in the version that was seen."""
        try:
            if isinstance(case.subject, Payment):
                await self._decide_payment(case, case.subject.id, actor)
                events: Sequence[Event | OperationEvent] = await self._stores.payments.events(case.subject.id)
            else:
                await self._decide_operation(case, case.subject.id, actor)
                events = await self._stores.operations.events(case.subject.id)
        except (StatusConflict, OperationRefused, PaymentNotFound, OperationNotFound):
            return "refused"
        except StoreUnavailable:
            return "lost"
        # As the console does: the intakes take the repeat of a decision, also of one that another person has made.
        own = any(event.version == case.subject.version + 1 and event.actor == actor for event in events)
        return "done" if own else "known"

    async def _decide_payment(self, case: Case, payment_id: UUID, actor: str) -> None:
        intake, seen = self._stores.intake, case.subject.version
        if case.action == "retried":
            await intake.retry(payment_id, account_id=ACCOUNT, actor=actor, version=seen)
        elif case.action == "canceled":
            await intake.cancel(payment_id, account_id=ACCOUNT, actor=actor, version=seen)
        else:
            await intake.resolve(
                payment_id,
                account_id=ACCOUNT,
                decision=Status.SUCCESS if case.outcome is Status.SUCCESS else Status.FAILED_FINAL,
                reason=REASON,
                provider_ref=None,
                actor=actor,
                version=seen,
            )

    async def _decide_operation(self, case: Case, operation_id: UUID, actor: str) -> None:
        intake, seen = self._stores.operation_intake, case.subject.version
        if case.action == "retried":
            await intake.retry(operation_id, account_id=ACCOUNT, actor=actor, version=seen)
        elif case.action == "canceled":
            await intake.cancel(operation_id, account_id=ACCOUNT, actor=actor, version=seen)
        else:
            await intake.resolve(
                operation_id,
                account_id=ACCOUNT,
                decision=OperationStatus.SUCCESS
                if case.outcome is OperationStatus.SUCCESS
                else OperationStatus.FAILED_FINAL,
                reason=REASON,
                provider_ref=None,
                actor=actor,
                version=seen,
            )


@contextlib.asynccontextmanager
async def open_desk(cluster: Cluster) -> AsyncIterator[Desk]:
    """Open a desk for the length of the block. It reaches the servers through links of its own, which break as others do."""
    context = _context(cluster)
    payments, operations = PaymentLists(context.database_url), OperationLists(context.database_url)
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(payments.aclose)
        closing.push_async_callback(operations.aclose)
        yield Desk(await closing.enter_async_context(open_stores(context)), payments, operations)


def _context(cluster: Cluster) -> Context:
    factory, env = cluster.factory, cluster.options.env
    settings = load(
        stream=factory.stream,
        operations_stream=factory.operations_stream,
        sweep_grace=env["OKANE_SWEEP_GRACE"],
        late_look_ups=env["OKANE_LATE_LOOK_UPS"],
    )
    return Context(
        settings=settings,
        source="torture",
        database=cluster.database_url_of(OPERATORS),
        redis=cluster.redis_url_of(OPERATORS),
        provider_base_url=None,
        api_url=cluster.api_urls[0],
        api_key=None,
    )

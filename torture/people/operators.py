"""The people who decide while everything breaks: they retry and cancel payments and operations, and end reviews.

They use the intakes of `okane dead`, `okane review` and the console, and the API. A decision without a clear answer is
repeated. Some people are impatient and let go of their request; some decide beside another one who has seen the same.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence

from okane.errors import OkaneError
from okane.load.client import HttpClient
from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import CANCELABLE, RETRYABLE, Payment, Status
from okane.store.operation_transitions import CANCELABLE as CANCELABLE_OPERATIONS
from okane.store.operation_transitions import RETRYABLE as RETRYABLE_OPERATIONS
from okane.store.records import API, OPERATOR
from torture.history.decisions import Action, Answer, Decision
from torture.people.books import outcome_of_operation, outcome_of_payment
from torture.people.desk import REASON, Case, Desk, open_desk
from torture.schedule import pick
from torture.system.cluster import Cluster

_PEOPLE = 3
_PAUSE_S = (0.1, 0.6)
_AGAIN_S = 0.2
_MOST_TRIES = 20
_PATIENCE_S = 15.0
_IMPATIENCE_S = (0.0, 0.02)
_BY_API, _BESIDE_ANOTHER, _IMPATIENT = 0.3, 0.15, 0.2  # of the decisions
_LATER = frozenset({0, 408, 429})  # statuses that say nothing about the request
_PATHS = {"retried": "retry", "canceled": "cancel", "resolved": "resolve"}


class Operators:
    """Decides what can be decided. `journal` holds the decisions and their answers."""

    def __init__(self, cluster: Cluster, *, http: HttpClient, seed: int, patient: bool) -> None:
        """With `patient`, none lets go of a request: the wake-up of what was decided is not lost with it."""
        self.journal: list[Decision] = []
        self._cluster = cluster
        self._http = http
        self._dice = random.Random(f"operators {seed}")
        self._numbers = itertools.count(1)
        self._impatient = 0.0 if patient else _IMPATIENT

    async def run(self, enough: Callable[[], bool]) -> None:
        """Decide until `enough`; when this returns, every decision is answered, or was repeated in vain for long."""
        async with open_desk(self._cluster) as desk, asyncio.TaskGroup() as people:
            for _ in range(_PEOPLE):
                people.create_task(self._work(desk, enough))

    async def _work(self, desk: Desk, enough: Callable[[], bool]) -> None:
        while not enough():
            await asyncio.sleep(self._dice.uniform(*_PAUSE_S))
            try:
                case = await self._find(desk)
            except OkaneError:
                continue  # Postgres is away
            if case is not None:
                count = 2 if self._dice.random() < _BESIDE_ANOTHER else 1
                await asyncio.gather(*(self._decide(desk, case) for _ in range(count)))

    async def _find(self, desk: Desk) -> Case | None:
        """Look at one of the lists and choose a case from it, or None. Raises StoreUnavailable, AccountBusy."""
        match self._dice.randrange(6):
            case 0 | 1:
                failed = [one for one in await desk.payments(RETRYABLE) if one.provider_ref is None]
                return self._chosen(failed, "retried", Status.PENDING)
            case 2:
                return self._chosen(await desk.payments(CANCELABLE), "canceled", Status.CANCELED)
            case 3:
                operations = await desk.operations(RETRYABLE_OPERATIONS)
                return self._chosen(operations, "retried", OperationStatus.PENDING)
            case 4:
                found = await desk.operations(CANCELABLE_OPERATIONS)
                refunds = [one for one in found if one.kind is OperationKind.REFUND]
                return self._chosen(refunds, "canceled", OperationStatus.CANCELED)
            case _:
                return await self._review(desk)

    async def _review(self, desk: Desk) -> Case | None:
        """Choose what needs a review, and decide it by the books."""
        waiting: list[Payment | Operation] = [
            *await desk.payments({Status.NEEDS_REVIEW}),
            *await desk.operations({OperationStatus.NEEDS_REVIEW}),
        ]
        if not waiting:
            return None
        subject = pick(waiting, self._dice.random())
        outcome = (
            await asyncio.to_thread(outcome_of_payment, self._cluster, subject)
            if isinstance(subject, Payment)
            else await asyncio.to_thread(outcome_of_operation, self._cluster, subject)
        )
        return None if outcome is None else Case(subject, "resolved", outcome)

    def _chosen(
        self, found: Sequence[Payment | Operation], action: Action, outcome: Status | OperationStatus
    ) -> Case | None:
        return Case(pick(found, self._dice.random()), action, outcome) if found else None

    async def _decide(self, desk: Desk, case: Case) -> None:
        actor = f"{OPERATOR} {next(self._numbers)}"
        path = _path(case) if self._dice.random() < _BY_API else None
        if path is None:
            answers = await self._insist(lambda: desk.decide(case, actor))
        else:
            answers = await self._insist(lambda: self._post(path, case))
        decision = Decision(
            # Without authentication the API knows no names, and its retries and cancels take no version.
            actor=actor if path is None else API,
            action=case.action,
            subject=str(case.subject.id),
            outcome=case.outcome.value,
            seen=case.subject.version if path is None else None,
            answers=answers,
        )
        self.journal.append(decision)

    async def _insist(self, ask: Callable[[], Awaitable[Answer]]) -> Sequence[Answer]:
        """Ask until there is a clear answer; return the answers, in their order."""
        answers: list[Answer] = []
        patience_s = self._dice.uniform(*_IMPATIENCE_S) if self._dice.random() < self._impatient else _PATIENCE_S
        while len(answers) < _MOST_TRIES:
            try:
                async with asyncio.timeout(patience_s):
                    answers.append(await ask())
            except TimeoutError:
                answers.append("lost")
            if answers[-1] != "lost":
                break
            patience_s = _PATIENCE_S
            await asyncio.sleep(_AGAIN_S)
        return answers

    async def _post(self, path: str, case: Case) -> Answer:
        """Send a decision to one of the APIs."""
        body: dict[str, object] = {}
        if case.action == "resolved":
            body = {"as": case.outcome.value, "reason": REASON, "version": case.subject.version}
        reply = await self._http.post(f"{pick(self._cluster.api_urls, self._dice.random())}{path}", body)
        if case.action == "canceled" and "operation" in (reply.body or {}):
            return "refused"  # its money is held by now, and is let go by a void
        if 200 <= reply.status < 300:
            # The answer to a repeat of any other decision is that to the first.
            return "done" if case.action == "retried" else "known"
        return "lost" if reply.status >= 500 or reply.status in _LATER else "refused"


def _path(case: Case) -> str | None:
    """Return the route of a decision at the API; captures and voids have none."""
    if isinstance(case.subject, Payment):
        return f"/v1/payments/{case.subject.id}/{_PATHS[case.action]}"
    if case.subject.kind is OperationKind.REFUND:
        return f"/v1/refunds/{case.subject.id}/{_PATHS[case.action]}"
    return None

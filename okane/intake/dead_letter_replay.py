"""The replay of dead letters: a manual retry of payments, or of captures, voids and refunds, that were given up.

Postgres has the list. The dead-letter stream in Redis has a note about each, which the replay removes. A note that was lost,
or that stays while Redis is away, changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from okane.errors import OperationNotFound, OperationRefused, PaymentNotFound, StatusConflict
from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake
from okane.operation import Operation
from okane.payment import TRANSITIONS, Payment, Status
from okane.store import DeadPayment
from okane.store.dead_operations import DeadOperation, DeadOperationStore
from streams import DeadLetters, StreamError

PAGE = 500
MAX_PAGES = 20  # of notes, searched for those to remove


@dataclass(frozen=True, slots=True)
class Replayed:
    """The ids of retried dead letters, and of kept ones: those that need a review or have changed since they were chosen, and
    operations that are refused because what they move is no longer there."""

    retried: Sequence[UUID]
    kept: Sequence[UUID]


class DeadLetterReplay:
    """The replay of dead letters, one by one."""

    def __init__(self, *, intake: PaymentIntake, notes: DeadLetters) -> None:
        self._intake = intake
        self._notes = notes

    async def run(self, letters: Sequence[DeadPayment], *, dry_run: bool, actor: str) -> Replayed:
        """Retry these, or with `dry_run` return which would be retried. Safe to repeat.

        `actor` is written into the events.
        """
        retried: list[UUID] = []
        kept: list[UUID] = []
        for letter in letters:
            done = await self._retry(letter.payment, dry_run=dry_run, actor=actor)
            (retried if done else kept).append(letter.payment.id)
        if not dry_run:
            await self.remove_notes(retried)
        return Replayed(retried, kept)

    async def remove_notes(self, ids: Collection[UUID]) -> None:
        """Remove the notes about these payments from the dead-letter stream. While Redis is away they stay."""
        await _remove_notes(self._notes, ids)

    async def _retry(self, payment: Payment, *, dry_run: bool, actor: str) -> bool:
        if dry_run:
            return Status.PENDING in TRANSITIONS[payment.status]
        try:
            # In the version that was chosen: a second replay of one selection must not charge what has failed again since.
            await self._intake.retry(payment.id, account_id=payment.account_id, actor=actor, version=payment.version)
        except (StatusConflict, PaymentNotFound):
            return False
        return True


class DeadOperationReplay:
    """The replay of captures, voids and refunds, one by one."""

    def __init__(self, *, intake: OperationIntake, letters: DeadOperationStore, notes: DeadLetters) -> None:
        self._intake = intake
        self._letters = letters
        self._notes = notes

    async def run(self, dead: Sequence[DeadOperation], *, dry_run: bool, actor: str) -> Replayed:
        """Retry these, or with `dry_run` return those that would be retried now, after each other. Safe to repeat."""
        if dry_run:
            done = await self._letters.preview_retries(dead)
        else:
            done = [await self._retry(one.operation, actor=actor) for one in dead]
        ids = [one.operation.id for one in dead]
        retried = [one for one, is_retried in zip(ids, done, strict=True) if is_retried]
        kept = [one for one, is_retried in zip(ids, done, strict=True) if not is_retried]
        if not dry_run:
            await self.remove_notes(retried)
        return Replayed(retried, kept)

    async def remove_notes(self, ids: Collection[UUID]) -> None:
        """Remove the notes about these operations from the dead-letter stream. While Redis is away they stay."""
        await _remove_notes(self._notes, ids)

    async def _retry(self, operation: Operation, *, actor: str) -> bool:
        try:
            await self._intake.retry(
                operation.id, account_id=operation.account_id, actor=actor, version=operation.version
            )
        except (StatusConflict, OperationNotFound, OperationRefused):
            return False
        return True


async def _remove_notes(notes: DeadLetters, ids: Collection[UUID]) -> None:
    bodies = {one.bytes for one in ids}
    before: str | None = None
    with contextlib.suppress(StreamError):
        for _ in range(MAX_PAGES):
            if not bodies:
                return
            page = await notes.list(PAGE, before=before)
            found = [letter for letter in page.letters if letter.body in bodies]
            await notes.purge(ids=[letter.id for letter in found])
            before = page.older
            if before is None:
                return

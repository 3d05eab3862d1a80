"""Replay: another try for payments that were given up, on a human's word, one by one.

The list is Postgres'. The dead-letter stream in Redis is a note about each: what is replayed is struck off there, too, and a
note that was lost, or that stays while Redis is away, misleads nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from okane.errors import PaymentNotFound, StatusConflict
from okane.intake.accept import PaymentIntake
from okane.payment import TRANSITIONS, Payment, Status
from okane.store import DeadPayment
from streams import DeadLetters, StreamError

PAGE = 500
LONGEST_LOOK = 20  # pages of notes that are looked through for those to be struck off


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of some dead letters. One that needs a review is kept: a human decides about it."""

    retried: Sequence[UUID]
    kept: Sequence[UUID]


class DeadLetterReplay:
    """Tries dead letters again."""

    def __init__(self, *, intake: PaymentIntake, notes: DeadLetters) -> None:
        self._intake = intake
        self._notes = notes

    async def run(self, letters: Sequence[DeadPayment], *, dry_run: bool, actor: str) -> Replayed:
        """Try these again, or with `dry_run` say which would be. Safe to repeat: what is retried is no dead letter.

        `actor` is who asks for it.
        """
        retried: list[UUID] = []
        kept: list[UUID] = []
        for letter in letters:
            done = await self._retry(letter.payment, dry_run=dry_run, actor=actor)
            (retried if done else kept).append(letter.payment.id)
        if not dry_run:
            await self.strike_off(retried)
        return Replayed(retried, kept)

    async def strike_off(self, ids: Collection[UUID]) -> None:
        """Drop the notes about these payments from the stream. While Redis is away they stay."""
        bodies = {payment_id.bytes for payment_id in ids}
        before: str | None = None
        with contextlib.suppress(StreamError):
            for _ in range(LONGEST_LOOK):
                if not bodies:
                    return
                page = await self._notes.list(PAGE, before=before)
                struck = [letter for letter in page.letters if letter.body in bodies]
                await self._notes.purge(ids=[letter.id for letter in struck])
                before = page.older
                if before is None:
                    return

    async def _retry(self, payment: Payment, *, dry_run: bool, actor: str) -> bool:
        if dry_run:
            return Status.PENDING in TRANSITIONS[payment.status]
        try:
            await self._intake.retry(payment.id, account_id=payment.account_id, actor=actor)
        except (StatusConflict, PaymentNotFound):
            return False
        return True

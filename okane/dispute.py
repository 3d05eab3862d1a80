"""Disputes of payments: a customer asks their bank to take a charge back. Pure."""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

from streams.values import value


class DisputeStatus(enum.StrEnum):
    """The status of a dispute. `closed`: it ended without a decision about the money, such as an inquiry."""

    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"

    @property
    def is_over(self) -> bool:
        """True if nothing more is expected."""
        return self in OVER


OVER = frozenset({DisputeStatus.WON, DisputeStatus.LOST, DisputeStatus.CLOSED})


@value
class Dispute:
    """One row of `disputes`. `provider_ref` is the provider's name for it; `due_by` the end of the time for evidence."""

    id: UUID
    payment_id: UUID
    account_id: str
    provider: str
    provider_ref: str
    amount_minor: int
    currency: str
    status: DisputeStatus
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    due_by: datetime | None = None

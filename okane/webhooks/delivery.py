"""The values that enter and leave an endpoint queue: its limits and lease, deliveries, answers, and the rows to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar
from uuid import UUID

from okane.card_numbers import masked
from okane.logs import redacted_text
from okane.webhooks.shares import Kind
from streams.values import value

HELD = "held"  # the reason of a delivery that waits for an earlier one of its payment

E = TypeVar("E")
State = Literal["delivered", "waiting", "given_up"]


class Answer(Protocol):
    """The end of a request. `outcome` is `delivered`, or the kind of failure; `reason` describes it, `text` is the body."""

    @property
    def outcome(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def ms(self) -> int: ...
    @property
    def retry_after(self) -> float | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings of an endpoint that its queue follows."""

    max_in_flight: int = 8
    rate_limit: int | None = None  # requests per second
    hold_s: float = 300.0


@dataclass(slots=True)
class Lease:
    """Until when the queues of a dispatcher may begin requests, in seconds of its monotonic clock. Shared by them all."""

    until_s: float


@dataclass(slots=True, eq=False)
class Delivery(Generic[E]):
    """One event on its way to the endpoint. `attempts` counts those that ended before; `size` is its memory in bytes."""

    position: int
    payment_id: UUID
    event: E
    kind: Kind = Kind.LIVE
    attempts: int = 0
    is_probe: bool = False
    size: int = 0


@value
class Result:
    """A row to write. `delay_s`: until the next attempt. `is_attempt` is False if only that time changes."""

    position: int
    state: State
    attempts: int
    ended_at_s: float
    status: int | None = None
    ms: int | None = None
    reason: str | None = None
    delay_s: float | None = None
    is_attempt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The results of one queue since the last batch, and its state after them. `replayed_to`: the cursor of its replay."""

    results: Sequence[Result]
    done_to: int
    failures: int  # in a row
    succeeded: bool  # at least once
    last_error: str | None
    replayed_to: int | None


def reason_of(answer: Answer) -> str:
    """Return the kind of failure, and on the next line the text that the endpoint sent, or a description. Without secrets and
    card numbers, which a server may repeat: it is kept, and shown to others than those who sent it."""
    return f"{answer.outcome}\n{masked(redacted_text(answer.text)) or answer.reason}"

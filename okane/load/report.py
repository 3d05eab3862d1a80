"""The result of a load run: figures, the cross-check with the provider's journal, and the verdict. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from okane.payment import TERMINAL, Status

# The statuses at which polling stops: `needs_review` is not terminal, but changes only by a human's decision.
AT_REST = TERMINAL | {Status.NEEDS_REVIEW}


@dataclass(slots=True, kw_only=True)
class Tracked:
    """One payment of the run as the client sees it. Mutable: filled in as answers arrive."""

    number: int
    amount: int
    method: str | None = None  # the gateway's token
    id: str | None = None  # None until accepted
    accept_ms: float = 0.0
    status: str = Status.PENDING
    created_at: datetime | None = None
    updated_at: datetime | None = None
    lost: bool = False  # accepted once, unknown to the API later
    wrong_amount: bool = False  # the API returns another amount
    action_url: str | None = None  # where the customer has to go, while the payment waits for it

    @property
    def at_rest(self) -> bool:
        return self.lost or self.status in AT_REST


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of requests and errors of the run. Mutable."""

    retried: int = 0
    errors: Counter[str]
    sending_s: float = 0.0  # from the first POST to the last answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds, over `count` payments."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalCheck:
    """The provider's captured charges of this run's payments, compared with the statuses that the API returns.

    `charges` belong to payments at their end; `open_charges` to those that still wait or need review: not wrong yet.
    """

    charges: int
    successes: int
    doubled: int  # payments charged more than once, whatever their status
    missing: int  # successes never charged
    without_success: int  # charges of payments that failed or were canceled
    wrong_amount: int  # charges of another amount than requested
    open_charges: int

    @property
    def ok(self) -> bool:
        return not (self.doubled or self.missing or self.without_success or self.wrong_amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """The result of a run. Rates are per second. `accept` is by the client's clock, `settle` by the server's."""

    run_id: str
    payments: int
    accepted: int
    settled: int
    by_status: Mapping[str, int]  # of the payments at rest
    waiting: Mapping[str, int]  # of the others, as last seen
    lost: int
    shared: int  # ids returned for two different keys
    wrong_amount: int
    retried: int
    errors: Mapping[str, int]
    accept_rate: float
    settled_rate: float | None
    sending_s: float
    accept: Latency | None
    settle: Latency | None
    journal: JournalCheck | None
    journal_error: str | None  # the reason for the missing check
    interrupted: bool

    @property
    def violations(self) -> list[str]:
        """Return the broken promises as sentences."""
        found = [
            (self.lost, "accepted and then not found: lost"),
            (self.shared, "ids given to two different idempotency keys"),
            (self.wrong_amount, "known to the API with another amount than sent"),
        ]
        if self.journal is not None:
            found += [
                (self.journal.doubled, "charged more than once"),
                (self.journal.missing, "success without a charge at the provider"),
                (self.journal.without_success, "charges of payments that failed or were canceled"),
                (self.journal.wrong_amount, "charges of another amount than requested"),
            ]
        return [f"{count:,} {what}" for count, what in found if count]

    @property
    def exit_code(self) -> int:
        """Return 1 when a promise was broken, or a payment was not sent, or not seen settled; 130 after Ctrl-C; else 0."""
        if self.violations:
            return 1
        if self.interrupted:
            return 130
        return 0 if self.settled == self.payments else 1

    def to_json(self) -> dict[str, object]:
        """Return plain types, for `json.dumps`."""
        derived = {"violations": self.violations, "exit_code": self.exit_code}
        return asdict(self) | derived | {"journal_ok": None if self.journal is None else self.journal.ok}


def latency(samples_ms: Iterable[float]) -> Latency | None:
    """Return nearest-rank percentiles (each is a measured value), or None without samples."""
    ordered = sorted(samples_ms)
    if not ordered:
        return None

    def rank(percent: int) -> float:
        return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 3)

    return Latency(count=len(ordered), p50=rank(50), p90=rank(90), p99=rank(99), max=rank(100))


def check_journal(payments: Iterable[Tracked], captured: Mapping[str, Sequence[int]]) -> JournalCheck:
    """Compare with `captured`: the amounts of the captured charges by payment id, for this run's payments at least."""
    found: Counter[str] = Counter()
    for payment in payments:
        if payment.id is None:
            continue
        amounts = captured.get(payment.id, ())
        succeeded = payment.status == Status.SUCCESS
        at_end = payment.status in TERMINAL
        found["successes"] += succeeded
        found["charges" if at_end else "open_charges"] += len(amounts)
        found["doubled"] += len(amounts) > 1
        found["missing"] += succeeded and not amounts
        found["without_success"] += len(amounts) if at_end and not succeeded else 0
        found["wrong_amount"] += sum(amount != payment.amount for amount in amounts)
    return JournalCheck(
        charges=found["charges"],
        successes=found["successes"],
        doubled=found["doubled"],
        missing=found["missing"],
        without_success=found["without_success"],
        wrong_amount=found["wrong_amount"],
        open_charges=found["open_charges"],
    )


def build_report(
    *,
    run_id: str,
    payments: Sequence[Tracked],
    tally: Tally,
    journal: JournalCheck | str,
    interrupted: bool,
) -> LoadReport:
    """Build the report. `journal` is the check, or the reason why there is none."""
    accepted = [payment for payment in payments if payment.id is not None]
    settled = [payment for payment in accepted if payment.status in TERMINAL and not payment.lost]
    return LoadReport(
        run_id=run_id,
        payments=len(payments),
        accepted=len(accepted),
        settled=len(settled),
        by_status=_counted(payment.status for payment in accepted if payment.at_rest and not payment.lost),
        waiting=_counted(payment.status for payment in accepted if not payment.at_rest),
        lost=sum(payment.lost for payment in accepted),
        shared=len(accepted) - len({payment.id for payment in accepted}),
        wrong_amount=sum(payment.wrong_amount for payment in accepted),
        retried=tally.retried,
        errors=dict(sorted(tally.errors.items())),
        accept_rate=round(len(accepted) / tally.sending_s, 1) if tally.sending_s else 0.0,
        settled_rate=_settled_rate(settled),
        sending_s=round(tally.sending_s, 3),
        accept=latency(payment.accept_ms for payment in accepted),
        settle=latency(_settle_ms(payment) for payment in settled),
        journal=None if isinstance(journal, str) else journal,
        journal_error=journal if isinstance(journal, str) else None,
        interrupted=interrupted,
    )


def _counted(statuses: Iterable[str]) -> dict[str, int]:
    return {str(status): count for status, count in Counter(statuses).most_common()}


def _settle_ms(payment: Tracked) -> float:
    """Return the time from accepted to settled by the server's clock: polling is coarse, and clocks differ."""
    assert payment.created_at is not None
    assert payment.updated_at is not None
    return (payment.updated_at - payment.created_at).total_seconds() * 1000


def _settled_rate(settled: Sequence[Tracked]) -> float | None:
    """Return the seconds from the first accept to the last settle, by the server's clock."""
    if not settled:
        return None
    first = min(payment.created_at for payment in settled if payment.created_at is not None)
    last = max(payment.updated_at for payment in settled if payment.updated_at is not None)
    seconds = (last - first).total_seconds()
    return round(len(settled) / seconds, 1) if seconds > 0 else None

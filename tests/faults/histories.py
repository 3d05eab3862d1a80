"""Histories for the tests of the invariants: one good one with every kind of ending, and the means to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from okane.payment import Status
from streams import ConsumerStats, LaneStats, StreamStats
from torture.history.journals import (
    Charge,
    EventRow,
    History,
    Observation,
    PaymentRow,
    ProviderCounts,
    Request,
    SwitchedTime,
)

STARTED_S = 1_800_000_000.0
CANARY = "s3cr3t/of a canary"

# Too long a fraction, the whole part of a measure, parts of ids, and a wrong check digit.
NO_CARDS = (
    "0.4111111111111111 s",
    "4111111111111111.5",
    "pay_4111111111111111",
    "4111111111111111e",
    "4111111111111112",
)

_STATUS = {
    "claimed": Status.PROCESSING,
    "success": Status.SUCCESS,
    "declined": Status.FAILED_FINAL,
    "spent": Status.FAILED_FINAL,
    "unavailable": Status.FAILED_RETRYABLE,
    "unknown": Status.UNKNOWN,
    "deferred": Status.FAILED_RETRYABLE,
    "pending": Status.SUBMITTED,
    "authorized": Status.AUTHORIZED,
    "needs_review": Status.NEEDS_REVIEW,
    "retried": Status.PENDING,
    "canceled": Status.CANCELED,
    "decided": Status.SUCCESS,
}


@dataclass(frozen=True, slots=True)
class Story:
    """One payment as Postgres and the provider have it."""

    row: PaymentRow
    events: Sequence[EventRow]
    charges: Sequence[Charge] = ()

    def charged(
        self, *, after_claim: int = 1, captured: bool = True, key: str | None = None, provider: str = "http"
    ) -> Story:
        """With a line in the provider's journal, of a call right after that claim (0: after the acceptance)."""
        moments_s = [STARTED_S, *(line.at_s for line in self.events if line.event == "claimed")]
        charge = Charge(
            payment_id=self.row.id,
            key=key or self.row.provider_key,
            amount_minor=self.row.amount_minor,
            currency=self.row.currency,
            captured=captured,
            at_s=moments_s[after_claim] + 0.5,
            provider=provider,
        )
        return replace(self, charges=(*self.charges, charge))


def story(name: str, *words: str, reason: str | None = None, amount_minor: int = 1000) -> Story:
    """A payment to which these events happened. `late_result` may say whose it was and where it led: `late_result:1`,
    `late_result:1:needs_review`. A claim may name its provider: `claimed::stripe`."""
    status, attempt, retries = Status.PENDING, 0, 0
    providers: dict[int, str] = {}
    events = []
    for version, said in enumerate(words, 1):
        word, _, about = said.partition(":")
        whose, _, led_to = about.partition(":")
        retries += word == "unavailable" or (word == "claimed" and status is Status.PROCESSING)
        if word == "retried":
            retries = 0
        if word == "claimed":
            attempt += 1
            providers[attempt], led_to = led_to or "http", ""
        status = Status(led_to) if led_to else _STATUS.get(word, status)
        events.append(
            EventRow(
                version=version,
                at_s=STARTED_S + version,
                event=word,
                status=status,
                attempt=int(whose) if whose else attempt,
                actor="w1",
                provider=providers.get(int(whose) if whose else attempt),
            )
        )
    row = PaymentRow(
        id=f"id-{name}",
        account_id="default",
        key=f"key-{name}",
        amount_minor=amount_minor,
        currency="USD",
        status=status,
        version=len(events),
        attempts=attempt,
        provider_key=f"id-{name}",
        created_at_s=STARTED_S,
        reason=reason,
        retries=retries,
    )
    return Story(row, events)


def request(one: Story, *, status: int = 202, **changes: Any) -> Request:
    """A POST of this payment, acknowledged unless something else is said."""
    acknowledged = status in (200, 202)
    asked = Request(
        key=one.row.key,
        amount_minor=one.row.amount_minor,
        currency=one.row.currency,
        sent_s=1.0,
        answered_s=1.5,
        status=status,
        payment_id=one.row.id if acknowledged else None,
        created=status == 202 if acknowledged else None,
        enqueued=status == 202 if acknowledged else None,
    )
    return replace(asked, **changes)


def _twice_keyed(name: str) -> Story:
    """Declined, retried by hand under a new key, and charged."""
    told = story(name, "claimed", "declined", "retried", "claimed", "success")
    told = replace(told, row=replace(told.row, provider_key=f"id-{name}:3"))
    return told.charged(captured=False, key=f"id-{name}").charged(after_claim=2)


STORIES: Sequence[Story] = (
    story("plain", "claimed", "success").charged(),
    story("repeated", "claimed", "success").charged(),
    story("declined", "claimed", "declined").charged(captured=False),
    story("retried", "claimed", "unavailable", "claimed", "unavailable", "claimed", "success").charged(after_claim=3),
    story("crashed", "claimed", "claimed", "success", "late_result:1").charged(),
    story("looked-up", "claimed", "unknown", "claimed", "success").charged(),
    story("doubtful", "claimed", "unknown", "claimed", "needs_review", reason="open for too long").charged(),
    story("spent", "claimed", "unavailable", "claimed", "spent", reason="503"),
    story("replayed", "claimed", "spent", "retried", "claimed", "success").charged(after_claim=2),
    _twice_keyed("rekeyed"),
    story("late", "claimed", "claimed", "spent", "late_result:1:needs_review", reason="late success").charged(),
    story("poison", "needs_review", reason="poison: delivered 5 times"),
    story("canceled", "canceled"),
    story("reviewed", "claimed", "needs_review", "decided", reason="seen on the statement").charged(),
    story("never-heard", "claimed", "success").charged(),
    story("limited", "claimed", "deferred", "claimed", "success").charged(after_claim=2),
    story("fallen-back", "claimed", "unavailable", "claimed::stripe", "success").charged(
        after_claim=2, provider="stripe"
    ),
    story(
        "3-D Secure", "claimed::stripe", "pending", "claimed::stripe", "pending", "claimed::stripe", "success"
    ).charged(provider="stripe"),
    story("drained", "claimed::bank", "unknown", "claimed::bank", "success").charged(
        provider="bank"
    ),  # looked up while it was drained
)
# The provider of `drained` was, from its first outcome on, and another one is all the time.
SWITCHED = (
    SwitchedTime(provider="bank", mode="drain", since_s=STARTED_S + 2.5, until_s=STARTED_S + 3.5),
    SwitchedTime(provider="payu", mode="off", since_s=STARTED_S, until_s=STARTED_S + 100),
)
BY_NAME = {one.row.id.removeprefix("id-"): one for one in STORIES}


def good() -> History:
    """A history in which everything holds although much went wrong."""
    told = [one for one in STORIES if one.row.key != "key-never-heard"]
    repeated, plain = BY_NAME["repeated"], BY_NAME["plain"]
    requests = [
        *(request(one) for one in told),
        request(BY_NAME["never-heard"], status=0),
        request(repeated, status=200),  # the repeat of one, in parallel
        request(repeated, status=0),
        request(repeated, status=503),
        request(plain, status=422, amount_minor=999),
        request(plain, status=429, currency="EUR"),
    ]
    return History(
        requests=requests,
        observations=[*(seen(one) for one in told), seen(BY_NAME["replayed"], status="failed_final")],  # as it once was
        charges=[charge for one in STORIES for charge in one.charges],
        provider=ProviderCounts(calls=12),
        switched=SWITCHED,
        rows={one.row.id: one.row for one in STORIES},
        events={one.row.id: one.events for one in STORIES if one.events},
        metrics={"w1": {'okane_sweep_repairs_total{lane="low"}': 3.0}, "w2": {}},
        broker=broker(),
        operation_broker=broker(stream="operations", lanes=(lane("capture"), lane("void"), lane("refund"))),
        live_consumers=frozenset({"w1", "w2"}),
        logs={"w1": ['{"event": "worker_started"}', *NO_CARDS]},
        canaries=[CANARY],
        faults=True,
        waited_s=60,
    )


def seen(one: Story, **changes: Any) -> Observation:
    """A GET of this payment."""
    row = one.row
    shown = Observation(
        payment_id=row.id,
        at_s=100.0,
        http_status=200,
        status=row.status,
        amount_minor=row.amount_minor,
        currency=row.currency,
    )
    return replace(shown, **changes)


def lane(name: str = "low", **changes: Any) -> LaneStats:
    empty = LaneStats(
        lane=name,
        length=0,
        pending=0,
        lag=0,
        consumers=2,
        last_id="1-0",
        last_delivered_id="1-0",
        oldest_ms=None,
    )
    return replace(empty, **changes)


def broker(**changes: Any) -> StreamStats:
    """Two workers, nothing to do, and dead letters, which may stay."""
    at_rest = StreamStats(
        stream="payments",
        group="workers",
        now_ms=1,
        lanes=(lane("critical"), lane("default"), lane("low")),
        consumers=tuple(ConsumerStats(name=name, lane="low", pending=0, idle_ms=5) for name in ("w1", "w2")),
        delayed=0,
        next_due_ms=None,
        dead=3,
    )
    return replace(at_rest, **changes)


Spoil = Callable[[History], History]


def with_row(name: str, **changes: Any) -> Spoil:
    """Another row for this payment."""
    payment_id = f"id-{name}"
    return lambda history: replace(
        history, rows={**history.rows, payment_id: replace(history.rows[payment_id], **changes)}
    )


def with_event(name: str, version: int, /, **changes: Any) -> Spoil:
    """Another event in the place of this one."""

    def spoil(history: History) -> History:
        lines = [replace(line, **changes) if line.version == version else line for line in history.events[f"id-{name}"]]
        return replace(history, events={**history.events, f"id-{name}": lines})

    return spoil


def with_story(one: Story) -> Spoil:
    """Add a payment, or replace the one of that name, without an answer to a client."""

    def spoil(history: History) -> History:
        others = [charge for charge in history.charges if charge.payment_id != one.row.id]
        return replace(
            history,
            rows={**history.rows, one.row.id: one.row},
            events={**history.events, one.row.id: one.events},
            charges=[*others, *one.charges],
        )

    return spoil


def with_requests(*more: Request) -> Spoil:
    return lambda history: replace(history, requests=[*history.requests, *more])


def with_other_requests(name: str, **changes: Any) -> Spoil:
    """All that was asked about this payment was something else."""
    return lambda history: replace(
        history,
        requests=[replace(each, **changes) if each.key == f"key-{name}" else each for each in history.requests],
    )


def with_observations(*more: Observation) -> Spoil:
    return lambda history: replace(history, observations=[*history.observations, *more])


def with_charges(*more: Charge) -> Spoil:
    return lambda history: replace(history, charges=[*history.charges, *more])


def with_log(*lines: str) -> Spoil:
    return lambda history: replace(history, logs={**history.logs, "w2": lines})


def having(**changes: Any) -> Spoil:
    return lambda history: replace(history, **changes)


def without(name: str) -> Spoil:
    """Nothing is known of this payment in Postgres."""
    payment_id = f"id-{name}"
    return lambda history: replace(
        history,
        rows={each: row for each, row in history.rows.items() if each != payment_id},
        events={each: lines for each, lines in history.events.items() if each != payment_id},
    )


def both(*spoils: Spoil) -> Spoil:
    def spoil(history: History) -> History:
        for each in spoils:
            history = each(history)
        return history

    return spoil

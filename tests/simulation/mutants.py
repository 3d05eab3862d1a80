"""Bugs planted on purpose. Each must be caught within the budget, or the simulation is blind to its kind.

Each is a context manager: the product is wrong in one way inside its block.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from okane.http.connection import HttpResponse
from okane.intake.provider_notices import NoticeIntake
from okane.payment import Payment, Status
from okane.providers.base import ChargeResult, Declined, Notice, Traits, Unavailable, Unknown
from okane.providers.stripe import answers
from okane.providers.stripe import provider as stripe
from okane.store import Call, Claim, Settlement, UsableProvider
from okane.store.provider_events import TakeResult
from okane.worker.charge import PaymentHandler
from okane.worker.late_look_up import LateLookUps
from okane.worker.lease_renewal import Lease
from okane.worker.outcome_rules import OutcomeRules, PaymentOutcome
from okane.worker.provider_set import Gateway
from okane.worker.sweep import Sweep
from streams import Consumer, Done, Handler, Message, Outcome, StreamRefused, scripts
from streams.flights import Flight
from streams.reclaim import Reclaimer
from tests.simulation.redis_client import MemoryRedis
from tests.simulation.store import MemoryPaymentStore, PaymentRow


@contextlib.contextmanager
def key_per_attempt() -> Iterator[None]:
    """Every attempt has a provider key of its own. Caught by I2: after a time-out the money moves twice."""
    attempt = PaymentHandler._attempt

    async def broken(self: PaymentHandler, claim: Claim, lease: Lease) -> Settlement | None:
        payment = claim.payment
        key = f"{payment.id}:{payment.attempts}"
        return await attempt(self, replace(claim, payment=replace(payment, provider_key=key)), lease)

    with patch.object(PaymentHandler, "_attempt", broken):
        yield


@contextlib.contextmanager
def no_fence() -> Iterator[None]:
    """Any attempt may write. Caught by I8: a result was written by a worker that did not hold the payment."""

    def broken(_self: MemoryPaymentStore, row: PaymentRow, _attempt: int) -> bool:
        return row.status is Status.PROCESSING

    with patch.object(MemoryPaymentStore, "_holds", broken):
        yield


@contextlib.contextmanager
def ack_before_commit() -> Iterator[None]:
    """The entry goes before the payment is settled. Caught when it goes: its payment is open, and has no other wake-up."""
    handle = Consumer._handle

    async def broken(self: Consumer, handler: Handler, flights: Sequence[Flight]) -> None:
        [flight] = flights
        early = replace(flight, outcome=Done())
        await self._acker._send(self._acker._parts([early]))
        await handle(self, handler, flights)

    with patch.object(Consumer, "_handle", broken):
        yield


def group_at_dollar() -> AbstractContextManager[None]:
    """The group starts at `$`. Caught by the rule that no entry is behind its group without being pending."""
    return _rewritten("create_group", "'0', 'MKSTREAM'", "'$', 'MKSTREAM'")


def trimmed() -> AbstractContextManager[None]:
    """Publishing trims. Caught by the rule that an entry leaves its stream only when it is acked."""
    return _rewritten("publish", "KEYS[lane], '*'", "KEYS[lane], 'MAXLEN', '3', '*'")


def plain_heartbeat() -> AbstractContextManager[None]:
    """A lease is renewed for any consumer. Caught by the rule that only an expired lease changes hands."""
    return _rewritten("renew", "if pending and pending[2] == consumer then", "if pending then")


def acks_for_others() -> AbstractContextManager[None]:
    """Entries of other consumers are acked. Caught by the rule that only its holder acks an entry."""
    return _rewritten("ack", "elseif pending and pending[2] ~= consumer then", "elseif false then")


@contextlib.contextmanager
def cursor_reset() -> Iterator[None]:
    """Every scan for silent consumers starts at the top. Caught by the rule that it goes on where it stopped."""
    step = Reclaimer._step

    async def broken(self: Reclaimer, lane: str, count: int) -> tuple[list[Message], bool]:
        taken = await step(self, lane, count)
        self._cursors.pop(lane, None)
        return taken

    with patch.object(Reclaimer, "_step", broken):
        yield


def default_retries() -> AbstractContextManager[Any]:
    """The client sends again by itself. Caught by the rule that one call is executed once: the claim drops the double."""
    return patch.object(MemoryRedis, "resends", True)


def unknown_is_failed() -> AbstractContextManager[Any]:
    """A time-out counts as a no. Caught by I4: the money moved, and the payment says that it failed."""
    return _charged(
        lambda _claim, result: PaymentOutcome(Status.FAILED_FINAL, "declined", decline_code="x", reason=result.reason)
    )


@contextlib.contextmanager
def unknown_is_unavailable() -> Iterator[None]:
    """A time-out counts as never sent, and is charged again at once. Caught by I4, when the retries are spent by then."""
    charged = OutcomeRules.charged

    def broken(
        self: OutcomeRules, claim: Claim, result: ChargeResult, traits: Traits, *, roll: float
    ) -> PaymentOutcome:
        result = Unavailable(result.reason) if isinstance(result, Unknown) else result
        return charged(self, claim, result, traits, roll=roll)

    with patch.object(OutcomeRules, "charged", broken):
        yield


@contextlib.contextmanager
def no_look_up() -> Iterator[None]:
    """An open outcome is charged again, not looked up. Caught by the rule that every such charge follows a look-up."""
    attempt = PaymentHandler._attempt

    async def broken(self: PaymentHandler, claim: Claim, lease: Lease) -> Settlement | None:
        return await attempt(self, replace(claim, look_up_first=False), lease)

    with patch.object(PaymentHandler, "_attempt", broken):
        yield


@contextlib.contextmanager
def no_late_look_up() -> Iterator[None]:
    """A closed payment is not looked up again. Caught by I4: a charge that was held back arrived after it was closed."""

    async def broken(self: LateLookUps, payment_id: UUID) -> Outcome:
        taken = await self._retry_store_call(self._store.begin_late_look_up, payment_id, again=self._again)
        if taken is not None:
            await self._retry_store_call(self._store.plan_late_look_up, taken.payment, begun_at=taken.begun_at)
        return Done()

    with patch.object(LateLookUps, "run", broken):
        yield


def no_lease_check() -> AbstractContextManager[Any]:
    """A worker that slept through its lease goes on to charge. Caught by I9: its lease has run out."""
    return patch.object(Lease, "is_valid", True)


@contextlib.contextmanager
def refusal_is_no_outage() -> Iterator[None]:
    """Only a Redis that does not answer counts as away. Caught by I5 in a world whose Redis refuses for good."""
    lost = Sweep._lost

    def broken(self: Sweep, reason: BaseException | str) -> None:
        if isinstance(reason, StreamRefused):
            raise reason
        lost(self, reason)

    with patch.object(Sweep, "_lost", broken):
        yield


def blind_to_readers() -> AbstractContextManager[Any]:
    """A Redis that takes wake-ups counts as there, whether or not they can be read. Caught by I5, as above."""
    return patch.object(Consumer, "unable_for", timedelta(0))


def no_sweep() -> AbstractContextManager[Any]:
    """No worker sweeps. Caught by I5: a payment whose wake-up was lost waits forever."""

    async def broken(_self: Sweep, stop: asyncio.Event) -> None:
        await stop.wait()

    return patch.object(Sweep, "run", broken)


@contextlib.contextmanager
def other_provider_after_unknown() -> Iterator[None]:
    """A payment whose outcome is open may be charged at another provider. Caught by I23, and by I20 where both charge."""
    is_pinned: Any = PaymentRow.is_pinned

    def broken(row: PaymentRow) -> bool:
        return bool(is_pinned.fget(row)) and row.status is not Status.UNKNOWN

    with patch.object(PaymentRow, "is_pinned", property(broken)), _falling_back():
        yield


@contextlib.contextmanager
def crash_forgets_the_pin() -> Iterator[None]:
    """The claim after a crash chooses the provider anew. Caught by I23, and by I20 where both charge."""
    is_pinned: Any = PaymentRow.is_pinned

    def broken(row: PaymentRow) -> bool:
        return bool(is_pinned.fget(row)) and row.status is not Status.PROCESSING

    with patch.object(PaymentRow, "is_pinned", property(broken)), _falling_back():
        yield


@contextlib.contextmanager
def other_provider_before_release() -> Iterator[None]:
    """A soft decline goes to the next candidate without a close at its provider. Caught by the rule that it was closed."""

    async def broken(
        self: PaymentHandler, _call: Call, claim: Claim, gateway: Gateway, declined: Declined
    ) -> PaymentOutcome:
        return self._rules.released(claim, declined, declined, gateway.provider.traits)

    with patch.object(PaymentHandler, "_released", broken):
        yield


@contextlib.contextmanager
def replay_after_key_end() -> Iterator[None]:
    """Every key counts as new. Caught by the rule that an old key is looked up in the list before it is sent again."""
    attempt = PaymentHandler._attempt

    async def broken(self: PaymentHandler, claim: Claim, lease: Lease) -> Settlement | None:
        return await attempt(self, replace(claim, key_age_s=0.0), lease)

    with patch.object(PaymentHandler, "_attempt", broken):
        yield


@contextlib.contextmanager
def server_error_is_refusal() -> Iterator[None]:
    """A 5xx of a gateway counts as "nothing happened". Caught by I4: a spent payment was charged."""
    parse = answers.parse_charge_answer

    def broken(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult:
        if answer.status >= 500:
            return Unavailable(f"HTTP {answer.status}")
        return parse(answer, payment, now=now)

    with patch.object(stripe, "parse_charge_answer", broken):
        yield


@contextlib.contextmanager
def settled_by_notice() -> Iterator[None]:
    """A notice settles its payment, without a fetch. Caught by the rule that an answer to the attempt said so."""
    take = NoticeIntake.take
    outcomes = {
        "payment_intent.succeeded": (Status.SUCCESS, "success"),
        "payment_intent.payment_failed": (Status.FAILED_FINAL, "declined"),
    }

    async def broken(self: NoticeIntake, provider: str, notices: Sequence[Notice]) -> Sequence[TakeResult]:
        results = await take(self, provider, notices)
        store = self._payments._store
        store.usable_providers = lambda: [UsableProvider(provider, is_default=True)]
        for notice in notices:
            if notice.kind in outcomes and notice.payment_id is not None:
                claim = await store.claim(notice.payment_id)
                if isinstance(claim, Claim):
                    status, event = outcomes[notice.kind]
                    settled = Settlement(
                        payment_id=notice.payment_id,
                        attempt=claim.payment.attempts,
                        status=status,
                        event=event,
                        call="look_up",
                        provider=provider,
                        latency=timedelta(0),
                        provider_ref=notice.provider_ref if status is Status.SUCCESS else None,
                    )
                    await store.settle(settled)
        return results

    with patch.object(NoticeIntake, "take", broken):
        yield


@contextlib.contextmanager
def limit_burns_a_retry() -> Iterator[None]:
    """A rate limit counts as a failure of the provider. Caught by I25."""
    charged = OutcomeRules.charged

    def broken(
        self: OutcomeRules, claim: Claim, result: ChargeResult, traits: Traits, *, roll: float
    ) -> PaymentOutcome:
        result = Unavailable(result.reason) if isinstance(result, Unavailable) else result
        return charged(self, claim, result, traits, roll=roll)

    with patch.object(OutcomeRules, "charged", broken):
        yield


@contextlib.contextmanager
def switch_ignored() -> Iterator[None]:
    """Claims do not read the switch. Caught by I24."""

    def broken(_self: MemoryPaymentStore, offered: Sequence[UsableProvider], _now: datetime) -> dict[str, bool]:
        return {one.name: True for one in offered}

    with patch.object(MemoryPaymentStore, "_usable", broken):
        yield


@contextlib.contextmanager
def drained_is_charged() -> Iterator[None]:
    """The look-up at a drained provider may make the charge. Caught by the rule that its claim came after the switch."""
    attempt = PaymentHandler._attempt

    async def broken(self: PaymentHandler, claim: Claim, lease: Lease) -> Settlement | None:
        return await attempt(self, replace(claim, may_charge=True), lease)

    with patch.object(PaymentHandler, "_attempt", broken):
        yield


MUTANTS: Final[Mapping[str, Callable[[], AbstractContextManager[Any]]]] = {
    mutant.__name__: mutant
    for mutant in (
        key_per_attempt,
        no_fence,
        ack_before_commit,
        group_at_dollar,
        trimmed,
        cursor_reset,
        default_retries,
        unknown_is_failed,
        unknown_is_unavailable,
        no_look_up,
        no_late_look_up,
        plain_heartbeat,
        acks_for_others,
        no_lease_check,
        no_sweep,
        refusal_is_no_outage,
        blind_to_readers,
        other_provider_after_unknown,
        other_provider_before_release,
        crash_forgets_the_pin,
        replay_after_key_end,
        server_error_is_refusal,
        settled_by_notice,
        limit_burns_a_retry,
        switch_ignored,
        drained_is_charged,
    )
}


@contextlib.contextmanager
def _falling_back() -> Iterator[None]:
    """Let a payment that is not pinned go to the last candidate after its first attempt."""
    provider_for = MemoryPaymentStore._provider_for

    def broken(
        self: MemoryPaymentStore, row: PaymentRow, usable: Mapping[str, bool], *, defaults: Sequence[str]
    ) -> str | None:
        chosen = provider_for(self, row, usable, defaults=defaults)
        if row.is_pinned or row.attempts == 0 or chosen is None:
            return chosen
        return next((name for name in reversed(list(usable)) if usable[name]), chosen)

    with patch.object(MemoryPaymentStore, "_provider_for", broken):
        yield


@contextlib.contextmanager
def _charged(verdict: Callable[[Claim, Unknown], PaymentOutcome]) -> Iterator[None]:
    charged = OutcomeRules.charged

    def broken(
        self: OutcomeRules, claim: Claim, result: ChargeResult, traits: Traits, *, roll: float
    ) -> PaymentOutcome:
        if isinstance(result, Unknown):
            return verdict(claim, result)
        return charged(self, claim, result, traits, roll=roll)

    with patch.object(OutcomeRules, "charged", broken):
        yield


@contextlib.contextmanager
def _rewritten(name: str, old: str, new: str) -> Iterator[None]:
    """Replace one place of a Lua script."""
    script = getattr(scripts, f"_{name}")
    text, digest = script._text, script._digest
    assert text.count(old) == 1, f"{name}.lua has changed: this mutant needs another place"
    script._text = text.replace(old, new)
    script._digest = hashlib.sha1(script._text.encode(), usedforsecurity=False).hexdigest()
    try:
        yield
    finally:
        script._text, script._digest = text, digest

"""The invariants over the journals of one run, and the verdict. Pure, and linear in the size of the history.

Each judges one thing alone, so that what broke is named once: how many charges there are is I2's, whether there is one at
all I3's, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from okane.operation import OperationKind
from okane.payment import CLOSED_UNCHARGED, Status
from torture.history.journals import History
from torture.invariants import (
    at_rest,
    decisions,
    disputes,
    leaks,
    methods,
    money,
    operation_timelines,
    operations,
    promises,
    providers,
    routes,
    timelines,
    webhooks,
)
from torture.invariants.violation import Violation

__all__ = ["INVARIANTS", "Finding", "Invariant", "Verdict", "Violation", "check"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """`judged` counts what there was to judge: a verdict over nothing proves nothing."""

    name: str
    meaning: str
    check: Callable[[History], Sequence[Violation]]
    judged: Callable[[History], int]


@dataclass(frozen=True, slots=True)
class Finding:
    """The violations of one invariant, and the number of cases that it judged."""

    invariant: Invariant
    judged: int
    violations: Sequence[Violation]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding for each invariant, in their order."""

    findings: Sequence[Finding]

    @property
    def holds(self) -> bool:
        return not any(finding.violations for finding in self.findings)

    @property
    def violations(self) -> Sequence[Violation]:
        return [violation for finding in self.findings for violation in finding.violations]

    @property
    def counts(self) -> Mapping[str, int]:
        """Violations by invariant, the zeros included."""
        return {finding.invariant.name: len(finding.violations) for finding in self.findings}

    @property
    def not_judged(self) -> Sequence[str]:
        """The invariants for which the history holds nothing."""
        return [finding.invariant.name for finding in self.findings if not finding.judged]


def check(history: History) -> Verdict:
    """Judge a history by every invariant."""
    return Verdict([Finding(each, each.judged(history), each.check(history)) for each in INVARIANTS])


def _acknowledged(history: History) -> int:
    return sum(request.acknowledged for request in history.requests)


def _captured(history: History) -> int:
    return sum(charge.captured for charge in history.charges)


def _rows(*statuses: Status) -> Callable[[History], int]:
    return lambda history: sum(row.status in statuses for row in history.rows.values())


def _events(history: History) -> int:
    return sum(map(len, history.events.values()))


def _operations(history: History) -> int:
    return len(history.operations.rows)


def _moves(*kinds: OperationKind) -> Callable[[History], int]:
    return lambda history: sum(move.moved and move.kind in kinds for move in history.operations.moves)


INVARIANTS: Sequence[Invariant] = (
    Invariant(
        "I1",
        "every acknowledged payment exists, with the same amount and currency",
        promises.acknowledged_payments_exist,
        _acknowledged,
    ),
    Invariant("I2", "at most one captured charge per payment at a provider", money.charged_once_at_most, _captured),
    Invariant(
        "I3",
        "success if and only if charged, the same amount",
        money.success_means_charged,
        _rows(Status.SUCCESS),
    ),
    Invariant(
        "I4", "no charge for what failed or was canceled", money.failure_means_not_charged, _rows(*CLOSED_UNCHARGED)
    ),
    Invariant(
        "I5",
        "no payment is open, but those that wait for a human and say why",
        at_rest.everything_is_decided,
        lambda history: len(history.rows),
    ),
    Invariant(
        "I6",
        "terminal statuses change by a recorded manual action only",
        timelines.terminal_statuses_stay,
        _events,
    ),
    Invariant(
        "I7",
        "same key, same payment, one row; another meaning is refused with 422",
        promises.one_key_is_one_payment,
        lambda history: len(history.requests),
    ),
    Invariant(
        "I8",
        "attempts rise with every claim, nothing is written under a stale one",
        timelines.attempts_fence,
        _events,
    ),
    Invariant(
        "I9",
        "every provider call was preceded by a committed claim",
        money.calls_follow_claims,
        lambda history: len(history.charges),
    ),
    Invariant(
        "I10",
        "at rest: streams, pending lists and delayed set empty, no idle consumers",
        at_rest.broker_is_at_rest,
        lambda history: sum(len(one.lanes) for one in (history.broker, history.operation_broker) if one is not None),
    ),
    Invariant(
        "I11",
        "without faults the sweep repairs less than 0.1 %",
        at_rest.sweep_repairs_little,
        lambda history: 0 if history.faults else len(history.rows),
    ),
    Invariant(
        "I12",
        "no canary secret or card number in any log",
        leaks.logs_hold_no_secrets,
        lambda history: len(history.logs),
    ),
    Invariant(
        "I13",
        "every change of a subscribed type arrived at its endpoint, or is given up with a reason",
        webhooks.of_webhooks(webhooks.nothing_is_missed),
        webhooks.count_due,
    ),
    Invariant(
        "I14",
        "per endpoint and payment one request at a time, in the order of versions",
        webhooks.of_webhooks(webhooks.payments_are_in_order),
        webhooks.count_received,
    ),
    Invariant(
        "I15",
        "every webhook verifies under a secret of its time, and one id has one body",
        webhooks.of_webhooks(webhooks.requests_are_signed),
        webhooks.count_received,
    ),
    Invariant(
        "I16",
        "no webhook after a deletion, of another account, or of a type not subscribed to",
        webhooks.of_webhooks(webhooks.nothing_uncalled_arrives),
        webhooks.count_received,
    ),
    Invariant(
        "I17",
        "at rest: outbox empty, every endpoint queue at the end of a dense log, no delivery waits",
        webhooks.of_webhooks(webhooks.log_is_at_rest),
        webhooks.count_logged,
    ),
    Invariant(
        "I18",
        "a delivered webhook is sent again only if its result could not be written",
        webhooks.of_webhooks(webhooks.repeats_have_a_reason),
        webhooks.count_received,
    ),
    Invariant(
        "I19",
        "a dead endpoint does not delay the others",
        webhooks.of_webhooks(webhooks.dead_endpoints_harm_no_other),
        webhooks.count_compared,
    ),
    Invariant(
        "I20",
        "at most one provider has charged a payment",
        providers.charged_by_one_provider,
        _captured,
    ),
    Invariant(
        "I21",
        "captured once, and for no more than was authorized",
        operations.captured_is_authorized,
        _moves(OperationKind.CAPTURE),
    ),
    Invariant(
        "I22",
        "the refunds of a payment never exceed what was captured",
        operations.refunded_is_captured,
        _moves(OperationKind.REFUND),
    ),
    Invariant(
        "I23",
        "from its pin on, a payment's events name one provider",
        providers.pinned_payments_stay,
        _events,
    ),
    Invariant(
        "I24",
        "a provider that is switched off gets no charge, and a drained one no new one",
        providers.switched_off_is_not_charged,
        lambda history: len(history.switched),
    ),
    Invariant(
        "I25",
        "only the provider's failures and crashes burn a retry",
        providers.only_failures_burn_retries,
        lambda history: len(history.rows),
    ),
    Invariant(
        "I26",
        "every acknowledged operation exists as it was asked for; one key, one operation",
        operation_timelines.acknowledged_operations_exist,
        lambda history: sum(request.acknowledged for request in history.operations.requests),
    ),
    Invariant(
        "I27",
        "no operation is open, but those that wait for a human and say why",
        operation_timelines.operations_are_decided,
        _operations,
    ),
    Invariant(
        "I28",
        "an operation moves money once at most",
        operations.one_move_per_operation,
        _moves(*OperationKind),
    ),
    Invariant(
        "I29",
        "an operation is a success if and only if the provider's books have it, with that amount",
        operations.success_means_moved,
        _operations,
    ),
    Invariant(
        "I30",
        "no money moves beside a void",
        operations.nothing_follows_a_void,
        _moves(OperationKind.VOID),
    ),
    Invariant(
        "I31",
        "the amounts in a payment's row are the sums of its operations, and its timeline tells each",
        operations.amounts_are_sums,
        _operations,
    ),
    Invariant(
        "I32",
        "operations change as allowed, under the live claim, and a claim comes before each move",
        operation_timelines.operations_are_claimed,
        _operations,
    ),
    Invariant(
        "I33",
        "a person's decision is applied once at most, to what was seen, under that name, and as it was answered",
        decisions.decisions_are_applied_once,
        lambda history: len(history.decisions or ()),
    ),
    Invariant(
        "I34",
        "nothing but a person's decision, or a late result, changes what is at rest",
        decisions.only_people_decide,
        decisions.count_decided,
    ),
    Invariant(
        "I35",
        "one key, one saved method; it takes payments until its deletion, and none that is new afterwards",
        methods.methods_take_payments,
        lambda history: len(history.methods.payments),
    ),
    Invariant(
        "I36",
        "a payment is charged with the token of its own method, for its customer, as present or not",
        methods.tokens_are_charged,
        methods.count_saved_tokens,
    ),
    Invariant(
        "I37",
        "every dispute of the gateway's books is there once, as it is in the books, and no other",
        disputes.disputes_are_there_once,
        lambda history: len(history.disputes.booked),
    ),
    Invariant(
        "I38",
        "a payment's timeline tells once that a dispute has opened, and once that it is over",
        disputes.timelines_tell_of_disputes,
        lambda history: len(history.disputes.steps),
    ),
    Invariant(
        "I39",
        "a payment goes where the rules of its acceptance lead it, whatever they are later",
        routes.payments_keep_their_routes,
        routes.count_routed,
    ),
)

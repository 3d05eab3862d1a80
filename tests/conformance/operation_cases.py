"""The cases of captures, voids and refunds that every adapter has to pass, for what its gateway can do.

They hold the adapter against the gateway's own books: never captured twice or beyond the authorization, nothing after a
void, never refunded beyond what was captured, and each operation executed once whatever becomes of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers.base import Approved, Authorized, Capability, Declined, NotFound, Pending, Unavailable, Unknown
from tests.conformance.bench import TIMEOUT, Bench
from tests.conformance.fault_proxy import CUT_ANSWER, LOST_ANSWER, LOST_REQUEST, Fault
from tests.conformance.gateway import Money
from tests.operations import operation_of

Case = Callable[[Bench], Awaitable[None]]
CASES: list[Case] = []
_NEEDS: dict[Case, frozenset[Capability]] = {}
_KEYED: set[Case] = set()
_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html"}
_PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_CAPTURE, _VOID, _REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
_NEEDED: dict[OperationKind, tuple[Capability, ...]] = {
    _CAPTURE: ("manual_capture",),
    _VOID: ("manual_capture", "void"),
    _REFUND: ("refund",),
}


def case(*needs: Capability) -> Callable[[Case], Case]:
    """Add a case for gateways with these capabilities."""

    def add(function: Case) -> Case:
        CASES.append(function)
        _NEEDS[function] = frozenset(needs)
        return function

    return add


def keyed(function: Case) -> Case:
    """Mark a case for gateways that take an idempotency key for an operation."""
    _KEYED.add(function)
    return function


def cases_of(capabilities: frozenset[Capability], *, keys: bool = True) -> Sequence[Case]:
    """Return the cases of a gateway; with `keys` False one that takes no idempotency keys for operations."""
    return [one for one in CASES if _NEEDS[one] <= capabilities and (keys or one not in _KEYED)]


async def _executed(bench: Bench, operation: Operation, payment: Payment) -> None:
    """Execute an operation, and see it by a look-up."""
    result = await bench.operate(operation, payment)
    assert isinstance(result, Approved), result
    assert await bench.look_up_operation(operation, payment) == result


async def _charged(bench: Bench, kind: OperationKind) -> tuple[Payment, Money]:
    """Return a payment to which the operation can be applied, and its money once the operation is executed."""
    if kind is _REFUND:
        payment = await bench.captured()
        return payment, Money(held=0, captured=payment.amount_minor, refunded=payment.amount_minor)
    payment = await bench.authorized()
    if kind is _VOID:
        return payment, Money(held=0, captured=0, refunded=0)
    return payment, Money(held=0, captured=payment.amount_minor, refunded=0)


@case("manual_capture")
async def a_manual_charge_holds_the_money_and_moves_none(bench: Bench) -> None:
    payment = await bench.authorized()
    assert await bench.money(payment) == Money(held=payment.amount_minor, captured=0, refunded=0)
    assert not (await bench.booked_once(payment)).moved
    found = await bench.look_up(payment)
    assert isinstance(found, Authorized), found
    assert found.provider_ref == payment.attempt_ref


@case("manual_capture")
async def a_lost_answer_to_a_manual_charge_is_unknown_and_the_authorization_is_found(bench: Bench) -> None:
    payment = replace(await bench.payment(), manual_capture=True)
    bench.strike(LOST_ANSWER)
    assert isinstance(await bench.charge(payment), Unknown)
    if bench.gateway.finds_lost_charges:
        assert isinstance(await bench.settled(payment, await bench.look_up(payment)), Authorized)
    await bench.booked_once(payment)


@case("manual_capture")
async def a_capture_takes_the_whole_amount(bench: Bench) -> None:
    payment, money = await _charged(bench, _CAPTURE)
    await _executed(bench, operation_of(payment, _CAPTURE), payment)
    assert await bench.money(payment) == money
    assert isinstance(await bench.look_up(payment), Approved)


@case("manual_capture", "partial_capture")
async def a_partial_capture_takes_a_part_and_lets_the_rest_go(bench: Bench) -> None:
    payment, _ = await _charged(bench, _CAPTURE)
    await _executed(bench, operation_of(payment, _CAPTURE, 700), payment)
    assert await bench.money(payment) == Money(held=0, captured=700, refunded=0)


@case("manual_capture")
async def nothing_is_captured_twice(bench: Bench) -> None:
    payment, money = await _charged(bench, _CAPTURE)
    await _executed(bench, operation_of(payment, _CAPTURE), payment)
    second = await bench.operate(operation_of(payment, _CAPTURE, payment.amount_minor - 1), payment)
    assert isinstance(second, Declined | Unknown), second
    assert await bench.money(payment) == money


@case("manual_capture")
async def more_than_was_authorized_is_not_captured(bench: Bench) -> None:
    payment, _ = await _charged(bench, _CAPTURE)
    result = await bench.operate(operation_of(payment, _CAPTURE, payment.amount_minor + 1), payment)
    assert isinstance(result, Declined), result
    assert await bench.money(payment) == Money(held=payment.amount_minor, captured=0, refunded=0)


@case("manual_capture", "void")
async def a_void_lets_the_money_go_and_nothing_is_captured_after_it(bench: Bench) -> None:
    payment, money = await _charged(bench, _VOID)
    await _executed(bench, operation_of(payment, _VOID), payment)
    assert await bench.money(payment) == money
    late = await bench.operate(operation_of(payment, _CAPTURE), payment)
    assert isinstance(late, Declined), late
    assert await bench.money(payment) == money


@case("manual_capture", "void")
async def what_was_captured_is_not_voided(bench: Bench) -> None:
    payment, money = await _charged(bench, _CAPTURE)
    await _executed(bench, operation_of(payment, _CAPTURE), payment)
    void = operation_of(payment, _VOID)
    result = await bench.operate(void, payment)
    assert isinstance(result, Declined), result
    assert isinstance(await bench.look_up_operation(void, payment), Declined)
    assert await bench.money(payment) == money


@case("refund")
async def a_refund_gives_the_whole_amount_back(bench: Bench) -> None:
    payment, money = await _charged(bench, _REFUND)
    await _executed(bench, operation_of(payment, _REFUND), payment)
    assert await bench.money(payment) == money


@case("manual_capture", "partial_capture", "refund")
async def a_refund_of_a_partial_capture_is_possible(bench: Bench) -> None:
    payment, _ = await _charged(bench, _CAPTURE)
    capture = operation_of(payment, _CAPTURE, 700)
    result = await bench.operate(capture, payment)
    assert isinstance(result, Approved), result
    payment = replace(payment, provider_ref=payment.attempt_ref, amount_captured=700)
    await _executed(bench, operation_of(payment, _REFUND, 700), payment)
    assert await bench.money(payment) == Money(held=0, captured=700, refunded=700)


@case("refund", "partial_refund")
async def several_partial_refunds_never_exceed_what_was_captured(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    part = payment.amount_minor // 2
    refunds = [operation_of(payment, _REFUND, part) for _ in range(3)]
    results = [await bench.operate(one, payment) for one in refunds]
    assert [type(one) for one in results] == [Approved, Approved, Declined], results
    assert (await bench.money(payment)).refunded == part * 2
    assert len({one.provider_ref for one in results if isinstance(one, Approved)}) == 2
    assert [await bench.look_up_operation(one, payment) for one in refunds[:2]] == results[:2]
    assert isinstance(await bench.look_up_operation(refunds[2], payment), Declined | NotFound)


@keyed
@case("refund", "partial_refund")
async def five_equal_requests_at_once_execute_one_operation(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    refund = operation_of(payment, _REFUND, 100)
    results = await asyncio.gather(*(bench.operate(refund, payment) for _ in range(5)))
    assert any(isinstance(one, Approved) for one in results), results
    assert len({one.provider_ref for one in results if isinstance(one, Approved)}) == 1
    assert (await bench.money(payment)).refunded == 100


def _lost(kind: OperationKind, name: str, fault: Fault) -> None:
    """Add the case of an operation that the gateway has executed and whose answer is lost."""

    async def lost(bench: Bench) -> None:
        payment, money = await _charged(bench, kind)
        operation = operation_of(payment, kind)
        bench.strike_operation(fault)
        result = await bench.operate(operation, payment)
        assert isinstance(result, Unknown), result
        assert not result.at_once
        assert await bench.money(payment) == money
        for may_execute in (False, True):
            found = await bench.look_up_operation(operation, payment, may_execute=may_execute)
            assert isinstance(found, Approved), found
        if bench.gateway.takes_operation_keys:
            again = await bench.operate(operation, payment)
            assert isinstance(again, Approved | Unknown), again
            assert await bench.money(payment) == money

    lost.__name__ = f"{name}_to_a_{kind}_is_unknown_and_it_is_found"
    case(*_NEEDED[kind])(lost)


def _never_arrived(kind: OperationKind) -> None:
    """Add the case of an operation whose request is lost."""

    async def never_arrived(bench: Bench) -> None:
        payment, money = await _charged(bench, kind)
        before = await bench.money(payment)
        operation = operation_of(payment, kind)
        bench.strike_operation(LOST_REQUEST)
        assert isinstance(await bench.operate(operation, payment), Unknown)
        found = await bench.look_up_operation(operation, payment)
        assert isinstance(found, NotFound), found
        assert await bench.money(payment) == before
        await bench.look_up_operation(operation, payment, may_execute=True)
        assert isinstance(await bench.operate(operation, payment), Approved)
        assert await bench.money(payment) == money

    never_arrived.__name__ = f"a_lost_request_for_a_{kind}_is_not_found_and_executed_once"
    case(*_NEEDED[kind])(never_arrived)


for _kind in OperationKind:
    _lost(_kind, "a_lost_answer", LOST_ANSWER)
    _lost(_kind, "a_cut_answer", CUT_ANSWER)
    _lost(_kind, "a_500", Fault(reaches=True, status=500, body=b'{"error": {"type": "api_error"}}', headers=_JSON))
    _lost(_kind, "a_page", Fault(reaches=True, status=502, body=_PAGE, headers=_HTML))
    _lost(_kind, "rubbish", Fault(reaches=True, status=200, body=_PAGE, headers=_HTML))
    _never_arrived(_kind)


@case("refund")
async def a_429_to_an_operation_is_a_limit_and_executes_nothing(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    bench.strike_operation(Fault(status=429, body=b'{"error": {"code": "rate_limit"}}', headers=_JSON))
    result = await bench.operate(operation_of(payment, _REFUND), payment)
    assert isinstance(result, Unavailable), result
    assert result.fault == "limit"
    assert (await bench.money(payment)).refunded == 0


@case("refund")
async def an_operation_at_a_gateway_that_cannot_be_reached_is_unavailable(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    provider = bench.gateway.provider("http://127.0.0.1:1", timeout=TIMEOUT)
    try:
        result = await provider.operate(operation_of(payment, _REFUND), payment)
    finally:
        await provider.aclose()
    assert isinstance(result, Unavailable), result
    assert result.fault == "provider"


@case("refund")
async def a_refused_key_is_not_repeated_in_the_result_of_an_operation(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    echoed = f'{{"error": {{"type": "{"x".join(bench.gateway.secrets)}", "message": "{bench.gateway.secrets}"}}}}'
    bench.strike_operation(Fault(status=403, body=echoed.encode(), headers=_JSON))
    result = await bench.operate(operation_of(payment, _REFUND), payment)
    assert not isinstance(result, Approved | Pending | Declined), result
    assert (await bench.money(payment)).refunded == 0


@keyed
@case("refund", "partial_refund")
async def another_amount_under_the_key_of_an_operation_is_never_approved(bench: Bench) -> None:
    payment, _ = await _charged(bench, _REFUND)
    refund = operation_of(payment, _REFUND, 100)
    await _executed(bench, refund, payment)
    other = replace(refund, amount_minor=101)
    assert isinstance(await bench.operate(other, payment), Unknown)
    assert isinstance(await bench.look_up_operation(other, payment), Unknown)
    assert (await bench.money(payment)).refunded == 100

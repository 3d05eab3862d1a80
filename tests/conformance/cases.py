"""The cases that every adapter has to pass, whatever its gateway is like.

They hold the adapter against the gateway's own books: a result that says less than is true costs a look-up, one that says
more costs money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from okane.payment import Payment
from okane.providers.base import (
    Approved,
    Declined,
    InvalidNotice,
    LookUpResult,
    NotFound,
    Pending,
    Unavailable,
    Unknown,
)
from tests.conformance.bench import TIMEOUT, Bench
from tests.conformance.fault_proxy import CUT_ANSWER, LOST_ANSWER, LOST_REQUEST, Fault
from tests.conformance.gateway import Wish

Case = Callable[[Bench], Awaitable[None]]
CASES: list[Case] = []
_HTML = {"Content-Type": "text/html"}
_JSON = {"Content-Type": "application/json"}
_PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_SLOW_S = 60.0  # the proxy ends the wait when the case ends


def case(function: Case) -> Case:
    CASES.append(function)
    return function


@case
async def an_approved_charge_is_in_the_gateways_books_once(bench: Bench) -> None:
    payment = await bench.payment()
    approved = await bench.approved(payment)
    entry = await bench.booked_once(payment)
    assert (entry.ref, entry.moved) == (approved.provider_ref, True)


@case
async def a_second_charge_under_the_same_key_makes_no_second_object(bench: Bench) -> None:
    payment = await bench.payment()
    await bench.charge(payment)
    await bench.charge(payment)
    await bench.booked_once(payment)


@case
async def five_charges_at_once_under_one_key_make_one_object(bench: Bench) -> None:
    payment = await bench.payment()
    await asyncio.gather(*(bench.charge(payment) for _ in range(5)))
    await bench.booked_once(payment)


@case
async def a_declined_charge_has_a_code_and_moves_nothing(bench: Bench) -> None:
    payment = await bench.payment(Wish.DECLINED)
    result = await bench.charge(payment)
    assert isinstance(result, Declined), result
    assert result.code
    assert not result.soft
    assert await bench.books(payment) == []


@case
async def a_soft_decline_says_so(bench: Bench) -> None:
    payment = await bench.payment(Wish.SOFTLY_DECLINED)
    result = await bench.charge(payment)
    assert isinstance(result, Declined), result
    assert result.soft
    assert await bench.books(payment) == []


@case
async def a_charge_that_waits_for_the_customer_is_pending_until_it_is_completed(bench: Bench) -> None:
    payment = await bench.payment(Wish.WAITS)
    pending = await bench.charge(payment)
    assert isinstance(pending, Pending), pending
    assert pending.next_action is not None
    assert pending.next_action.url.startswith("http")
    waiting = replace(payment, attempt_ref=pending.provider_ref)
    assert isinstance(await bench.look_up(waiting), Pending)
    assert not (await bench.booked_once(payment)).moved
    result = await bench.settled(payment, pending)
    assert isinstance(result, Approved), result
    assert (await bench.booked_once(payment)).moved


@case
async def a_charge_that_the_customer_fails_is_declined_and_moves_nothing(bench: Bench) -> None:
    payment = await bench.payment(Wish.WAITS)
    pending = await bench.charge(payment)
    assert isinstance(pending, Pending), pending
    result = await bench.settled(payment, pending, succeeded=False)
    assert isinstance(result, Declined), result
    assert not any(entry.moved for entry in await bench.books(payment))


@case
async def a_look_up_by_reference_finds_the_charge(bench: Bench) -> None:
    payment = await bench.payment()
    approved = await bench.approved(payment)
    assert await bench.look_up(replace(payment, provider_ref=approved.provider_ref)) == approved


async def _lost(bench: Bench, fault: Fault) -> None:
    """A charge that the gateway has executed and whose answer is lost: unknown, then found, never made again."""
    payment = await bench.payment()
    bench.strike(fault)
    result = await bench.charge(payment)
    assert isinstance(result, Unknown), result
    assert not result.at_once
    await bench.booked_once(payment)
    await _is_found(bench, payment, await bench.look_up(payment))
    await _is_found(bench, payment, await bench.look_up(payment, may_execute=True))
    await bench.booked_once(payment)


async def _is_found(bench: Bench, payment: Payment, found: LookUpResult) -> None:
    if bench.gateway.finds_lost_charges:
        assert isinstance(await bench.settled(payment, found), Approved), found
    else:
        assert isinstance(found, Unknown | Pending), found


@case
async def a_lost_answer_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    await _lost(bench, LOST_ANSWER)


@case
async def a_cut_answer_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    await _lost(bench, CUT_ANSWER)


@case
async def a_500_after_the_charge_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    await _lost(bench, Fault(reaches=True, status=500, body=b'{"error": {"type": "api_error"}}', headers=_JSON))


@case
async def a_page_of_a_proxy_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    await _lost(bench, Fault(reaches=True, status=502, body=_PAGE, headers=_HTML))


@case
async def a_200_with_rubbish_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    await _lost(bench, Fault(reaches=True, status=200, body=_PAGE, headers=_HTML))


@case
async def an_answer_that_comes_too_late_is_unknown_and_the_charge_is_found(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(Fault(reaches=True, delay_s=_SLOW_S))
    async with asyncio.timeout(TIMEOUT.total_seconds() * 3):
        result = await bench.charge(payment)
    assert isinstance(result, Unknown), result
    await _is_found(bench, payment, await bench.look_up(payment))
    await bench.booked_once(payment)


@case
async def a_lost_request_is_unknown_and_a_look_up_does_not_find_what_is_not_there(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(LOST_REQUEST)
    result = await bench.charge(payment)
    assert isinstance(result, Unknown), result
    assert await bench.books(payment) == []
    found = await bench.look_up(payment)
    assert isinstance(found, NotFound | Unknown), found
    assert await bench.books(payment) == []


@case
async def after_a_lost_request_a_look_up_that_may_execute_charges_at_most_once(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(LOST_REQUEST)
    await bench.charge(payment)
    found = await bench.look_up(payment, may_execute=True)
    assert isinstance(found, Approved | Pending | NotFound | Unknown), found
    await bench.charge(payment)
    await bench.booked_once(payment)


@case
async def a_503_says_nothing_about_money_unless_nothing_was_booked(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(Fault(reaches=True, status=503, body=_PAGE, headers=_HTML))
    result = await bench.charge(payment)
    assert isinstance(result, Unknown), result
    await bench.booked_once(payment)


@case
async def a_429_burns_no_retry(bench: Bench) -> None:
    payment = await bench.payment()
    bench.strike(Fault(status=429, body=b'{"error": {"code": "rate_limit"}}', headers=_JSON | {"Retry-After": "2"}))
    result = await bench.charge(payment)
    if bench.gateway.limits_before_charging:
        assert isinstance(result, Unavailable), result
        assert result.fault == "limit"
    else:
        assert isinstance(result, Unknown), result
    assert await bench.books(payment) == []


@case
async def a_gateway_that_cannot_be_reached_is_unavailable(bench: Bench) -> None:
    payment = await bench.payment()
    provider = bench.gateway.provider("http://127.0.0.1:1", timeout=TIMEOUT)
    try:
        result = await provider.charge(payment)
    finally:
        await provider.aclose()
    bench.results.append(result)
    assert isinstance(result, Unavailable), result
    assert result.fault == "provider"


@case
async def a_redirect_is_not_followed(bench: Bench) -> None:
    payment = await bench.payment()
    trap = f"{bench.proxy.url}/trap"
    bench.strike(Fault(status=307, headers={"Location": trap}))
    result = await bench.charge(payment)
    assert isinstance(result, Unknown), result
    assert not [request for request in bench.proxy.requests if "trap" in request.target]


@case
async def a_refused_key_is_our_own_fault_and_is_not_repeated_in_the_result(bench: Bench) -> None:
    payment = await bench.payment()
    echoed = f'{{"error": {{"type": "{"x".join(bench.gateway.secrets)}", "message": "{bench.gateway.secrets}"}}}}'
    bench.strike(Fault(status=403, body=echoed.encode(), headers=_JSON))
    result = await bench.charge(payment)
    assert not isinstance(result, Approved | Pending | Declined), result
    assert await bench.books(payment) == []


@case
async def another_amount_under_a_used_key_is_never_approved(bench: Bench) -> None:
    payment = await bench.payment()
    await bench.charge(payment)
    result = await bench.charge(replace(payment, amount_minor=payment.amount_minor + 1))
    assert isinstance(result, Unknown), result
    await bench.booked_once(payment)


@case
async def a_look_up_of_a_charge_with_another_amount_is_never_approved(bench: Bench) -> None:
    payment = await bench.payment()
    approved = await bench.approved(payment)
    other = replace(payment, amount_minor=payment.amount_minor + 1, provider_ref=approved.provider_ref)
    found = await bench.look_up(other)
    assert isinstance(found, Unknown), found


@case
async def a_payment_that_was_never_charged_is_not_found_and_not_charged(bench: Bench) -> None:
    payment = await bench.payment()
    found = await bench.look_up(payment)
    assert isinstance(found, NotFound | Unknown), found
    assert await bench.books(payment) == []


@case
async def a_notice_names_its_payment_and_is_the_same_event_each_time(bench: Bench) -> None:
    payment, signed = await bench.notice()
    parse = signed.parser([signed.secret])
    [notice] = parse(signed.headers, signed.body, now=datetime.now(UTC))
    assert notice.payment_id == payment.id
    assert notice.provider_ref == (await bench.booked_once(payment)).ref
    assert list(parse(signed.headers, signed.body, now=datetime.now(UTC))) == [notice]


@case
async def a_notice_is_valid_under_either_of_two_secrets(bench: Bench) -> None:
    _, signed = await bench.notice()
    for secrets in (["another-secret", signed.secret], [signed.secret, "another-secret"]):
        assert len(signed.parser(secrets)(signed.headers, signed.body, now=datetime.now(UTC))) == 1


@case
async def a_forged_notice_is_refused(bench: Bench) -> None:
    _, signed = await bench.notice()
    middle = len(signed.body) // 2
    changed = signed.body[:middle] + bytes([signed.body[middle] ^ 1]) + signed.body[middle + 1 :]
    shortened = {name: value[:-1] for name, value in signed.headers.items()}
    forgeries: list[tuple[Sequence[str], Mapping[str, str], bytes]] = [
        ([signed.secret], signed.headers, changed),
        ([signed.secret], signed.headers, signed.body + b" "),
        ([signed.secret], signed.headers, b""),
        ([signed.secret], {}, signed.body),
        ([signed.secret], dict.fromkeys(signed.headers, ""), signed.body),
        ([signed.secret + "x"], signed.headers, signed.body),
        ([signed.secret], shortened, changed),
        ([""], signed.headers, signed.body),
        ([], signed.headers, signed.body),
    ]
    for secrets, headers, body in forgeries:
        with pytest.raises(InvalidNotice):
            signed.parser(secrets)(headers, body, now=datetime.now(UTC))

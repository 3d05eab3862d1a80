"""The records in providers' lists: what is read, what is left out, and what is no list at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.currencies import NEW_PAYMENTS
from okane.providers.listing import Listing, ListingFailed, ProviderRecord
from okane.providers.okane_http.records import OkaneHttpListing, parse_record
from okane.providers.stripe.amounts import minor_amount, stripe_amount
from okane.providers.stripe.records import StripeListing, parse_charge, parse_refund
from tests.okane.provider_server import Act, RawServer, answer, raw_server, reset

ID = UUID("0198b2f0-0000-7000-8000-000000000000")
NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
FEE = {"object": "balance_transaction", "fee": 59, "currency": "eur"}
CHARGE: Mapping[str, Any] = {
    "id": "ch_1",
    "object": "charge",
    "status": "succeeded",
    "captured": True,
    "refunded": False,
    "amount": 1000,
    "amount_captured": 700,
    "currency": "usd",
    "created": int(NOW.timestamp()),
    "payment_intent": "pi_1",
    "metadata": {"payment_id": str(ID)},
    "balance_transaction": FEE,
}
REFUND: Mapping[str, Any] = {
    "id": "re_1",
    "object": "refund",
    "status": "succeeded",
    "amount": 300,
    "currency": "usd",
    "created": int(NOW.timestamp()),
    "metadata": {"operation_id": str(ID)},
    "balance_transaction": {**FEE, "fee": 0},
}
RECORD: Mapping[str, Any] = {
    "kind": "charge",
    "key": "k",
    "provider_ref": "ch_1",
    "payment_id": str(ID),
    "amount": 1000,
    "currency": "USD",
    "status": "captured",
    "at": "2026-03-14T12:00:00+00:00",
    "fee": 15,
}


def test_a_charge_of_stripe_has_the_name_of_its_intent_and_the_fee_in_the_currency_of_the_account() -> None:
    assert parse_charge(CHARGE) == ProviderRecord(
        kind="charge",
        at=NOW,
        provider_ref="pi_1",
        status="succeeded",
        amount_minor=1000,
        currency="USD",
        payment_id=ID,
        captured_minor=700,
        fee_minor=59,
        fee_currency="EUR",
    )
    by_hand = parse_charge({**CHARGE, "payment_intent": None, "metadata": {}, "balance_transaction": None})
    assert by_hand is not None
    assert (by_hand.provider_ref, by_hand.payment_id, by_hand.fee_minor) == ("ch_1", None, None)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"captured": False}, "authorized"),
        ({"captured": False, "refunded": True}, "canceled"),
        ({"status": "pending", "captured": False}, "pending"),
        ({"refunded": True}, "succeeded"),
        ({"status": "failed", "captured": False}, None),
    ],
)
def test_the_status_of_a_charge_says_whether_money_moved_or_is_held(
    changes: dict[str, Any], status: str | None
) -> None:
    found = parse_charge({**CHARGE, **changes})
    assert (None if found is None else found.status) == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "succeeded"),
        ({"status": "requires_action"}, "pending"),
        ({"status": "failed"}, "failed"),
        ({"metadata": {}}, "succeeded"),  # by hand
        ({"metadata": {}, "balance_transaction": None}, None),  # the release of an authorization
        ({"metadata": {}, "balance_transaction": None, "status": "pending"}, "pending"),
    ],
)
def test_a_refund_of_stripe_is_listed_unless_it_only_released_what_was_held(
    changes: dict[str, Any], status: str | None
) -> None:
    found = parse_refund({**REFUND, **changes})
    assert (None if found is None else found.status) == status


WRONG: Sequence[Mapping[str, Any]] = [
    {"status": "new_status"},
    {"status": None},
    {"amount": "1000"},
    {"amount": True},
    {"amount": 1.5},
    {"currency": None},
]


@pytest.mark.parametrize(
    "changes", [*WRONG, {"captured": None}, {"created": "now"}, {"created": 10**20}, {"amount_captured": None}], ids=str
)
def test_an_unreadable_charge_of_stripe_is_no_list(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ListingFailed):
        parse_charge({**CHARGE, **changes})


@pytest.mark.parametrize("changes", [*WRONG, {"created": None}, {"id": "re 1"}], ids=str)
def test_an_unreadable_refund_of_stripe_is_no_list(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ListingFailed):
        parse_refund({**REFUND, **changes})


@pytest.mark.parametrize(
    "changes",
    [*WRONG, {"kind": "chargeback"}, {"at": "yesterday"}, {"at": "2026-03-14T12:00:00"}, {"provider_ref": 1}],
    ids=str,
)
def test_an_unreadable_record_of_okanes_protocol_is_no_list(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ListingFailed):
        parse_record({**RECORD, **changes})
    with pytest.raises(ListingFailed):
        parse_record([])


def test_a_name_that_no_row_can_hold_is_made_printable() -> None:
    for name in ("ch_\x1b[2J", "ch_\ud800", "c" * 300):
        record, charge = (
            parse_record({**RECORD, "provider_ref": name}),
            parse_charge({**CHARGE, "payment_intent": name}),
        )
        assert record is not None
        assert charge is not None
        for ref in (record.provider_ref, charge.provider_ref):
            assert ref.isprintable()
            assert len(ref) <= 255


def test_a_record_of_okanes_protocol_that_moves_no_money_is_left_out() -> None:
    assert parse_record({**RECORD, "status": "declined"}) is None
    assert parse_record({**RECORD, "kind": "void", "status": "succeeded"}) is None
    found = parse_record(RECORD)
    assert found is not None
    assert (found.status, found.payment_id, found.fee_minor, found.fee_currency) == ("succeeded", ID, 15, "USD")
    other = parse_record({**RECORD, "payment_id": "order-7"})
    assert other is not None
    assert other.payment_id is None


@given(st.sampled_from(sorted(NEW_PAYMENTS)), st.integers(min_value=1, max_value=2**53))
def test_amounts_of_stripe_lead_back_to_minor_units(currency: str, amount_minor: int) -> None:
    there = stripe_amount(amount_minor, currency)
    assert there is None or minor_amount(there, currency) == amount_minor


Lister = Callable[[str], Listing]
LISTERS: Mapping[str, Lister] = {
    "okane": lambda url: OkaneHttpListing(url, name="http", timeout=timedelta(seconds=5), pauses_s=(0.0, 0.0)),
    "stripe": lambda url: StripeListing(url, api_key=lambda: "sk_test_1", pauses_s=(0.0, 0.0)),
}
EMPTY = {"okane": b'{"records": [], "next": null}', "stripe": b'{"data": [], "has_more": false}'}


async def listed(kind: str, *acts: Act) -> tuple[list[ProviderRecord], RawServer]:
    """Return the records in the answers of a server."""
    async with raw_server(*acts) as server:
        listing = LISTERS[kind](server.base_url)
        try:
            return [one async for page in listing.list_records(NOW, NOW + timedelta(hours=1)) for one in page], server
        finally:
            await listing.aclose()


@pytest.mark.parametrize("kind", LISTERS)
@pytest.mark.parametrize(
    "trouble",
    [answer(503), answer(429, b"", "Retry-After: 0"), answer(200, b"<html>"), reset],
    ids=["503", "429", "page", "reset"],
)
async def test_a_page_that_does_not_come_is_asked_for_again_and_at_last_is_an_error(kind: str, trouble: Act) -> None:
    found, server = await listed(kind, trouble, trouble, answer(200, EMPTY[kind]))
    assert found == []
    assert server.requests[0] == server.requests[1] == server.requests[2]
    with pytest.raises(ListingFailed):
        await listed(kind, trouble)


@pytest.mark.parametrize("kind", LISTERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refused_list_is_an_error_at_once(kind: str, status: int) -> None:
    async with raw_server(answer(status, b"{}")) as server:
        listing = LISTERS[kind](server.base_url)
        with pytest.raises(ListingFailed, match=f"HTTP {status}"):
            _ = [page async for page in listing.list_records(NOW, NOW)]
        await listing.aclose()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("okane", b'{"records": [], "next": 7}'),
        ("okane", b'{"records": [], "next": "same"}'),
        ("okane", b'{"next": null}'),
        ("stripe", b'{"data": [], "has_more": true}'),
        ("stripe", b'{"data": [7], "has_more": false}'),
        ("stripe", b'{"data": []}'),
        ("stripe", json.dumps({"data": [dict(CHARGE)], "has_more": True}).encode()),
    ],
)
async def test_a_list_that_does_not_end_or_is_none_is_an_error_and_never_a_short_list(kind: str, page: bytes) -> None:
    with pytest.raises(ListingFailed):
        await listed(kind, answer(200, page))


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        ("okane", [b'{"records": [], "next": "a"}', b'{"records": [], "next": "b"}']),
        ("stripe", [json.dumps({"data": [{**CHARGE, "id": id_}], "has_more": True}).encode() for id_ in ("a", "b")]),
    ],
    ids=["okane", "stripe"],
)
async def test_a_list_that_goes_round_in_a_circle_is_an_error(kind: str, pages: Sequence[bytes]) -> None:
    with pytest.raises(ListingFailed, match="does not end"):
        await asyncio.wait_for(listed(kind, *(answer(200, page) for page in [*pages, *pages])), 30)


async def test_a_key_that_fits_into_no_header_is_not_sent() -> None:
    listing = StripeListing("http://127.0.0.1:1", api_key=lambda: "sk_test\r\nHost: other")
    with pytest.raises(ListingFailed, match="no usable API key"):
        _ = [page async for page in listing.list_records(NOW, NOW)]
    await listing.aclose()

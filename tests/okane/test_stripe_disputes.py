"""Stripe's disputes: recognised in webhooks, fetched with their PaymentIntent, and read into okane's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.dispute import DisputeStatus
from okane.providers.base import DisputeSource, NotFound, ReportedDispute, Unavailable, Unknown
from okane.providers.stripe.amounts import minor_amount, stripe_amount
from okane.providers.stripe.disputes import parse_dispute
from okane.providers.stripe.provider import StripeProvider
from okane.providers.stripe.webhook import StripeNoticeParser
from tests.okane.provider_server import hang, raw_server
from tests.okane.signed_notices import SECRET, signature
from tests.okane.stripe_answers import OURS, failed, intent, response
from tests.okane.test_stripe_provider import says, stripe

NOW = datetime(2026, 12, 1, tzinfo=UTC)
REPORTED = ReportedDispute(
    "dp_1",
    UUID(OURS["payment_id"]),
    440,
    "USD",
    DisputeStatus.NEEDS_RESPONSE,
    "fraudulent",
    datetime.fromtimestamp(1798847999, UTC),
)


def dispute(**changes: object) -> dict[str, object]:
    """Return a dispute with its PaymentIntent, as Stripe expands it."""
    return {
        "id": "dp_1",
        "object": "dispute",
        "amount": 440,
        "charge": "ch_1",
        "currency": "usd",
        "evidence_details": {"due_by": 1798847999, "has_evidence": False},
        "metadata": {},
        "payment_intent": intent(),
        "reason": "fraudulent",
        "status": "needs_response",
    } | changes


def test_a_webhook_about_a_dispute_names_the_dispute_and_no_payment() -> None:
    about = dispute(payment_intent="pi_1")
    body = json.dumps({"id": "evt_1", "type": "charge.dispute.created", "data": {"object": about}}).encode()
    headers = {name.lower(): value for name, value in signature(body).items()}
    [notice] = StripeNoticeParser(lambda: [SECRET])(headers, body, now=datetime.now(UTC))
    assert (notice.dispute_ref, notice.payment_id, notice.kind) == ("dp_1", None, "charge.dispute.created")


async def test_a_dispute_is_fetched_with_its_intent() -> None:
    async with stripe(says(200, dispute())) as (provider, server):
        source: DisputeSource = provider
        assert await source.fetch_dispute("dp_1") == REPORTED
        assert server.requests[0].startswith(b"GET /v1/disputes/dp_1?expand[]=payment_intent HTTP/1.1\r\n")
        assert isinstance(provider, DisputeSource)


async def test_no_answer_is_unknown_and_no_key_is_a_fault_of_the_configuration() -> None:
    async with stripe(hang, timeout_s=0.05) as (provider, _):
        assert isinstance(await provider.fetch_dispute("dp_1"), Unknown)
    async with raw_server(hang) as server, StripeProvider(server.base_url, api_key=lambda: "") as provider:
        assert await provider.fetch_dispute("dp_1") == Unavailable("no usable API key", fault="config")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("warning_needs_response", DisputeStatus.NEEDS_RESPONSE),
        ("warning_under_review", DisputeStatus.UNDER_REVIEW),
        ("warning_closed", DisputeStatus.CLOSED),
        ("under_review", DisputeStatus.UNDER_REVIEW),
        ("prevented", DisputeStatus.CLOSED),
        ("won", DisputeStatus.WON),
        ("lost", DisputeStatus.LOST),
    ],
)
def test_a_status_of_stripes_is_one_of_ours(said: str, status: DisputeStatus) -> None:
    parsed = parse_dispute(response(200, dispute(status=said)), "dp_1", now=NOW)
    assert isinstance(parsed, ReportedDispute)
    assert parsed.status is status


@pytest.mark.parametrize("intent_said", [None, "pi_1", intent(metadata={}), intent(metadata={"payment_id": "x"}), []])
def test_a_dispute_of_a_charge_that_is_not_ours_names_no_payment(intent_said: object) -> None:
    parsed = parse_dispute(response(200, dispute(payment_intent=intent_said)), "dp_1", now=NOW)
    assert isinstance(parsed, ReportedDispute)
    assert parsed.payment_id is None


@pytest.mark.parametrize("details", [None, {}, {"due_by": None}, {"due_by": "1"}, {"due_by": -1}, {"due_by": 10**30}])
def test_a_time_that_is_none_is_left_out(details: object) -> None:
    parsed = parse_dispute(response(200, dispute(evidence_details=details, reason=7)), "dp_1", now=NOW)
    assert isinstance(parsed, ReportedDispute)
    assert (parsed.due_by, parsed.reason) == (None, None)


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (404, failed(), NotFound()),
        (401, failed(), Unavailable("HTTP 401", fault="config")),
        (429, failed(), Unavailable("HTTP 429", fault="limit")),
        (500, failed(), Unknown),
        (200, dispute(id="dp_2"), Unknown),
        (200, dispute(amount="440"), Unknown),
        (200, dispute(amount=0), Unknown),
        (200, dispute(amount=440, currency="isk"), Unknown),
        (200, dispute(currency=None), Unknown),
        (200, dispute(status="forgotten"), Unknown),
        (200, [], Unknown),
    ],
)
def test_any_other_answer_says_nothing_about_the_dispute(status: int, document: Any, expected: Any) -> None:
    parsed = parse_dispute(response(status, document), "dp_1", now=NOW)
    assert parsed == expected or (isinstance(expected, type) and isinstance(parsed, expected))


@given(st.integers(1, 2**53 - 1), st.sampled_from(["USD", "ISK", "UGX", "MGA", "JPY"]))
def test_an_amount_comes_back_from_stripe_as_it_was_sent(amount_minor: int, currency: str) -> None:
    sent = stripe_amount(amount_minor, currency)
    assert sent is None or minor_amount(sent, currency) == amount_minor

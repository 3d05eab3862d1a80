"""Stripe's webhooks: the official package is the oracle of their signatures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.providers.base import InvalidNotice, Notice
from okane.providers.stripe.webhook import TOLERANCE, StripeNoticeParser
from tests.okane.stripe_answers import OURS, intent
from tests.payments import PAYMENT

SECRET, OLD_SECRET = "whsec_of_today", "whsec_of_yesterday"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(**changes: object) -> bytes:
    document = {"id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "data": {"object": intent()}}
    return json.dumps(document | changes).encode()


def signature(body: bytes, *, secret: str = SECRET, at: datetime = NOW) -> str:
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at.timestamp()))
    assert isinstance(header, str)
    return header


def parsed(
    body: bytes, header: str | None = None, *, secrets: Sequence[str] = (SECRET,), now: datetime = NOW
) -> Sequence[Notice]:
    parser = StripeNoticeParser(lambda: secrets)
    return parser({"stripe-signature": signature(body) if header is None else header}, body, now=now)


def test_a_signed_event_is_one_notice_of_its_payment() -> None:
    notice = Notice("evt_1", "payment_intent.succeeded", PAYMENT.id, "pi_1", provider_key=PAYMENT.provider_key)
    assert parsed(event()) == [notice]


def test_an_event_of_a_charge_names_its_intent() -> None:
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "metadata": OURS}
    [notice] = parsed(event(type="charge.succeeded", data={"object": charge}))
    assert (notice.kind, notice.payment_id, notice.provider_ref) == ("charge.succeeded", PAYMENT.id, "pi_1")


@pytest.mark.parametrize(
    ("kind", "is_refusal"),
    [
        ("payment_intent.payment_failed", True),
        ("payment_intent.canceled", True),
        ("charge.failed", True),
        ("payment_intent.succeeded", False),
        ("payment_intent.processing", False),
        ("charge.refunded", False),
    ],
)
def test_only_an_event_by_which_no_money_moved_is_a_refusal(kind: str, is_refusal: bool) -> None:
    assert [notice.is_refusal for notice in parsed(event(type=kind))] == [is_refusal]


@pytest.mark.parametrize("key", [None, 7, ["k"], "k\n"])
def test_an_event_without_our_key_is_taken_for_one_of_the_first(key: object) -> None:
    about = intent(metadata={"payment_id": str(PAYMENT.id), "attempt_key": key})
    assert [notice.provider_key for notice in parsed(event(data={"object": about}))] == [None]


@pytest.mark.parametrize(
    "about",
    [
        None,
        "payment_intent",
        {"object": "payout", "id": "po_1"},
        {"object": "payment_intent", "metadata": {"payment_id": "7"}},
        {"object": "payment_intent", "id": "pi_\x00", "metadata": {"payment_id": 7}},
        {"object": "payment_intent", "id": 7, "metadata": None},
        {"object": "charge", "id": "pi_1", "payment_intent": {"id": "pi_1"}},
    ],
)
def test_an_event_without_a_payment_of_ours_names_none(about: object) -> None:
    assert parsed(event(data={"object": about})) == [Notice("evt_1", "payment_intent.succeeded", None, None)]


@pytest.mark.parametrize("event_id", [None, "", 7, "evt_\x00", "e" * 256])
def test_an_event_without_a_usable_id_is_known_by_its_body(event_id: object) -> None:
    body = event(id=event_id)
    assert parsed(body)[0].event_id == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("kind", "expected"), [(None, "unknown"), ("", "unknown"), (7, "unknown"), ("k" * 300, "k" * 100)]
)
def test_the_kind_of_an_event_is_bounded(kind: object, expected: str) -> None:
    assert parsed(event(type=kind))[0].kind == expected


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"evt_1"'])
def test_a_signed_body_that_is_no_event_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidNotice, match="not a JSON object"):
        parsed(body)


# Signatures


def test_two_secrets_are_valid_at_a_time() -> None:
    for secret in (SECRET, OLD_SECRET):
        assert parsed(event(), signature(event(), secret=secret), secrets=[SECRET, OLD_SECRET])


def test_a_header_may_have_the_signatures_of_two_secrets() -> None:
    both = signature(event()) + "," + signature(event(), secret=OLD_SECRET).split(",")[1] + ",v0=00"
    for secret in (SECRET, OLD_SECRET):
        assert parsed(event(), both, secrets=[secret])


def test_the_secrets_are_read_anew_for_each_webhook() -> None:
    secrets = [OLD_SECRET]
    parser = StripeNoticeParser(lambda: secrets)
    headers = {"stripe-signature": signature(event())}
    with pytest.raises(InvalidNotice):
        parser(headers, event(), now=NOW)
    secrets[:] = [SECRET, OLD_SECRET]
    assert parser(headers, event(), now=NOW)


@pytest.mark.parametrize("secrets", [[], [""], [" "], [OLD_SECRET]])
def test_no_secret_and_a_wrong_secret_accept_nothing(secrets: list[str]) -> None:
    forged = signature(event(), secret="") if secrets == [""] else signature(event(), secret=" ")
    for header in (signature(event()), forged):
        with pytest.raises(InvalidNotice, match="no signature of a known secret"):
            parsed(event(), header, secrets=secrets)


def test_another_body_is_invalid() -> None:
    with pytest.raises(InvalidNotice, match="no signature of a known secret"):
        parsed(event(id="evt_2"), signature(event()))


def test_the_time_is_part_of_the_signature() -> None:
    old = signature(event(), at=NOW - timedelta(days=1))
    fresh = f"t={int(NOW.timestamp())},{old.split(',')[1]}"
    with pytest.raises(InvalidNotice, match="no signature of a known secret"):
        parsed(event(), fresh)


def test_a_signature_is_valid_for_five_minutes() -> None:
    assert parsed(event(), now=NOW + TOLERANCE)
    with pytest.raises(InvalidNotice, match="too long ago"):
        parsed(event(), now=NOW + TOLERANCE + timedelta(seconds=1))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        "v1=00",
        "t=,v1=00",
        "t=-1,v1=00",
        "t=1.5,v1=00",
        "t=\u0663,v1=00",
        f"t={'9' * 13},v1=00",
        "t=1,t=2,v1=00",
        "t=1,v0=00",
        "t=1,v1=\ud800",
        "t=1,v1=" + "0" * 5000,
        ",,=,==",
    ],
)
def test_an_unreadable_signature_is_invalid(header: str) -> None:
    with pytest.raises(InvalidNotice):
        parsed(event(), header)


def test_a_webhook_without_a_signature_is_invalid() -> None:
    with pytest.raises(InvalidNotice):
        StripeNoticeParser(lambda: [SECRET])({}, event(), now=NOW)


def test_an_error_repeats_no_secret_and_no_signature() -> None:
    header = signature(event(), secret=OLD_SECRET)
    with pytest.raises(InvalidNotice) as refused:
        parsed(event(), header)
    assert "whsec" not in str(refused.value)
    assert header.split("v1=")[1] not in str(refused.value)


# The oracle


def accepted_by_stripe(body: bytes, header: str, *, now: datetime) -> bool:
    age_s = (datetime.now(UTC) - now).total_seconds()  # the oracle uses the clock of the machine
    try:
        stripe.WebhookSignature.verify_header(body, header, SECRET, TOLERANCE.total_seconds() + age_s)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


def accepted(body: bytes, header: str, *, now: datetime) -> bool:
    try:
        parsed(body, header, now=now)
    except InvalidNotice:
        return False
    return True


@given(st.text(max_size=40), st.integers(-600, 290) | st.integers(310, 900), st.sampled_from([SECRET, OLD_SECRET]))
@settings(max_examples=200, deadline=None)
def test_we_accept_the_signatures_that_stripes_package_accepts(name: str, age_s: int, secret: str) -> None:
    body = event(account=name)
    header = signature(body, secret=secret, at=NOW - timedelta(seconds=age_s))
    assert accepted(body, header, now=NOW) is accepted_by_stripe(body, header, now=NOW)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_changed_we_accept_nothing_that_stripes_package_refuses(data: st.DataObject) -> None:
    body, header = event(), signature(event())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(header) - 1))
        header = header[:at] + data.draw(st.text("0123456789abcdef=,tv ", max_size=3)) + header[at + 1 :]
    else:
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + data.draw(st.binary(max_size=2)) + body[place + 1 :]
    if accepted(body, header, now=NOW):
        assert accepted_by_stripe(body, header.replace(" ", ""), now=NOW)


def test_a_notice_of_an_unknown_payment_keeps_its_id() -> None:
    other = uuid4()
    [notice] = parsed(event(data={"object": intent(metadata={"payment_id": str(other)})}))
    assert notice.payment_id == other

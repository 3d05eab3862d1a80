"""The verifier of the client: what it takes and refuses, compared with the reference implementation of Standard Webhooks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import standardwebhooks
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from okane.client import InvalidSignature, verify
from okane.payment import Status

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLDER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
PAYMENT = UUID("0198b2f0-0000-7000-8000-000000000000")
ID = f"evt_{PAYMENT.hex}_2"
SOME_TIME = datetime(2026, 11, 22, tzinfo=UTC)
SNAPSHOT: dict[str, Any] = {
    "id": str(PAYMENT),
    "version": 2,
    "status": "success",
    "amount": 440,
    "currency": "USD",
    "attempts": 1,
    "idempotency_key": "k-1",
    "metadata": {"emoji": "\U0001f4b6"},
    "created_at": "2026-11-22T01:19:52.796174Z",
    "updated_at": "2026-11-22T01:19:53.796174Z",
}


TEXT = st.text(
    st.sampled_from("v1a,. =+/0\n\0é\udc80\u0661"), max_size=40
)  # the alphabet of Unicode takes 15 s to load


def body_of(payment: Mapping[str, Any] = SNAPSHOT, **changed: Any) -> bytes:
    event = {
        "id": ID,
        "type": "payment.succeeded",
        "timestamp": "2026-11-22T01:19:53.796174Z",
        "api_version": "2026-12-01",
        "account": "acct_1",
        "data": {"payment": payment},
        **changed,
    }
    return json.dumps(event, ensure_ascii=False).encode()


REFUND = {"id": "01a2b3c4-0000-7000-8000-000000000009", "status": "failed_final", "amount": 40, "currency": "USD",
          "metadata": {}, "last_error": "closed", "created_at": "2026-11-22T01:19:53Z"}  # fmt: skip


def present() -> datetime:
    """The time in whole seconds. It is read in each test: a suite may take longer than the tolerance of a verifier."""
    return datetime.now(UTC).replace(microsecond=0)


def signed(body: bytes, *secrets: str, at: datetime | None = None, event_id: str = ID) -> dict[str, str]:
    """Return the headers as the reference implementation signs, at present unless another time is given."""
    at = present() if at is None else at
    header = " ".join(standardwebhooks.Webhook(one).sign(event_id, at, body.decode()) for one in secrets)
    return {"webhook-id": event_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": header}


def test_a_body_that_the_reference_signs_is_an_event() -> None:
    body = body_of()
    event = verify(signed(body, SECRET), body, SECRET)
    assert (event.id, event.type, event.account, event.api_version) == (ID, "payment.succeeded", "acct_1", "2026-12-01")
    assert event.payment is not None
    assert (event.payment.id, event.payment.version, event.payment.status) == (PAYMENT, 2, Status.SUCCESS)
    assert event.payment.metadata == {"emoji": "\U0001f4b6"}
    assert event.document == json.loads(body)


def test_headers_may_be_in_any_case_and_the_secret_without_its_prefix() -> None:
    body = body_of()
    headers = {name.title(): value for name, value in signed(body, SECRET).items()}
    assert verify(headers, body, SECRET.removeprefix("whsec_")).id == ID


def test_a_thin_event_has_an_id_and_a_version() -> None:
    body = body_of({"id": str(PAYMENT), "version": 2})
    payment = verify(signed(body, SECRET), body, SECRET).payment
    assert payment is not None
    assert (payment.id, payment.version, payment.status, payment.metadata) == (PAYMENT, 2, None, None)


def test_what_a_later_version_adds_is_no_error() -> None:
    body = body_of({**SNAPSHOT, "status": "forgotten", "new": 7}, type="payment.forgotten", new={})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.payment is not None
    assert (event.type, event.payment.status) == ("payment.forgotten", "forgotten")


def test_an_event_of_a_refund_has_the_refund_beside_its_payment() -> None:
    body = body_of(type="refund.failed", data={"payment": SNAPSHOT, "refund": REFUND})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.refund is not None
    assert (str(event.refund.id), event.refund.amount, event.refund.last_error) == (REFUND["id"], 40, "closed")
    assert (event.refund.status, event.refund.metadata, event.capture) == ("failed_final", {}, None)

    body = body_of(type="payment.capture_failed", data={"payment": SNAPSHOT, "capture": {"id": REFUND["id"]}})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.capture is not None
    assert (str(event.capture.id), event.capture.amount, event.refund) == (REFUND["id"], None, None)

    body = body_of(type="payment.late_result", data={"payment": SNAPSHOT, "void": {**REFUND, "status": "needs_review"}})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.void is not None
    assert (str(event.void.id), event.void.status, event.capture) == (REFUND["id"], "needs_review", None)


def test_an_event_of_a_dispute_has_the_dispute_beside_its_payment() -> None:
    dispute = {"id": str(PAYMENT), "status": "lost", "amount": 40, "due_by": "2026-03-18T23:59:59.000000Z"}
    body = body_of(type="dispute.closed", data={"payment": SNAPSHOT, "dispute": dispute})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.dispute is not None
    assert (event.dispute.id, event.dispute.status, event.dispute.amount) == (PAYMENT, "lost", 40)
    assert event.dispute.due_by is not None
    assert (event.dispute.reason, event.refund) == (None, None)


def test_an_event_of_an_endpoint_has_no_payment() -> None:
    body = body_of(type="webhook_endpoint.test", data={"endpoint": {"id": str(PAYMENT)}})
    event = verify(signed(body, SECRET), body, SECRET)
    assert event.payment is None
    assert event.document["data"]["endpoint"] == {"id": str(PAYMENT)}


@pytest.mark.parametrize("signers", [[SECRET], [OLDER], [SECRET, OLDER], [OLDER, SECRET]])
def test_during_a_rotation_either_secret_verifies(signers: list[str]) -> None:
    body = body_of()
    assert verify(signed(body, *signers), body, [SECRET, OLDER]).id == ID
    assert verify(signed(body, SECRET, OLDER), body, OLDER).id == ID


def test_other_versions_of_a_signature_are_skipped() -> None:
    body = body_of()
    headers = signed(body, SECRET)
    headers["webhook-signature"] = f"v1a,AAAA {headers['webhook-signature']} v2,x nothing"
    assert verify(headers, body, SECRET).id == ID
    with pytest.raises(InvalidSignature):
        verify({**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v1a,")}, body, SECRET)


@pytest.mark.parametrize("age_s", [-299, 0, 299])
def test_a_clock_may_be_off_by_five_minutes(age_s: int) -> None:
    body, now = body_of(), present()
    assert verify(signed(body, SECRET, at=now - timedelta(seconds=age_s)), body, SECRET, now=now).id == ID


@pytest.mark.parametrize("age_s", [-302, 302])
def test_a_stale_or_early_timestamp_is_refused_as_the_reference_does(age_s: int) -> None:
    body, now = body_of(), present()
    headers = signed(body, SECRET, at=now - timedelta(seconds=age_s))
    with pytest.raises(InvalidSignature, match="clocks"):
        verify(headers, body, SECRET, now=now)
    assert verify(headers, body, SECRET, now=now, tolerance=timedelta(hours=1)).id == ID


def test_a_public_key_verifies_v1a_alone() -> None:
    body, key = body_of(), Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(key.public_key().public_bytes_raw()).decode()
    headers = signed(body, SECRET)
    message = f"{ID}.{headers['webhook-timestamp']}.".encode() + body
    both = {
        **headers,
        "webhook-signature": f"{headers['webhook-signature']} v1a,{base64.b64encode(key.sign(message)).decode()}",
    }
    assert verify(both, body, public).id == verify(both, body, SECRET).id == ID
    for forged, text in ((headers, body), (both, body + b" "), ({**both, "webhook-signature": "v1a,é v1a,"}, body)):
        with pytest.raises(InvalidSignature):
            verify(forged, text, public)
    with pytest.raises(ValueError, match="32"):
        verify(both, body, "whpk_AAAA")


def forge(**changed: str) -> dict[str, str]:
    """Return the headers of a request that is rightly signed, with some changed: `id`, `timestamp`, `signature`."""
    return signed(body_of(), SECRET) | {f"webhook-{name}": value for name, value in changed.items()}


def a_second_later() -> str:
    return str(int(present().timestamp()) + 1)


FORGED: Mapping[str, Callable[[], tuple[dict[str, str], bytes]]] = {
    "another secret": lambda: (signed(body_of(), OLDER), body_of()),
    "another body": lambda: (forge(), body_of(account="acct_2")),
    "a space more": lambda: (forge(), body_of() + b" "),
    "another id": lambda: (forge(id=ID.replace("_2", "_3")), body_of()),
    "another time": lambda: (forge(timestamp=a_second_later()), body_of()),
    "no version": lambda: (forge(signature="AAAA"), body_of()),
    "an empty signature": lambda: (forge(signature="v1,"), body_of()),
    "no signature": lambda: (forge(signature=""), body_of()),
    "no id": lambda: (forge(id=""), body_of()),
    "no time": lambda: (forge(timestamp=""), body_of()),
    "a time in words": lambda: (forge(timestamp="now"), body_of()),
    "a negative time": lambda: (forge(timestamp="-1"), body_of()),
    "a time in other digits": lambda: (forge(timestamp="\u0661" * 10), body_of()),
    "letters beyond ASCII": lambda: (forge(signature="v1,\udc80é"), body_of()),
    "no headers": lambda: ({}, body_of()),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_request_is_refused(forged: str) -> None:
    headers, body = FORGED[forged]()
    with pytest.raises(InvalidSignature) as refused:
        verify(headers, body, SECRET)
    assert SECRET not in str(refused.value)
    with pytest.raises((standardwebhooks.WebhookVerificationError, ValueError, UnicodeError)):
        standardwebhooks.Webhook(SECRET).verify(body.decode(), headers)


@given(
    headers=st.dictionaries(
        st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "other"]),
        TEXT | st.sampled_from(["v1,", str(int(SOME_TIME.timestamp())), ID, "v1,AAAA v1a,"]),
    ),
    body=st.binary(),
)
def test_nothing_that_arrives_ends_in_another_error(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidSignature):
        verify(headers, body, SECRET, now=SOME_TIME)


@pytest.mark.parametrize("junk", [None, 7, "x", [], {}, {"payment": []}, True])
def test_a_signed_body_with_a_wrong_member_is_an_event_or_invalid(junk: Any) -> None:
    bodies = [body_of(**{name: junk}) for name in ("id", "type", "timestamp", "api_version", "account", "data")]
    bodies += [body_of({**SNAPSHOT, name: junk}) for name in SNAPSHOT]
    bodies += [body_of({name: value for name, value in SNAPSHOT.items() if name != left_out}) for left_out in SNAPSHOT]
    for body in bodies:
        with contextlib.suppress(InvalidSignature):
            assert verify(signed(body, SECRET), body, SECRET).id == ID


def test_a_signature_beyond_every_bound_is_refused_quickly() -> None:
    body = body_of()
    headers = signed(body, SECRET)
    headers["webhook-signature"] = "v1,AAAA " * 100_000
    with pytest.raises(InvalidSignature, match="too long"):
        verify(headers, body, SECRET)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'"text"', b'{"data": 7}'])
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidSignature, match="not an event"):
        verify(signed(body, SECRET), body, SECRET)


def test_a_signed_event_under_another_id_is_refused() -> None:
    body = body_of()
    with pytest.raises(InvalidSignature, match="webhook-id"):
        verify(signed(body, SECRET, event_id="evt_other"), body, SECRET)


@pytest.mark.parametrize("secrets", ["", "whsec_", "whsec_???", "whsec_AAAA", [], ["whsec_é"]])
def test_what_cannot_be_a_secret_is_a_value_error_without_it(secrets: str | list[str]) -> None:
    body = body_of()
    with pytest.raises(ValueError, match="secret") as raised:
        verify(signed(body, SECRET), body, secrets)
    assert "???" not in str(raised.value)


def test_a_body_that_was_decoded_is_a_type_error() -> None:
    body = body_of()
    with pytest.raises(TypeError, match="bytes that arrived"):
        verify(signed(body, SECRET), body.decode(), SECRET)  # type: ignore[arg-type]  # that is the test


async def test_the_receiver_of_the_documents_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _client, receiver = re.findall(r"```python\n(.*?)```", (DOCS / "client.md").read_text(), re.DOTALL)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    code: dict[str, Any] = {}
    exec(receiver, code)
    runner = web.AppRunner(code["app"], access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    body = body_of()
    async with aiohttp.ClientSession() as http:
        for secret, expected in ((SECRET, 204), (OLDER, 400), (SECRET, 204)):
            async with http.post(url, data=body, headers=signed(body, secret)) as answer:
                assert answer.status == expected
    await runner.cleanup()
    assert capsys.readouterr().out == f"payment.succeeded {PAYMENT} success\n"


def test_the_signature_is_the_one_of_the_specification() -> None:
    body = body_of()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{ID}.{int(SOME_TIME.timestamp())}.".encode() + body, hashlib.sha256)
    assert signed(body, SECRET, at=SOME_TIME)["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"

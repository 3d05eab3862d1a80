"""Signatures, verified by libraries that others wrote: `standardwebhooks` and `svix` (`v1`), `cryptography` (`v1a`)."""

from __future__ import annotations

import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from okane.errors import SetupError
from okane.webhooks import keys, signing
from okane.webhooks.signing import PrivateKey, sign

ENDPOINT = UUID(int=7)
MASTER = b"m" * 32
EVENT_ID = "evt_01a2b3c4000070008000000000000001_2"
BODY = '{"name":"Zoë 😀","text":"\u2028"}'.encode()


def secret(generation: int) -> str:
    return keys.secret(MASTER, ENDPOINT, generation)


def raw(text: str) -> bytes:
    return b64decode(text.partition("_")[2])


def headers(signature: str, *, at_s: float | None = None) -> Mapping[str, str]:
    return {
        "webhook-id": EVENT_ID,
        "webhook-timestamp": str(int(time.time() if at_s is None else at_s)),
        "webhook-signature": signature,
    }


def is_accepted(secret: str, body: bytes, sent: Mapping[str, str]) -> bool:
    """Return the verdict of both libraries, which must agree."""
    verdicts = []
    for verifier, refusal in (
        (standardwebhooks.Webhook(secret), standardwebhooks.WebhookVerificationError),
        (svix.webhooks.Webhook(secret), svix.webhooks.WebhookVerificationError),
    ):
        try:
            verifier.verify(body, dict(sent))
            verdicts.append(True)
        except refusal:
            verdicts.append(False)
    assert len(set(verdicts)) == 1
    return verdicts[0]


def signed(body: bytes = BODY, *, generations: tuple[int, ...] = (1,), at_s: float | None = None) -> Mapping[str, str]:
    at_s = time.time() if at_s is None else at_s
    return headers(sign([raw(secret(one)) for one in generations], EVENT_ID, int(at_s), body), at_s=at_s)


def test_the_libraries_accept_what_is_signed() -> None:
    assert is_accepted(secret(1), BODY, signed())


def test_the_libraries_accept_the_newer_and_the_older_secret_and_no_other() -> None:
    sent = signed(generations=(2, 1))
    assert is_accepted(secret(2), BODY, sent)
    assert is_accepted(secret(1), BODY, sent)
    assert not is_accepted(secret(3), BODY, sent)


def test_the_libraries_refuse_another_body_id_or_time() -> None:
    sent = signed()
    assert not is_accepted(secret(1), BODY + b" ", sent)
    assert not is_accepted(secret(1), BODY, {**sent, "webhook-id": EVENT_ID + "1"})
    assert not is_accepted(secret(1), BODY, {**sent, "webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)})


def test_the_libraries_refuse_an_old_signature() -> None:
    assert is_accepted(secret(1), BODY, signed(at_s=time.time() - 290))
    assert not is_accepted(secret(1), BODY, signed(at_s=time.time() - 310))


def test_it_is_the_signature_that_the_library_makes() -> None:
    at = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)
    theirs = standardwebhooks.Webhook(secret(1)).sign(EVENT_ID, at, BODY.decode())
    assert sign([raw(secret(1))], EVENT_ID, int(at.timestamp()), BODY) == theirs


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**33))
def test_any_text_has_the_signature_that_the_library_makes(text: str, at_s: int) -> None:
    theirs = standardwebhooks.Webhook(secret(1)).sign(EVENT_ID, datetime.fromtimestamp(at_s, UTC), text)
    assert sign([raw(secret(1))], EVENT_ID, at_s, text.encode()) == theirs


def test_the_libraries_skip_the_asymmetric_signature() -> None:
    at_s = int(time.time())
    signature = sign([raw(secret(1))], EVENT_ID, at_s, BODY, [PrivateKey(bytes(32))])
    assert [one.partition(",")[0] for one in signature.split(" ")] == ["v1", "v1a"]
    assert is_accepted(secret(1), BODY, headers(signature))
    assert not is_accepted(secret(2), BODY, headers(signature))


def test_the_asymmetric_signature_is_verified_with_the_public_key() -> None:
    private = PrivateKey(bytes(range(32)))
    signature = sign([], EVENT_ID, 1_796_000_000, BODY, [private])
    public = Ed25519PublicKey.from_public_bytes(private.public_bytes())
    public.verify(b64decode(signature.removeprefix("v1a,")), EVENT_ID.encode() + b".1796000000." + BODY)
    with pytest.raises(InvalidSignature):
        public.verify(b64decode(signature.removeprefix("v1a,")), EVENT_ID.encode() + b".1796000001." + BODY)


@pytest.mark.parametrize("length", [0, 23, 65])
def test_a_secret_of_a_length_that_receivers_may_refuse_does_not_sign(length: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        sign([b"x" * length], EVENT_ID, 0, BODY)


def test_the_asymmetric_signature_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signing.has_asymmetric()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    assert not signing.has_asymmetric()
    with pytest.raises(SetupError, match=r"okane\[asymmetric\]"):
        PrivateKey(bytes(32))

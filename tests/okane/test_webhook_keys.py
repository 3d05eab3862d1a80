"""The keys of endpoints: derived, rotated with an overlap, exchanged with their master."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from okane.errors import SetupError
from okane.webhooks import keys, signing
from okane.webhooks.keys import Masters, load_masters
from tests.payments import NOW

NEW, OLD = "n" * 32, "o" * 40
ENDPOINT = UUID("01a2b3c4-0000-7000-8000-000000000001")


@dataclass(frozen=True, slots=True)
class Owner:
    id: UUID = ENDPOINT
    key_generation: int = 1
    older_key_until: datetime | None = None
    asymmetric: bool = False


def of(*secrets: str) -> tuple[bytes, ...]:
    return tuple(b64decode(one.removeprefix("whsec_")) for one in secrets)


def test_a_secret_has_the_form_and_the_length_that_receivers_take() -> None:
    secret = keys.secret(NEW.encode(), ENDPOINT, 1)
    assert secret.startswith("whsec_")
    assert signing.MIN_SECRET_BYTES <= len(of(secret)[0]) <= signing.MAX_SECRET_BYTES


def test_a_secret_never_changes_for_the_same_master_endpoint_and_generation() -> None:
    # A literal: with any other derivation every receiver of every installation would refuse what it gets.
    assert keys.secret(NEW.encode(), ENDPOINT, 1) == "whsec_1Dh2xNH4G6K2Iseg9pzy9kduRpvAhTOCvwQmoKb8uU8="
    assert keys.public_key(NEW.encode(), ENDPOINT, 1) == "whpk_Ig53EUf5I+CWS8wtxX8IAncZ426ZeizttWQY7AlCKc8="


def test_every_master_endpoint_and_generation_has_a_secret_of_its_own() -> None:
    secrets = {
        keys.secret(master.encode(), UUID(int=endpoint), generation)
        for master in (NEW, OLD)
        for endpoint in range(3)
        for generation in (1, 2, 256, 65536)
    }
    assert len(secrets) == 24


def test_the_older_secret_signs_until_its_time_and_last() -> None:
    masters = Masters((NEW.encode(),))
    owner = Owner(key_generation=2, older_key_until=NOW + timedelta(hours=24))
    newer, older = (keys.secret(masters.current, ENDPOINT, generation) for generation in (2, 1))
    assert keys.signing_keys(masters, owner, now=NOW).secrets == of(newer, older)
    assert keys.signing_keys(masters, owner, now=NOW + timedelta(hours=24)).secrets == of(newer)


def test_during_an_exchange_the_keys_of_every_master_sign() -> None:
    masters = load_masters(f"{NEW}, {OLD}")
    assert masters is not None
    assert masters.current == NEW.encode()
    owner = Owner(key_generation=2, older_key_until=NOW + timedelta(seconds=1))
    expected = [keys.secret(master.encode(), ENDPOINT, generation) for generation in (2, 1) for master in (NEW, OLD)]
    assert keys.signing_keys(masters, owner, now=NOW).secrets == of(*expected)


def test_an_asymmetric_endpoint_has_as_many_private_keys_as_secrets() -> None:
    masters = Masters((NEW.encode(), OLD.encode()))
    found = keys.signing_keys(masters, Owner(asymmetric=True), now=NOW)
    assert len(found.secrets) == len(found.private_keys) == 2
    public = b64decode(keys.public_key(NEW.encode(), ENDPOINT, 1).removeprefix("whpk_"))
    assert found.private_keys[0].public_bytes() == public
    assert found.private_keys[0].public_bytes() not in found.secrets
    assert keys.signing_keys(masters, Owner(), now=NOW).private_keys == ()


def test_masters_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "new").write_text(f"{NEW}\n")
    (tmp_path / "older").write_text(f"{OLD},{'p' * 32}\n")
    assert load_masters("file:new,file:older", folder=tmp_path) == Masters((NEW.encode(), OLD.encode(), b"p" * 32))
    assert load_masters(None) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("s" * 31, "32 characters or more"),
        (f"{NEW},short", "32 characters or more"),
        (f"{NEW},", "is empty"),
        (f"{NEW},{NEW}", "twice"),
        (",".join(letter * 32 for letter in "abcde"), "more than 4"),
        ("m" * 5000, "visible ASCII"),
        ("ü" * 40, "visible ASCII"),
        ("file:absent", "cannot be read"),
        ("file:short", "32 characters or more"),
        ("file:", "needs a path"),
    ],
)
def test_a_master_that_is_no_secret_is_refused_and_not_repeated(setting: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("tooshortasecret")
    with pytest.raises(SetupError, match=said) as refused:
        load_masters(setting, folder=tmp_path)
    assert str(refused.value).startswith("OKANE_WEBHOOK_MASTER: ")
    for part in (NEW, "tooshortasecret", "s" * 31, "ü" * 40, "m" * 50):
        assert part not in str(refused.value)


def test_masters_and_keys_are_not_printed() -> None:
    masters = Masters((NEW.encode(),))
    assert NEW not in repr(masters)
    assert repr(keys.signing_keys(masters, Owner(), now=NOW)).startswith("<")

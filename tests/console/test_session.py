"""The signed values that a browser keeps: sessions, tokens, messages. And the secrets that sign them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.console.secret import load_signer
from okane.console.session import LIFETIME, MAX_MESSAGE, Signer, Ticket
from okane.errors import SetupError

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
KEY = "sk_test_0123456789ab"
SECRET, OTHER = b"a" * 32, b"b" * 32
SIGNER = Signer(SECRET)
TICKET = SIGNER.new_ticket(KEY, NOW)
COOKIE = SIGNER.write_ticket(TICKET)


def test_a_ticket_is_read_as_it_was_written() -> None:
    assert SIGNER.read_ticket(COOKIE, NOW) == TICKET
    assert (TICKET.key, TICKET.ends_s) == (KEY, int((NOW + LIFETIME).timestamp()))


@given(st.integers(0, len(COOKIE) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_changed_cookie_is_no_session(at: int, letter: str) -> None:
    changed = COOKIE[:at] + letter + COOKIE[at + 1 :]
    assert changed == COOKIE or SIGNER.read_ticket(changed, NOW) is None


@given(st.text())
def test_no_text_that_was_not_signed_is_a_session_a_token_or_a_message(text: str) -> None:
    assert SIGNER.read_ticket(text, NOW) is None
    assert not SIGNER.is_csrf_token(text, TICKET.id)
    assert SIGNER.read_message(text, TICKET.id) is None


def test_bytes_that_are_not_utf8_are_refused() -> None:
    text = b"\xff.\xff".decode(errors="surrogateescape")
    assert SIGNER.read_ticket(text, NOW) is None
    assert not SIGNER.is_csrf_token(text, TICKET.id)
    assert SIGNER.read_message(text, TICKET.id) is None


def test_a_session_ends_after_its_time() -> None:
    assert SIGNER.read_ticket(COOKIE, NOW + LIFETIME - timedelta(seconds=1)) is not None
    assert SIGNER.read_ticket(COOKIE, NOW + LIFETIME) is None


def test_a_clock_that_went_back_does_not_make_a_session_longer() -> None:
    assert SIGNER.read_ticket(COOKIE, NOW - timedelta(hours=1)) is None
    forever = SIGNER.write_ticket(Ticket(KEY, TICKET.id, 9_999_999_999))
    assert SIGNER.read_ticket(forever, NOW) is None


def test_a_session_of_another_secret_is_none() -> None:
    assert Signer(OTHER).read_ticket(COOKIE, NOW) is None
    assert Signer().read_ticket(COOKIE, NOW) is None


def test_the_secret_is_exchanged_without_ending_sessions() -> None:
    exchanged = Signer(OTHER, SECRET)
    assert exchanged.read_ticket(COOKIE, NOW) == TICKET
    assert exchanged.is_csrf_token(SIGNER.csrf_token(TICKET.id), TICKET.id)
    assert SIGNER.read_ticket(exchanged.write_ticket(TICKET), NOW) is None  # the new one signs


def test_a_token_belongs_to_its_session() -> None:
    token = SIGNER.csrf_token(TICKET.id)
    assert SIGNER.is_csrf_token(token, TICKET.id)
    assert not SIGNER.is_csrf_token(token, SIGNER.new_ticket(KEY, NOW).id)
    assert token not in COOKIE


def test_the_signature_of_one_purpose_is_none_for_another() -> None:
    text = COOKIE[:-65]
    assert SIGNER.csrf_token(text) != COOKIE[-64:]
    assert SIGNER.read_ticket(f"{text}.{SIGNER.csrf_token(text)}", NOW) is None


@given(st.text(max_size=MAX_MESSAGE))
def test_a_message_is_read_by_its_session_only(text: str) -> None:
    cookie = SIGNER.write_message(text, TICKET.id)
    assert SIGNER.read_message(cookie, TICKET.id) == text
    assert SIGNER.read_message(cookie, "another") is None


def test_a_long_message_is_cut_before_a_browser_refuses_its_cookie() -> None:
    cookie = SIGNER.write_message("é" * 10_000, TICKET.id)
    assert len(cookie) < 4_090
    assert (SIGNER.read_message(cookie, TICKET.id) or "").endswith("é…")


@pytest.mark.parametrize(
    "setting",
    ["short", "a" * 31, "a" * 32 + ",b", "file:", "file:/nowhere/at/all", ",".join("a" * 32 for _ in range(5))],
)
def test_a_secret_that_cannot_be_used_is_refused_without_repeating_it(setting: str) -> None:
    with pytest.raises(SetupError, match="OKANE_CONSOLE_SECRET") as refused:
        load_signer(setting)
    assert "a" * 31 not in str(refused.value)


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a" * 32 + "\n")
    assert load_signer("file:secret", folder=tmp_path).read_ticket(COOKIE, NOW) == TICKET

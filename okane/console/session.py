"""Sessions: the signed cookie, the token against cross-site requests, and one-time messages. Pure.

Guarantee: what the console did not sign with its secret is no session, no token and no message. A cookie holds the name of
a key, never its secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from okane import api_key
from okane.api_key import Scope
from okane.store import CONSOLE

LIFETIME = timedelta(hours=8)
COOKIE = "okane_console"
MESSAGE_COOKIE = "okane_console_message"
MAX_MESSAGE = 500  # characters: a browser refuses cookies of more than 4 kB

_TICKET = re.compile(r"(sk_(?:test|live)_[0-9a-z]{12})\.([0-9a-f]{32})\.([0-9]{10})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The content of a session cookie: the name of its key, its id, and the second at which it ends."""

    key: str
    id: str
    ends_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The session of a request: its key's account and scopes, and the address of the client.

    `key` is empty without authentication (`OKANE_AUTH=none`). `checked` is False while Postgres cannot tell whether the key
    is still valid: such a session may look, and change nothing.
    """

    key: str
    id: str
    account_id: str
    scopes: frozenset[Scope]
    address: str
    checked: bool = True

    @property
    def actor(self) -> str:
        """The name under which the history of a payment has the changes of this session."""
        return f"{CONSOLE} {self.key}".rstrip()

    def may(self, scope: Scope | str) -> bool:
        """Tell whether the session's key has a scope."""
        return Scope(scope) in self.scopes


SESSION = web.RequestKey("session", Session)


def session_of(request: web.Request) -> Session:
    """Return the session of a request to a screen that needs one."""
    return request[SESSION]


class Signer:
    """Signs and checks all that the console gives to a browser and takes back. Each purpose has a key of its own.

    With several secrets the first one signs, and all are valid: an exchange of the secret ends no session.
    """

    def __init__(self, *values: bytes) -> None:
        self._secrets = values or (secrets.token_bytes(32),)

    def new_ticket(self, key: str, now: datetime, *, lifetime: timedelta = LIFETIME) -> Ticket:
        """Return a ticket for a new session."""
        return Ticket(key, secrets.token_hex(16), int((now + lifetime).timestamp()))

    def write_ticket(self, ticket: Ticket) -> str:
        """Return the value of the session cookie."""
        text = f"{ticket.key}.{ticket.id}.{ticket.ends_s:010d}"
        return f"{text}.{self._sign('session', text)}"

    def read_ticket(self, cookie: str, now: datetime) -> Ticket | None:
        """Return the ticket in a session cookie; None if it is forged, changed or over."""
        match = _TICKET.fullmatch(cookie)
        if match is None or not self._is_signed("session", cookie[:-65], match[4]):
            return None
        ticket = Ticket(match[1], match[2], int(match[3]))
        # A clock that went back, or a secret that leaked, must not make a session that lasts longer than any.
        left_s = ticket.ends_s - now.astimezone(UTC).timestamp()
        return ticket if 0 < left_s <= LIFETIME.total_seconds() + 60 and api_key.is_prefix(ticket.key) else None

    def csrf_token(self, session_id: str) -> str:
        """Return the token that the forms of a session carry."""
        return self._sign("csrf", session_id)

    def is_csrf_token(self, token: str, session_id: str) -> bool:
        """Tell whether a form carries the token of its session."""
        return self._is_signed("csrf", session_id, token)

    def write_message(self, text: str, session_id: str) -> str:
        """Return the value of the cookie with a one-time message for a session."""
        short = text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"
        content = (
            base64.urlsafe_b64encode(_bytes(json.dumps([session_id, short], ensure_ascii=False))).decode().rstrip("=")
        )
        return f"{content}.{self._sign('message', content)}"

    def read_message(self, cookie: str, session_id: str) -> str | None:
        """Return the one-time message in a cookie; None if it is forged, or of another session."""
        content, _, signature = cookie.rpartition(".")
        if not self._is_signed("message", content, signature):
            return None
        try:
            owner, text = json.loads(base64.urlsafe_b64decode(content + "=="))
        except (binascii.Error, ValueError, TypeError):
            return None
        return str(text) if owner == session_id else None

    def _sign(self, purpose: str, text: str, secret: bytes | None = None) -> str:
        key = hashlib.sha256(b"okane console " + purpose.encode() + b"\0" + (secret or self._secrets[0])).digest()
        return hmac.digest(key, _bytes(text), "sha256").hex()

    def _is_signed(self, purpose: str, text: str, signature: str) -> bool:
        given = _bytes(signature)
        return any(hmac.compare_digest(self._sign(purpose, text, secret).encode(), given) for secret in self._secrets)


def _bytes(text: str) -> bytes:
    """Return a text that a client sent: it may hold what UTF-8 cannot write."""
    return text.encode(errors="backslashreplace")

"""The filter of dead letters as query strings and forms have it, and the fingerprint of a selection."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from multidict import MultiMapping

from okane.console.query_fields import choice_of, moment_of, refused, text_of
from okane.lanes import LANES
from okane.payment import Status
from okane.payment_id import parse_id
from okane.store import DeadLetterFilter, DeadPayment
from okane.store.dead_letters import Place

MAX_IDS = 500
STATUSES = (Status.FAILED_FINAL, Status.NEEDS_REVIEW)
LANE_NAMES = tuple(lane.name for lane in LANES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFields:
    """The fields. `ids`: these payments alone, empty for all that match."""

    statuses: tuple[Status, ...] = ()
    currency: str | None = None
    lane: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[UUID, ...] = ()

    @classmethod
    def read(cls, fields: MultiMapping[Any]) -> DeadFields:
        """Read a query string or a form. Raises PageError."""
        currency = text_of(fields, "currency").upper()
        if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise refused("currency", "is three letters, like USD")
        return cls(
            statuses=_statuses(fields.getall("status", [])),
            currency=currency or None,
            lane=choice_of(fields, "lane", LANE_NAMES),
            since=moment_of(fields, "since"),
            until=moment_of(fields, "until"),
            ids=_ids(fields.getall("id", [])),
        )

    def filter(self, account_id: str) -> DeadLetterFilter:
        """Return the filter for the store, of one account."""
        return DeadLetterFilter(
            account_id=account_id,
            statuses=frozenset(self.statuses),
            ids=list(self.ids) or None,
            currency=self.currency,
            lane=self.lane,
            dead_from=self.since,
            dead_before=self.until,
        )

    def pairs(self) -> list[tuple[str, str]]:
        """Return the fields as a query string or a form has them, without the ids."""
        pairs = [("status", status.value) for status in self.statuses]
        named = {"currency": self.currency, "lane": self.lane, "since": _text(self.since), "until": _text(self.until)}
        return [*pairs, *((name, value) for name, value in named.items() if value)]

    def document(self) -> dict[str, Any]:
        """Return the fields for the audit table."""
        found: dict[str, Any] = {name: value for name, value in self.pairs() if name != "status"}
        if self.statuses:
            found["status"] = [status.value for status in self.statuses]
        if self.ids:
            found["ids"] = len(self.ids)
        return found


def fingerprint(letters: Sequence[DeadPayment]) -> str:
    """Return a text that tells whether another selection has the same dead letters, with the same versions."""
    digest = hashlib.blake2b(digest_size=16)
    for letter in letters:
        digest.update(letter.payment.id.bytes)
        digest.update(letter.payment.version.to_bytes(8, "big"))
    return digest.hexdigest()


def read_shown(fields: Mapping[str, object]) -> Sequence[UUID]:
    """Return the payments that a dry run has shown, as its form names them. Raises PageError."""
    texts = text_of(fields, "shown", longest=MAX_IDS * 33).split(" ")
    return [] if texts == [""] else _ids(texts)


def write_place(place: Place) -> str:
    """Return a cursor of the list. It outlives the payment, which may leave the list before the next page."""
    dead_at, payment_id = place
    return f"{dead_at.astimezone(UTC).isoformat()}_{payment_id}"


def read_place(text: str) -> Place | None:
    """Return the place of a cursor, None for an empty one. Raises PageError."""
    if not text:
        return None
    at, _, id_text = text.partition("_")
    payment_id = parse_id(id_text)
    try:
        dead_at = datetime.fromisoformat(at)
    except ValueError:
        dead_at = None
    if payment_id is None or dead_at is None or dead_at.tzinfo is None:
        raise refused("after", "is not a place in the list: begin at its first page")
    return dead_at, payment_id


def _statuses(texts: Sequence[Any]) -> tuple[Status, ...]:
    wanted = {str(text) for text in texts}
    if wanted - {status.value for status in STATUSES}:
        raise refused("status", f"is one of {', '.join(STATUSES)}")
    return tuple(status for status in STATUSES if status.value in wanted)


def _ids(texts: Sequence[Any]) -> tuple[UUID, ...]:
    if len(texts) > MAX_IDS:
        raise refused("id", f"names up to {MAX_IDS} payments")
    found = [parse_id(str(text)) for text in texts]
    if any(one is None for one in found):
        raise refused("id", "is the id of a payment")
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat()

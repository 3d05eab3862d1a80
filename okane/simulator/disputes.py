"""The disputes of the mock provider: opened and decided on request, each change a line of a journal of their own.

    POST /disputes            {"charge", "amount"?, "reason"?, "due_by"?} -> 200 the dispute; `charge` is the charge's key
    POST /disputes/{ref}      {"status"} -> 200 the dispute
    GET  /disputes/{ref}      200 {"dispute", "charge", "payment_id", "amount", "currency", "status", "reason"?, "due_by"?}
`status` is `needs_response`, `under_review`, `won`, `lost` or `closed`. Each change is a notice, if there is an address for
them.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Self

from aiohttp import web

from okane.simulator.answers import CHARGES, json_answer, json_object, problem, text_member
from okane.simulator.journal import EntryJournal, JournalError, encoded_line
from okane.simulator.notices import NoticeSender

STATUSES = ("needs_response", "under_review", "won", "lost", "closed")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeEntry:
    """One line: a dispute from `at` on. `key` is its name and the number of the change."""

    key: str
    dispute: str
    charge: str
    payment_id: str
    amount: int
    currency: str
    status: str
    at: str
    reason: str | None = None
    due_by: str | None = None

    def to_line(self) -> bytes:
        return encoded_line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Parse a line of `to_line`. Raises ValueError or TypeError."""
        return cls(**json.loads(line))


class DisputeJournal(EntryJournal[DisputeEntry]):
    """The journal of the disputes."""

    shape = re.compile(
        rb'\{"key":("(?:[^"\\]|\\.)*"),"dispute":.*,"status":"(needs_response|under_review|won|lost|closed)",.*\}\n'
    )

    def parse(self, line: bytes) -> DisputeEntry:
        return DisputeEntry.from_line(line)

    def latest(self, ref: str) -> DisputeEntry | None:
        """Return the dispute as it is now."""
        number, entry = 0, None
        while (found := self.find(f"{ref}:{number}")) is not None:
            number, entry = number + 1, found
        return entry


class DisputeDesk:
    """The disputes of one provider, and the notices about them."""

    def __init__(self, journal: DisputeJournal, notices: NoticeSender | None) -> None:
        self.journal = journal
        self._notices = notices

    async def write(self, entry: DisputeEntry, *, charge_ref: str | None, kind: str) -> None:
        """Write a change and tell it. Raises JournalError."""
        await self.journal.append(entry)
        if self._notices is not None:
            event = {
                "type": f"dispute.{kind}",
                "charge": entry.charge,
                "payment_id": entry.payment_id,
                "provider_ref": charge_ref,
                "dispute": entry.dispute,
            }
            self._notices.send(f"evt_{entry.key.replace(':', '_')}", event)


DISPUTES = web.AppKey("disputes", DisputeDesk)


def add_to(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_post("/disputes", _open)
    app.router.add_post("/disputes/{ref}", _change)
    app.router.add_get("/disputes/{ref}", _look_up)


async def _open(request: web.Request) -> web.Response:
    try:
        document = json_object(await request.read())
        charge = request.app[CHARGES].journal.find(text_member(document, "charge"))
        if charge is None:
            return problem(404, "charge_not_found", "no charge under this key")
        entry = _opened(document, charge.key, charge.payment_id, charge.amount, charge.currency)
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    try:
        await request.app[DISPUTES].write(entry, charge_ref=charge.provider_ref, kind="opened")
    except JournalError as error:
        return problem(500, "journal_failed", str(error))
    return json_answer(200, _shown(entry))


async def _change(request: web.Request) -> web.Response:
    desk = request.app[DISPUTES]
    try:
        status = json_object(await request.read()).get("status")
        if status not in STATUSES or not isinstance(status, str):
            raise ValueError(f"status must be one of {', '.join(STATUSES)}")  # noqa: TRY301 - answered as the others are
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    known = desk.journal.latest(request.match_info["ref"])
    if known is None:
        return problem(404, "dispute_not_found", "no such dispute")
    number = int(known.key.rpartition(":")[2]) + 1
    entry = replace(known, key=f"{known.dispute}:{number}", status=status, at=datetime.now(UTC).isoformat())
    kind = "closed" if status in ("won", "lost", "closed") else "updated"
    charge = request.app[CHARGES].journal.find(known.charge)
    try:
        await desk.write(entry, charge_ref=None if charge is None else charge.provider_ref, kind=kind)
    except JournalError as error:
        return problem(500, "journal_failed", str(error))
    return json_answer(200, _shown(entry))


async def _look_up(request: web.Request) -> web.Response:
    entry = request.app[DISPUTES].journal.latest(request.match_info["ref"])
    if entry is None:
        return problem(404, "dispute_not_found", "no such dispute")
    return json_answer(200, _shown(entry))


def _opened(document: Mapping[str, object], charge: str, payment_id: str, most: int, currency: str) -> DisputeEntry:
    """Return the dispute in a request. Raises ValueError."""
    amount, reason, due_by = document.get("amount", most), document.get("reason"), document.get("due_by")
    if type(amount) is not int or not 0 < amount <= most:
        raise ValueError("amount must be a whole number of minor units, up to the charge's")
    if not all(one is None or (isinstance(one, str) and 0 < len(one) <= 100) for one in (reason, due_by)):
        raise ValueError("reason and due_by must be short texts")
    ref = f"dp_{secrets.token_hex(12)}"
    return DisputeEntry(
        key=f"{ref}:0",
        dispute=ref,
        charge=charge,
        payment_id=payment_id,
        amount=amount,
        currency=currency,
        status="needs_response",
        at=datetime.now(UTC).isoformat(),
        reason=reason if isinstance(reason, str) else None,
        due_by=due_by if isinstance(due_by, str) else None,
    )


def _shown(entry: DisputeEntry) -> dict[str, object]:
    fields = asdict(entry)
    return {name: value for name, value in fields.items() if name not in ("key", "at") and value is not None}

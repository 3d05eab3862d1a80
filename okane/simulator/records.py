"""The mock provider's own list of a time, for those who compare it with theirs.

    GET /records?from=2026-11-30T00:00:00Z&to=2026-12-01T00:00:00Z&limit=1000&after=CURSOR
        -> {"records": [...], "next": CURSOR or null}
A record has `kind` (`charge`, `capture`, `void`, `refund`), `key`, `provider_ref`, `payment_id`, `amount`, `currency`,
`status`, `at`, and where they apply `charge` (the key of an operation's charge), `operation_id`, `code`, `fee` and `capture`
(`manual`: the charge only authorized, and its captures are records of their own). A page may be empty and yet have a next
one: it ends after a part of the file.
"""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from okane.simulator.answers import CHARGES, OPERATIONS, json_answer, problem
from okane.simulator.journal import Charge, EntryJournal
from okane.simulator.operation_journal import OperationEntry

_MOST = 1000
_MAX_SCAN_BYTES = 8 << 20
_JOURNALS = ("charges", "operations")


def add_to(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/records", _records)


async def _records(request: web.Request) -> web.Response:
    try:
        begin, end = _time(request.query.get("from", "")), _time(request.query.get("to", ""))
        limit, name, start = _place(request.query.get("limit", str(_MOST)), request.query.get("after", "charges:0"))
    except ValueError as error:
        return problem(400, "bad_request", str(error))
    found: list[dict[str, object]] = []
    shown_at = datetime.now(UTC)

    async def read(journal: EntryJournal[Charge] | EntryJournal[OperationEntry]) -> str | None:
        """Add the records of a page. Return the cursor of the next one in the same journal, or None at its end."""
        position = start
        async for block in journal.lines(start=position):
            for line in block.splitlines(keepends=True):
                position += len(line)
                entry = journal.parse(line)
                if begin <= datetime.fromisoformat(entry.at) < end:
                    found.append(_record(request, entry, shown_at))
                if len(found) == limit:
                    return f"{name}:{position}"
            if position - start >= _MAX_SCAN_BYTES:
                return f"{name}:{position}"
        return None

    following: str | None
    try:
        if name == "charges":
            following = await read(request.app[CHARGES].journal) or "operations:0"
        else:
            following = await read(request.app[OPERATIONS].journal)
    except (ValueError, TypeError):  # in the middle of a line
        return problem(400, "bad_request", "after must be the cursor of an earlier page")
    return json_answer(200, {"records": found, "next": following})


def _place(limit: str, after: str) -> tuple[int, str, int]:
    """Return the size of a page, and the journal and the byte at which it begins. Raises ValueError."""
    name, _, start = after.partition(":")
    size, position = int(limit), int(start)
    if not 1 <= size <= _MOST or name not in _JOURNALS or position < 0:
        raise ValueError("limit must be from 1 to 1000, and after a cursor")
    return size, name, position


def _time(text: str) -> datetime:
    """Return the time in a query. Raises ValueError."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("from and to must be times with an offset")
    return time


def _record(request: web.Request, entry: Charge | OperationEntry, now: datetime) -> dict[str, object]:
    fee_bps = request.app[CHARGES].behaviour.fee_bps
    record: dict[str, object] = {
        "key": entry.key,
        "provider_ref": entry.provider_ref,
        "payment_id": entry.payment_id,
        "amount": entry.amount,
        "currency": entry.currency,
        "at": entry.at,
    }
    if isinstance(entry, Charge):
        status = request.app[OPERATIONS].state_of(entry, now).status
        record |= {"kind": "charge", "status": status} | ({"capture": "manual"} if entry.is_manual else {})
        has_fee = status == "captured" and not entry.is_manual
    else:
        status = entry.status_at(now)
        record |= {"kind": entry.kind, "status": status, "charge": entry.charge, "operation_id": entry.operation_id}
        has_fee = entry.kind == "capture" and status == "succeeded"
    if entry.code is not None and status in ("declined", "failed"):
        record["code"] = entry.code
    return record | {"fee": round(entry.amount * fee_bps / 10_000)} if has_fee and fee_bps else record

"""The requests, rows and events of operations: I26 (promises), I27 (rest) and I32 (claims and allowed statuses)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from okane.operation import AT_REST, TRANSITIONS, OperationStatus
from torture.history.journals import History
from torture.history.operations import Move, OperationEventRow, OperationRequest, OperationRow
from torture.invariants.violation import Violation

_S = OperationStatus
_OUTCOMES = frozenset({"success", "declined", "spent", "unavailable", "deferred", "unknown", "pending"})
_CLOCKS_DIFFER_S = 0.1  # as in `money`


def acknowledged_operations_exist(history: History) -> Sequence[Violation]:
    """I26: every acknowledged operation exists, as it was asked for, and a key leads to one of them."""
    rows = history.operations.rows
    found: list[Violation] = []
    ids: dict[str, str] = {}
    for request in history.operations.requests:
        if not request.acknowledged:
            continue
        row, subject = rows.get(request.operation_id or ""), request.key or request.payment_id
        if row is None:
            found.append(Violation("I26", subject, "acknowledged and not there", repr(request)))
        elif request.key is not None and ids.setdefault(request.key, row.id) != row.id:
            what = f"the key led to another operation before, {ids[request.key]}"
            found.append(Violation("I26", subject, what, repr(request)))
        elif not _is_meant(row, request):
            found.append(Violation("I26", subject, "not what was asked for", f"{request} became {row}"))
    owners: dict[tuple[str, str], OperationRow] = {}
    for row in rows.values():
        if row.key is not None and (other := owners.setdefault((row.account_id, row.key), row)) is not row:
            found.append(Violation("I26", row.key, "two operations have the key", f"{other} and {row}"))
    return found


def operations_are_decided(history: History) -> Sequence[Violation]:
    """I27: no operation is open, but those that wait for a human, with a reason."""
    found = []
    for row in history.operations.rows.values():
        if row.status not in AT_REST:
            what = f"{row.kind} still {row.status} after {history.waited_s:g} s"
            found.append(Violation("I27", row.id, what, f"{row}, {history.operations.events.get(row.id, ())}"))
        elif row.status is _S.NEEDS_REVIEW and not (row.reason or "").strip():
            found.append(Violation("I27", row.id, "needs a review without a reason", repr(row)))
    return found


def operations_are_claimed(history: History) -> Sequence[Violation]:
    """I32: statuses change as allowed, under the live claim only, and a claim comes before each move."""
    moves: dict[str, list[Move]] = {}
    for move in history.operations.moves:
        moves.setdefault(move.made_by, []).append(move)
    return [
        Violation("I32", row.id, wrong, f"{row}, {history.operations.events.get(row.id, ())}")
        for row in history.operations.rows.values()
        for wrong in _wrong_timeline(row, history.operations.events.get(row.id, ()), moves.get(row.id, ()))
    ]


def _is_meant(row: OperationRow, request: OperationRequest) -> bool:
    same_amount, same_key = request.amount_minor in (None, row.amount_minor), request.key in (None, row.key)
    return (row.payment_id, row.kind) == (request.payment_id, request.kind) and same_amount and same_key


def _wrong_timeline(row: OperationRow, events: Sequence[OperationEventRow], moves: Sequence[Move]) -> Iterator[str]:
    status, live, holder = _S.PENDING, 0, ""
    for version, line in enumerate(events, 1):
        if line.version != version:
            yield f"version {line.version} comes as number {version}"
            return
        if not _allowed(status, line):
            yield f"{status} became {line.status} by {line.event!r}"
            return
        if line.event == "claimed":
            if line.attempt != live + 1:
                yield f"attempt {line.attempt} was claimed after {live}"
            live, holder = line.attempt, line.actor
        elif line.event in _OUTCOMES and line.actor != holder:
            yield f"{line.event!r} was written by {line.actor}, while {holder} held it"
        elif line.attempt > live or (line.attempt < live and line.event != "late_result"):
            yield f"{line.event!r} was written under attempt {line.attempt}, the live one was {live}"
        status = line.status
    if (row.status, row.version, row.attempts) != (status, len(events), live):
        yield f"the row is {row.status} at version {row.version}, its events end with {status} at {len(events)}"
    claims_s = sorted(line.at_s for line in events if line.event == "claimed")
    for number, move in enumerate(sorted(moves, key=lambda one: one.at_s)):
        if number >= len(claims_s) or claims_s[number] > move.at_s + _CLOCKS_DIFFER_S:
            yield f"was made at the provider {len(moves)} times, under {len(claims_s)} claims"
            return


def _allowed(before: OperationStatus, line: OperationEventRow) -> bool:
    after = line.status
    if line.event == "late_result":
        return after is before or (before in AT_REST and after in TRANSITIONS[before])
    if line.event == "claimed":
        return after is _S.PROCESSING and after in TRANSITIONS[before]
    return after in TRANSITIONS[before] and after is not _S.PROCESSING

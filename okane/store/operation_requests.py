"""The requests of captures, voids and refunds: what they move is reserved in the statement that writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from okane.errors import (
    IdempotencyKeyReused,
    OperationRefused,
    PaymentNotFound,
    ReservationRefusal,
    StoreUnavailable,
    VersionConflict,
)
from okane.operation import NewOperation, Operation, OperationKind, OperationStatus
from okane.payment_id import PaymentId, cell_of
from okane.store import columns, sql_files
from okane.store.group_commit import is_away
from okane.store.operation_records import RequestedOperation
from okane.store.part_refusals import PartRefusals
from okane.store.prepared_statements import Row
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from streams.failpoints import failpoint

STATEMENTS = sql_files.prepare_statements("operations.sql", "request", "by_key", blocks_of="payments.sql")

AFTER_REQUEST = failpoint(
    "operations.after_commit", "requests of operations committed, the reply lost", raises=StoreUnavailable
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, by `actor`. With `is_expiry` it is okane's own void of an authorization that is about to end, or that
    `is_over`: its provider says so."""

    new: NewOperation
    actor: str
    is_expiry: bool = False
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class _Refused:
    """A refusal of the statement."""

    code: str
    left_minor: int
    payment_status: str
    version: int


class RequestStatements:
    """The requests of one store."""

    def __init__(self, *, grace: timedelta) -> None:
        self._grace = grace
        self._refusals = PartRefusals()

    async def request(self, session: Session, batch: Sequence[Asked]) -> Sequence[RequestedOperation | BaseException]:
        """Write the operations of one batch, or find those that their keys have already made.

        Several of one payment are written one after the other, each by a statement that sees the one before.
        """
        answers: dict[int, RequestedOperation | BaseException] = {}
        waiting = dict(enumerate(batch))
        while waiting:
            first: dict[UUID, int] = {}
            for place, asked in waiting.items():
                first.setdefault(asked.new.payment_id, place)
            chosen = {place: waiting.pop(place) for place in first.values()}
            try:
                answers |= await self._request_some(session, chosen)
            except Exception as error:
                if not answers:
                    raise  # nothing is written: the caller may try each request by itself
                # Those before are written, and have their answers.
                if is_away(error):
                    answers |= dict.fromkeys([*chosen, *waiting], error)
                    break
                answers |= await self._one_by_one(session, chosen) if len(chosen) > 1 else dict.fromkeys(chosen, error)
        return [answers[place] for place in range(len(batch))]

    async def _one_by_one(
        self, session: Session, chosen: Mapping[int, Asked]
    ) -> Mapping[int, RequestedOperation | BaseException]:
        """Request these operations each by itself, after one of them has failed the statement for all."""
        answers: dict[int, RequestedOperation | BaseException] = {}
        for place, asked in chosen.items():
            try:
                answers |= await self._request_some(session, {place: asked})
            except Exception as error:
                answers[place] = error
        return answers

    async def _request_some(
        self, session: Session, chosen: Mapping[int, Asked]
    ) -> Mapping[int, RequestedOperation | BaseException]:
        """Request operations of different payments; by their place in the batch."""
        ids: dict[int, UUID] = {place: PaymentId(cell_of(one.new.payment_id)) for place, one in chosen.items()}
        # May run twice: what the first run committed without a reply is found by its key, and has our id.
        try:
            rows = await session.fetch_repeatable(STATEMENTS["request"], self._parameters(ids, chosen))
        except psycopg.errors.CheckViolation as error:
            if (unavailable := self._refusals.unavailable(error, next(iter(ids.values())))) is not None:
                raise unavailable from error
            raise
        if AFTER_REQUEST.armed:
            await AFTER_REQUEST.hit()
        answers: dict[int, RequestedOperation | BaseException] = {}
        refused: dict[int, _Refused] = {}
        by_id = {row[0]: row for row in rows}
        for place, asked in chosen.items():
            row = by_id.get(ids[place])
            if row is not None and row[2]:
                answers[place] = RequestedOperation(_made(asked.new, row), created=True)
            elif row is not None and row[1] is not None:
                refused[place] = _Refused(row[1], row[3], row[8], row[10])
        missing = {place: asked for place, asked in chosen.items() if place not in answers}
        try:
            # A request that was refused may be the repeat of one that took what it asks for.
            known = await self._by_key(session, missing)
        except StoreUnavailable as error:
            return answers | dict.fromkeys(missing, error)  # those that were made are written, and have their answers
        for place, asked in missing.items():
            if place in known:
                operation, fingerprint = known[place]
                answers[place] = (
                    RequestedOperation(operation, created=operation.id == ids[place])
                    if fingerprint == asked.new.fingerprint
                    else IdempotencyKeyReused(operation.id, what=operation.kind.value)
                )
            else:
                answers[place] = _refusal(asked.new, refused.get(place))
        return answers

    async def _by_key(self, session: Session, missing: Mapping[int, Asked]) -> Mapping[int, tuple[Operation, bytes]]:
        """Return the operations that the keys of these requests have made, with their fingerprints, by place."""
        keyed = {place: asked.new for place, asked in missing.items() if not asked.is_expiry}
        if not keyed:
            return {}
        parameters = {
            "account_ids": [new.account_id for new in keyed.values()],
            "payment_ids": [new.payment_id for new in keyed.values()],
            "keys": [new.idempotency_key for new in keyed.values()],
            "places": [*keyed],
        }
        found = await session.fetch_repeatable(STATEMENTS["by_key"], parameters)
        return {row[0]: (columns.read_operation(row[2:]), row[1]) for row in found}

    def _parameters(self, ids: Mapping[int, UUID], chosen: Mapping[int, Asked]) -> dict[str, Any]:
        news = [asked.new for asked in chosen.values()]
        return {
            "ids": [*ids.values()],
            "payment_ids": [new.payment_id for new in news],
            "account_ids": [new.account_id for new in news],
            "kinds": [new.kind.value for new in news],
            "keys": [None if asked.is_expiry else asked.new.idempotency_key for asked in chosen.values()],
            "fingerprints": [new.fingerprint for new in news],
            "amounts_minor": [new.amount_minor for new in news],
            "currencies": [new.currency for new in news],
            "reasons": [new.reason for new in news],
            "metadata": [json.dumps(dict(new.metadata)) if new.metadata else "{}" for new in news],
            "request_ids": [new.request_id for new in news],
            "api_keys": [new.api_key for new in news],
            "actors": [asked.actor for asked in chosen.values()],
            "overs": [asked.is_over for asked in chosen.values()],
            "versions": [new.version for new in news],
            "grace_ms": milliseconds(self._grace),
        }


def _made(new: NewOperation, row: Row) -> Operation:
    """Return the operation that a request has made; all but a few columns are known without reading it back."""
    operation_id, _, _, _, account_id, currency, amount_minor, provider, _, created_at, _ = row
    made_at: datetime = created_at
    return Operation(
        operation_id,
        new.payment_id,
        account_id,
        new.kind,
        new.idempotency_key or None,
        amount_minor,
        currency,
        OperationStatus.PENDING,
        0,
        0,
        0,
        provider,
        str(operation_id),
        made_at,
        made_at,
        dict(new.metadata),
        reason=new.reason,
    )


_CODES: Mapping[str, ReservationRefusal] = {
    "capture_exceeds_authorized": "capture_exceeds_authorized",
    "refund_exceeds_captured": "refund_exceeds_captured",
    "currency_mismatch": "currency_mismatch",
    "payment_not_authorized": "payment_not_authorized",
    "payment_not_captured": "payment_not_captured",
    "operation_in_progress": "operation_in_progress",
}


def _refusal(new: NewOperation, refused: _Refused | None) -> OperationRefused | PaymentNotFound | VersionConflict:
    if refused is not None and refused.code == "payment_changed" and new.version is not None:
        return VersionConflict(refused.payment_status, _DONE[new.kind], seen=new.version, version=refused.version)
    code = None if refused is None else _CODES.get(refused.code)
    if refused is None or code is None:
        return PaymentNotFound(str(new.payment_id))
    return refusal_of(new.kind, code, left_minor=refused.left_minor, payment_status=refused.payment_status)


def refusal_of(
    kind: OperationKind, code: ReservationRefusal, *, left_minor: int, payment_status: str
) -> OperationRefused:
    """Return the refusal of an operation of a payment in this status, which has `left_minor` left for it."""
    message, limit = _explain(kind, code, max(0, left_minor), payment_status)
    return OperationRefused(code, message, limit)


def _explain(
    kind: OperationKind, code: ReservationRefusal, left_minor: int, payment_status: str
) -> tuple[str, int | None]:
    match code:
        case "capture_exceeds_authorized":
            return f"no more than {left_minor} was authorized", left_minor
        case "refund_exceeds_captured":
            return f"{left_minor} of the captured amount is left to refund", left_minor
        case "currency_mismatch":
            return "the currency is not that of the payment", None
        case "payment_not_authorized":
            return f"a payment that is {payment_status} cannot be {_DONE[kind]}: it must be authorized", None
        case "payment_not_captured":
            reason = "no provider has charged it" if payment_status == "success" else "nothing was captured"
            return f"a payment that is {payment_status} cannot be refunded: {reason}", None
        case "operation_in_progress":
            return "another capture or void of the payment is under way", None


_DONE = {OperationKind.CAPTURE: "captured", OperationKind.VOID: "voided", OperationKind.REFUND: "refunded"}

"""The bodies of deliveries: a snapshot of one change of a payment, or its ids alone; with its refund, capture or dispute, if
the change is one of it.

Guarantee: one event has the same bytes at every attempt, under one `api_version`: only values that cannot change after the
change was logged go into a body. A body has at most 64 kB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring as _quoted
from typing import Literal, Protocol
from uuid import UUID

from okane.store.webhook_events import DisputeSnapshot, EventRow, LoggedEvent, ReportedOperation
from okane.timestamp_text import to_text

MAX_BODY_BYTES = 64 * 1024  # common receivers refuse more than 100 kB, as Express does by default

_OF_ENDPOINT = (
    "webhook_endpoint."  # not `EventType`: a newer version may have logged a type that this one does not have
)
_EVENT_ID = re.compile(r"evt_([0-9a-f]{32})_(0|[1-9][0-9]{0,9})")
_METADATA = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


class BodyFormat(Protocol):
    """The part of an endpoint that its bodies depend on."""

    @property
    def payload(self) -> Literal["snapshot", "thin"]: ...
    @property
    def api_version(self) -> str: ...


def event_id(payment_id: UUID, version: int) -> str:
    """Return the id of an event, its `webhook-id`: derived from the change, so no repeat can have another."""
    return f"evt_{payment_id.hex}_{version}"


def parse_event_id(text: str) -> tuple[UUID, int] | None:
    """Return the payment and the version that `event_id` was made of; None for any other text."""
    match = _EVENT_ID.fullmatch(text)
    if match is None or (version := int(match[2])) >= 2**31:
        return None
    return UUID(match[1]), version


def needs_metadata(row: EventRow, endpoint: BodyFormat) -> bool:
    """Return True if the body cannot be made without the metadata, which was left out."""
    return row.metadata is None and endpoint.payload != "thin"


def body(row: EventRow, endpoint: BodyFormat) -> bytes:
    """Return the body of an event for an endpoint, in UTF-8. Raises ValueError if it needs metadata that was left out."""
    event = row.event
    head = _head(event_id(event.payment_id, event.version), event, endpoint.api_version)
    if event.type.startswith(_OF_ENDPOINT):
        return f'{head},"data":{{"endpoint":{{"id":"{event.payment_id}","version":{event.version}}}}}}}'.encode()
    if endpoint.payload == "thin":
        shown = _shown(row)
        thin = "" if shown is None else f',"{shown.kind}":{{"id":"{shown.id}"}}'
        if row.dispute is not None:
            thin = f',"dispute":{{"id":"{row.dispute.id}"}}'
        return f'{head},"data":{{"payment":{{"id":"{event.payment_id}","version":{event.version}}}{thin}}}}}'.encode()
    if row.metadata is None:
        raise ValueError("the metadata of the event was left out")
    written = _with_payment(head, row, f'"metadata":{_METADATA.encode(dict(row.metadata)) if row.metadata else "{}"}')
    if len(written) > MAX_BODY_BYTES:
        written = _with_payment(head, row, '"metadata_omitted":true')
    return written


def _head(id_: str, event: LoggedEvent, api_version: str) -> str:
    """Return the members of every body, without the brace at the end."""
    return (
        f'{{"id":"{id_}","type":"{event.type}","timestamp":"{to_text(event.at)}",'
        f'"api_version":"{api_version}","account":{_quoted(event.account_id)}'
    )


def _with_payment(head: str, row: EventRow, metadata: str) -> bytes:
    event = row.event
    document = (
        f'"id":"{event.payment_id}","version":{event.version},"status":"{row.status}",'
        f'"amount":{row.amount_minor},"currency":"{row.currency}","attempts":{row.attempts},'
        f'"idempotency_key":{_quoted(row.idempotency_key)},{metadata},'
        f'"created_at":"{to_text(row.created_at)}","updated_at":"{to_text(event.at)}"'
    )
    shown, beside = _shown(row), ""
    if shown is not None:
        beside = f',"{shown.kind}":{_operation(shown, row)}'
    elif row.dispute is not None:
        beside = f',"dispute":{_dispute(row.dispute)}'
    if not beside or (shown is not None and shown.event in _OF_THE_PAYMENT_TOO):
        document += _outcome(row)
    return f'{head},"data":{{"payment":{{{document}}}{beside}}}}}'.encode()


def _outcome(row: EventRow) -> str:
    document = ""
    if row.operation is not None and row.operation.event == "captured":
        document += f',"amount_captured":{row.operation.amount_minor}'
    if row.decline_code is not None:
        document += f',"decline_code":{_quoted(row.decline_code)}'
    if row.reason is not None:
        document += f',"reason":{_quoted(row.reason)}'
    return document


# The status of an operation after an event that has its document.
_STATUSES: Mapping[str, str] = {
    "refunded": "success",
    "refund_failed": "failed_final",
    "capture_failed": "failed_final",
    "late_result": "needs_review",
    "needs_review": "failed_final",  # okane's own void, of an authorization that may last
}
_OF_THE_PAYMENT_TOO = frozenset({"late_result", "needs_review"})


def _shown(row: EventRow) -> ReportedOperation | None:
    """Return the operation that has a document of its own in the body: what became of it the payment does not say."""
    return row.operation if row.operation is not None and row.operation.event in _STATUSES else None


def _operation(operation: ReportedOperation, row: EventRow) -> str:
    metadata = operation.metadata
    document = (
        f'"id":"{operation.id}","status":"{_STATUSES[operation.event]}","amount":{operation.amount_minor},'
        f'"currency":"{row.currency}","created_at":"{to_text(operation.created_at)}",'
        + ('"metadata_omitted":true' if metadata is None else f'"metadata":{_METADATA.encode(dict(metadata))}')
    )
    for name, text in (
        ("idempotency_key", operation.idempotency_key),
        ("reason", operation.reason),
        ("decline_code", operation.decline_code),
        ("last_error", row.reason),
    ):
        if text is not None:
            document += f',"{name}":{_quoted(text)}'
    return f"{{{document}}}"


def _dispute(dispute: DisputeSnapshot) -> str:
    document = (
        f'"id":"{dispute.id}","provider":{_quoted(dispute.provider)},"provider_ref":{_quoted(dispute.provider_ref)},'
        f'"status":"{dispute.status}","amount":{dispute.amount_minor},"currency":"{dispute.currency}"'
    )
    if dispute.reason is not None:
        document += f',"reason":{_quoted(dispute.reason)}'
    if dispute.due_by is not None:
        document += f',"due_by":"{to_text(dispute.due_by)}"'
    return f"{{{document}}}"

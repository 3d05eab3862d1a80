"""The JSON document of a capture, void or refund, as the API and the console show it."""

from __future__ import annotations

import json

from okane.operation import Operation, OperationStatus
from okane.payment_json import metadata_json
from okane.timestamp_text import to_text

_TRIED_AGAIN = frozenset({OperationStatus.FAILED_RETRYABLE, OperationStatus.UNKNOWN, OperationStatus.SUBMITTED})


def operation_document(operation: Operation) -> str:
    """Return the document of an operation. Members without a value are left out."""
    members: dict[str, object] = {
        "id": str(operation.id),
        "payment": str(operation.payment_id),
        "kind": operation.kind.value,
        "amount": operation.amount_minor,
        "currency": operation.currency,
        "status": operation.status.value,
        "attempts": operation.attempts,
        "provider": operation.provider,
        "created_at": to_text(operation.created_at),
        "updated_at": to_text(operation.updated_at),
    }
    retry_at = operation.retry_at if operation.status in _TRIED_AGAIN else None
    known = {
        "idempotency_key": operation.idempotency_key,
        "reason": operation.reason,
        "provider_ref": operation.provider_ref,
        "decline_code": operation.decline_code,
        "last_error": operation.last_error,
        "retry_at": None if retry_at is None else to_text(retry_at),
    }
    members |= {name: text for name, text in known.items() if text is not None}
    return f'{json.dumps(members, separators=(",", ":"))[:-1]},"metadata":{metadata_json(operation.metadata)}}}'

"""The JSON documents of webhook endpoints and deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from okane.api import query_parameters, timestamps
from okane.store.webhook_deliveries import Delivery
from okane.store.webhook_endpoints import EndpointState
from okane.store.webhook_events import LoggedEvent
from okane.webhooks import payload


def endpoint_document(state: EndpointState) -> Mapping[str, Any]:
    """Return the document of an endpoint. Members without a value are left out, `url` apart."""
    endpoint = state.endpoint
    known = {
        "rate_limit": endpoint.rate_limit,
        "disabled_reason": endpoint.disabled_reason,
        "older_key_until": _text(endpoint.older_key_until),
        "failing_since": _text(state.failing_since),
        "last_error": state.last_error,
    }
    return {
        "id": str(endpoint.id),
        "url": endpoint.url,
        "types": list(endpoint.types),
        "payload": endpoint.payload,
        "api_version": endpoint.api_version,
        "description": endpoint.description,
        "max_in_flight": endpoint.max_in_flight,
        "timeout_s": endpoint.timeout_s,
        "hold_s": endpoint.hold_s,
        "asymmetric": endpoint.asymmetric,
        "status": endpoint.status,
        "created_at": timestamps.to_text(endpoint.created_at),
        "starts_after": query_parameters.position_cursor(endpoint.starts_after),
        "backlog": state.backlog,
        "waiting": state.waiting,
        **{name: value for name, value in known.items() if value is not None},
    }


def delivery_document(event: LoggedEvent, delivery: Delivery) -> Mapping[str, Any]:
    """Return the document of a delivery of an event. Members without a value are left out."""
    known = {
        "next_at": _text(delivery.next_at),
        "status": delivery.status,
        "ms": delivery.ms,
        "reason": delivery.reason,
    }
    return {
        "event": payload.event_id(event.payment_id, event.version),
        "type": event.type,
        "endpoint": str(delivery.endpoint_id),
        "state": delivery.state,
        "attempts": delivery.attempts,
        "at": timestamps.to_text(delivery.at),
        "earlier": [_attempt(one) for one in delivery.earlier or ()],
        **{name: value for name, value in known.items() if value is not None},
    }


def _attempt(attempt: Mapping[str, Any]) -> Mapping[str, Any]:
    known = {name: attempt[name] for name in ("status", "ms", "reason") if attempt.get(name) is not None}
    return {"at": timestamps.to_text(datetime.fromisoformat(attempt["at"])), **known}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else timestamps.to_text(moment)

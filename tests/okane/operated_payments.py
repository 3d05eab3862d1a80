"""Payments whose money is held or has moved, and the outcomes of their captures and refunds, for tests of the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from okane.operation import OperationStatus
from okane.payment import Status
from okane.providers.capabilities import ALL
from okane.store.operation_records import OperationClaim, OperationSettlement
from tests.okane.api_requests import get, post, settle
from tests.okane.served_api import Api

CAPABLE = {"http": ALL}
EVENTS = {OperationStatus.SUCCESS: "success", OperationStatus.FAILED_FINAL: "declined"}


async def held(api: Api, key: str = "p-1", *, amount: int = 440) -> str:
    """Return a payment whose money is held for a day."""
    text = json.dumps({"amount": amount, "idempotency_key": key, "capture_method": "manual"})
    _, answer = await post(api, "/v1/payments", text)
    payment_id = str(answer["payment"]["id"])
    await settle(
        api,
        payment_id,
        Status.AUTHORIZED,
        provider="http",
        attempt_ref="auth_1",
        capture_before=datetime.now(UTC) + timedelta(days=1),
    )
    return payment_id


async def charged(api: Api, key: str = "p-1", *, amount: int = 440) -> str:
    """Return a payment that has succeeded."""
    _, answer = await post(api, "/v1/payments", json.dumps({"amount": amount, "idempotency_key": key}))
    await settle(api, answer["payment"]["id"], Status.SUCCESS, provider="http")
    return str(answer["payment"]["id"])


async def capture(api: Api, payment_id: str, key: str = "c-1", **members: object) -> tuple[int, Any]:
    response, answer = await post(
        api, f"/v1/payments/{payment_id}/capture", json.dumps({"idempotency_key": key} | members)
    )
    return response.status, answer


async def cancel(api: Api, payment_id: str) -> tuple[int, Any]:
    response, answer = await post(api, f"/v1/payments/{payment_id}/cancel", "")
    return response.status, answer


async def refund(api: Api, payment_id: str, key: str = "r-1", **members: object) -> tuple[int, Any]:
    text = json.dumps({"payment": payment_id, "idempotency_key": key} | members)
    response, answer = await post(api, "/v1/refunds", text)
    return response.status, answer


async def shown(api: Api, path: str) -> Any:
    response, answer = await get(api, path)
    assert response.status == 200, answer
    return answer


async def executed(
    api: Api, operation_id: str, status: OperationStatus = OperationStatus.SUCCESS, **more: Any
) -> OperationClaim:
    """Claim an operation, and write its outcome as a worker does."""
    claim = await api.operations.store.claim(UUID(operation_id))
    assert isinstance(claim, OperationClaim), claim
    members: dict[str, Any] = {
        "event": EVENTS.get(status, status.value),
        "call": "operate",
        "provider": "http",
        "latency": timedelta(milliseconds=5),
        "provider_ref": "op_1" if status is OperationStatus.SUCCESS else None,
    }
    outcome = OperationSettlement(
        operation_id=claim.operation.id, attempt=claim.operation.attempts, status=status, **members | more
    )
    assert await api.operations.store.settle(outcome) is not None
    return claim

"""The handlers of disputes: list and show them. They come from the notices of providers, and workers fetch them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from okane.api import payment_ids, query_parameters, timestamps
from okane.api.access import account_of
from okane.api.payment_queries import documents, page_of
from okane.api.problems import Problem, shortened
from okane.api.webhook_services import json_answer
from okane.dispute import Dispute, DisputeStatus
from okane.payment_id import parse_id
from okane.store.disputes import DisputeLists

_ID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
DISPUTE_ID_SCHEMA = {"type": "string", "format": "uuid", "pattern": f"^{_ID.pattern}$"}


def _payment(text: object) -> object:
    found = parse_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a payment's id")
    return found


class DisputeQuery(BaseModel):
    """The parameters of `GET /v1/disputes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = 20
    after: query_parameters.Cursor | None = None
    status: frozenset[DisputeStatus] = frozenset()
    provider: query_parameters.Text | None = None
    payment: Annotated[UUID, BeforeValidator(_payment), WithJsonSchema(payment_ids.ID)] | None = None


class DisputeHandlers:
    """The handlers of disputes."""

    def __init__(self, disputes: DisputeLists) -> None:
        self._disputes = disputes

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/disputes`: a page of the account's disputes, newest first."""
        query = query_parameters.parse_query(DisputeQuery, request.query)
        page = await self._disputes.page(
            account_of(request),
            statuses=query.status,
            provider=query.provider,
            payment_id=query.payment,
            limit=query.limit,
            after=query.after,
        )
        listed = await documents(page.disputes, _text)
        place = page.after if len(listed) == len(page.disputes) else page.disputes[len(listed) - 1].id
        after = None if place is None else query_parameters.cursor(place)
        return page_of(request, "disputes", f"[{','.join(listed)}]", after)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/disputes/{id}`: a dispute as its provider reported it last."""
        text = request.match_info["dispute_id"]
        found = await self._disputes.get(account_of(request), UUID(text)) if _ID.fullmatch(text) else None
        if found is None:
            said = shortened(text).encode("utf-8", "replace").decode()
            raise Problem(HTTPStatus.NOT_FOUND, "dispute_not_found", f"there is no dispute {said!r}")
        return json_answer({"dispute": dispute_document(found)})


def dispute_document(dispute: Dispute) -> Mapping[str, Any]:
    """Return the document of a dispute. Members without a value are left out."""
    known = {
        "reason": dispute.reason,
        "due_by": None if dispute.due_by is None else timestamps.to_text(dispute.due_by),
    }
    return {
        "id": str(dispute.id),
        "payment": str(dispute.payment_id),
        "provider": dispute.provider,
        "provider_ref": dispute.provider_ref,
        "amount": dispute.amount_minor,
        "currency": dispute.currency,
        "status": dispute.status.value,
        "created_at": timestamps.to_text(dispute.created_at),
        "updated_at": timestamps.to_text(dispute.updated_at),
        **{name: value for name, value in known.items() if value is not None},
    }


def _text(dispute: Dispute) -> str:
    return json.dumps(dispute_document(dispute))

"""The disputes of an account, as their providers reported them last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from aiohttp import web
from multidict import MultiMapping

from okane.console.query_fields import Fields, refused, text_of
from okane.console.rendering import render
from okane.console.session import session_of
from okane.dispute import DisputeStatus
from okane.payment_id import parse_id
from okane.store.disputes import WINDOW, DisputeLists

PAGE = 50


class DisputesScreen:
    """The page."""

    def __init__(self, lists: DisputeLists) -> None:
        self._lists = lists

    async def show(self, request: web.Request) -> web.Response:
        """`GET /disputes`: newest first, by status, provider and payment."""
        query = request.query
        statuses, provider = _statuses(query), text_of(query, "provider")
        payment_id = _id(query, "payment", "is the id of a payment")
        after = _id(query, "after", "is not a place in the list: begin at its first page")
        found = await self._lists.page(
            session_of(request).account_id,
            statuses=statuses,
            provider=provider or None,
            payment_id=payment_id,
            limit=PAGE,
            after=after,
        )
        filter_ = {"status": [one.value for one in statuses], "provider": provider, "payment": payment_id}
        return render(
            request,
            "disputes.html",
            disputes=found.disputes,
            all_statuses=list(DisputeStatus),
            filter={name: value for name, value in filter_.items() if value},
            next=found.after,
            is_first=after is None,
            looked_through=WINDOW if found.after is not None and len(found.disputes) < PAGE else 0,
        )


def _statuses(query: MultiMapping[Any]) -> Sequence[DisputeStatus]:
    wanted = {str(text) for text in query.getall("status", []) if text}
    if wanted - {one.value for one in DisputeStatus}:
        raise refused("status", f"is one of {', '.join(DisputeStatus)}")
    return [one for one in DisputeStatus if one.value in wanted]


def _id(query: Fields, name: str, rule: str) -> UUID | None:
    text = text_of(query, name)
    found = parse_id(text) if text else None
    if text and found is None:
        raise refused(name, rule)
    return found

"""The handlers of lists: payments, and the events and attempts of one payment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from aiohttp import web

from okane.api import payment_ids, query_parameters, timestamps
from okane.api.access import account_of
from okane.api.answer import JSON
from okane.payment import Payment, Status
from okane.payment_json import payment_document
from okane.store import Attempt, Event, PaymentLists, PaymentStore, actor_kind
from okane.time_slice import TimeSlice

MAX_PAGE = 512 * 1024  # characters of a page: a longer one ends early, and `after` leads to the rest

T = TypeVar("T")


class PaymentQueries:
    """The handlers of the lists."""

    def __init__(self, *, store: PaymentStore, lists: PaymentLists) -> None:
        self._store = store
        self._lists = lists

    async def payments(self, request: web.Request) -> web.Response:
        """`GET /v1/payments`: a page of the account's payments, newest first unless `order` is `ascending`."""
        query = query_parameters.parse_query(query_parameters.PaymentQuery, request.query)
        page = await self._lists.page(
            query.filter, account_id=account_of(request), limit=query.limit, after=query.after
        )
        listed = await documents(page.payments, payment_document)
        after = page.after if len(listed) == len(page.payments) else page.payments[len(listed) - 1].id
        return page_of(
            request, "payments", f"[{','.join(listed)}]", None if after is None else query_parameters.cursor(after)
        )

    async def events(self, request: web.Request) -> web.Response:
        """`GET /v1/payments/{id}/events`: the events of a payment, oldest first."""
        query = query_parameters.parse_query(query_parameters.PartQuery, request.query)
        payment = await self._payment(request)
        events = await self._lists.timeline(
            payment.id,
            account_id=payment.account_id,
            after=-1 if query.after is None else query.after,
            limit=query.limit + 1,
        )
        shown = events[: query.limit]
        after = query_parameters.number_cursor(shown[-1].version) if len(events) > query.limit else None
        return page_of(request, "events", json.dumps([_event(event) for event in shown]), after)

    async def attempts(self, request: web.Request) -> web.Response:
        """`GET /v1/payments/{id}/attempts`: the attempts of a payment and their outcomes, oldest first."""
        query = query_parameters.parse_query(query_parameters.PartQuery, request.query)
        payment = await self._payment(request)
        last = (query.after or 0) + query.limit
        attempts = await self._lists.attempts(
            payment.id, account_id=payment.account_id, after=query.after or 0, limit=query.limit
        )
        after = query_parameters.number_cursor(last) if payment.attempts > last else None
        return page_of(request, "attempts", json.dumps([_attempt(one, payment) for one in attempts]), after)

    async def _payment(self, request: web.Request) -> Payment:
        return await self._store.get(payment_ids.id_in_path(request), account_id=account_of(request))


async def documents(found: Sequence[T], document: Callable[[T], str]) -> Sequence[str]:
    """Return the documents of as many items as an answer may hold, of one at least. Other requests run in between."""
    time_slice, written, size = TimeSlice(), [], 0
    for one in found:
        written.append(document(one))
        size += len(written[-1])
        if size > MAX_PAGE:
            break
        await time_slice.end_if_spent()
    return written


def page_of(request: web.Request, name: str, listed: str, after: str | None) -> web.Response:
    """Return the answer `{"<name>": […], "has_more": …, "after": …}`, with a `Link` to the next page."""
    has_more = "true" if after is not None else "false"
    body = f'{{"{name}":{listed},"has_more":{has_more},"after":{json.dumps(after)}}}'
    headers = {}
    if after is not None:
        others = [(key, value) for key, value in request.query.items() if key != "after"]
        headers["Link"] = f'<{request.path}?{urlencode([*others, ("after", after)])}>; rel="next"'
    return web.Response(body=body.encode(), content_type=JSON, headers=headers)


def _event(event: Event) -> Mapping[str, object]:
    return _known_members(
        version=event.version,
        at=timestamps.to_text(event.at),
        event=event.event,
        status=event.status.value,
        attempt=event.attempt,
        actor=actor_kind(event.actor),  # the API does not expose the names of keys and workers
        provider=event.provider,
        call=event.call,
        decline_code=event.decline_code,
        reason=event.reason,
        latency_ms=event.latency_ms,
        operation=None if event.operation_id is None else str(event.operation_id),
    )


def _attempt(attempt: Attempt, payment: Payment) -> Mapping[str, object]:
    under_way = attempt.number == payment.attempts and payment.status is Status.PROCESSING
    return _known_members(
        attempt=attempt.number,
        began_at=timestamps.to_text(attempt.began_at),
        ended_at=None if attempt.ended_at is None else timestamps.to_text(attempt.ended_at),
        outcome=attempt.outcome or ("under_way" if under_way else "lost"),
        provider=attempt.provider,
        call=attempt.call,
        decline_code=attempt.decline_code,
        reason=attempt.reason,
        latency_ms=attempt.latency_ms,
    )


def _known_members(**members: object) -> Mapping[str, object]:
    """Return the members that have a value: the others are left out, as in a payment."""
    return {name: value for name, value in members.items() if value is not None}

"""The routes that read payments in lists."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from aiohttp import web

from okane.api import queries, wire
from okane.api.answers import JSON
from okane.api.caller import account_of
from okane.store import PaymentLists


class Reading:
    """The handlers of the lists."""

    def __init__(self, *, lists: PaymentLists) -> None:
        self._lists = lists

    async def payments(self, request: web.Request) -> web.Response:
        """`GET /v1/payments`: a page of the account's payments, newest first."""
        query = queries.read(queries.PaymentQuery, request.query)
        page = await self._lists.page(
            query.wanted, account_id=account_of(request), limit=query.limit, after=query.after
        )
        listed = ",".join(wire.payment_document(payment) for payment in page.payments)
        after = None if page.after is None else queries.cursor(page.after)
        return page_of(request, "payments", f"[{listed}]", after)


def page_of(request: web.Request, name: str, listed: str, after: str | None) -> web.Response:
    """`{"<name>": […], "has_more": …, "after": …}`, and where the next page is."""
    has_more = "true" if after is not None else "false"
    body = f'{{"{name}":{listed},"has_more":{has_more},"after":{json.dumps(after)}}}'
    headers = {}
    if after is not None:
        others = [(key, value) for key, value in request.query.items() if key != "after"]
        headers["Link"] = f'<{request.path}?{urlencode([*others, ("after", after)])}>; rel="next"'
    return web.Response(body=body.encode(), content_type=JSON, headers=headers)

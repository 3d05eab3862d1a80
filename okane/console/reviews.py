"""The payments and operations of an account that need a human's decision, which is made on the page of the payment."""

from __future__ import annotations

from aiohttp import web

from okane.console.query_fields import refused, text_of
from okane.console.rendering import render
from okane.console.session import session_of
from okane.payment_id import parse_id
from okane.store import ReviewStore

PAGE = 50
OPERATIONS = 50  # the newest ones: the rest follows as they are decided


class ReviewsScreen:
    """The page."""

    def __init__(self, store: ReviewStore) -> None:
        self._store = store

    async def show(self, request: web.Request) -> web.Response:
        """`GET /reviews`"""
        text = text_of(request.query, "after")
        before = parse_id(text) if text else None
        if text and before is None:
            raise refused("after", "is not a place in the list: begin at its first page")
        account_id, is_first = session_of(request).account_id, before is None
        found = await self._store.page(PAGE + 1, account_id=account_id, before=before)
        operations = await self._store.operations(OPERATIONS + 1, account_id=account_id) if is_first else ()
        return render(
            request,
            "reviews.html",
            payments=found[:PAGE],
            next=found[PAGE - 1].id if len(found) > PAGE else None,
            is_first=is_first,
            operations=operations[:OPERATIONS],
            has_more_operations=len(operations) > OPERATIONS,
        )

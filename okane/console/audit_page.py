"""The page of the audit table: what was done in the console, from where, and with which answer."""

from __future__ import annotations

from aiohttp import web

from okane.console.query_fields import number_of
from okane.console.rendering import render
from okane.store.console_audit import NEWEST, ConsoleAuditStore

PAGE = 100


class AuditScreen:
    """The page."""

    def __init__(self, store: ConsoleAuditStore) -> None:
        self._store = store

    async def show(self, request: web.Request) -> web.Response:
        """`GET /audit`"""
        before = number_of(request.query, "after", least=1, most=NEWEST, default=NEWEST)
        found = await self._store.page(limit=PAGE + 1, before=before)
        return render(
            request,
            "audit.html",
            rows=found[:PAGE],
            next=found[PAGE - 1].id if len(found) > PAGE else None,
            is_first=before == NEWEST,
        )

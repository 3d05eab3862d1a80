"""The API keys of all accounts, without their secrets, and their revocation."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from okane.api_key import is_prefix
from okane.console.actions import Done, Form, perform
from okane.console.page_errors import PageError
from okane.console.query_fields import text_of
from okane.console.rendering import PAGES, render
from okane.console.session import session_of
from okane.store import ApiKeyStore

PAGE = 50  # each has a dialog of its own: hundreds would hold up every other page meanwhile


class KeyScreens:
    """The page of the keys, and their revocation."""

    def __init__(self, store: ApiKeyStore) -> None:
        self._store = store

    async def show(self, request: web.Request) -> web.Response:
        """`GET /keys`"""
        account = text_of(request.query, "account", longest=64)
        ended = request.query.get("ended") == "1"
        after = text_of(request.query, "after", longest=50)
        found = await self._store.list(account_id=account or None, ended=ended, limit=PAGE + 1, after=after or None)
        return render(
            request,
            "keys.html",
            keys=found[:PAGE],
            next=found[PAGE - 1].prefix if len(found) > PAGE else None,
            is_first=not after,
            account=account,
            ended=ended,
            own=session_of(request).key,
        )

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        """`POST /keys/{key}/revoke`"""
        prefix = request.match_info["key"]
        if not is_prefix(prefix):
            raise PageError(HTTPStatus.NOT_FOUND, "There is no such key.")

        async def run(_form: Form) -> Done:
            revoked = await self._store.revoke(prefix)
            if revoked is None:
                raise PageError(HTTPStatus.NOT_FOUND, "There is no such key.")
            message = f"{prefix} is revoked: every API and console refuses it within 5 s."
            return Done(message, request.app[PAGES].links.keys(), answer="revoked")

        return await perform(request, run, target=prefix)

"""The routes of health and readiness, for probes and load balancers."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import structlog
from aiohttp import web

from okane.api.answer import JSON
from okane.api.problems import Problem
from okane.errors import StoreUnavailable
from okane.store import PaymentStore

log = structlog.get_logger("okane.api")


class HealthHandlers:
    """The handlers of health and readiness. The process is not ready once `leaving` is set."""

    def __init__(self, *, store: PaymentStore, leaving: asyncio.Event | None = None) -> None:
        self._store = store
        self._leaving = leaving
        self._was_ready = True

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /v1/health`, `/health`, `/healthz`: answer 200 while the process runs, whatever it depends on."""
        return web.Response(body=b'{"status":"ok"}', content_type=JSON)

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /readyz`: answer 200 if payments can be accepted, that is, Postgres takes writes. Redis may be away.

        The route needs no key, so the reason, which would name the address of Postgres, is in the log alone.
        """
        if self._leaving is not None and self._leaving.is_set():
            raise _not_ready("this process is about to end")
        try:
            await self._store.check_writable()
        except StoreUnavailable as error:
            if self._was_ready:  # probes come every few seconds: one line is enough
                log.warning("not_ready", reason=str(error))
            self._was_ready = False
            raise _not_ready("Postgres takes no writes") from error
        if not self._was_ready:
            log.info("ready_again")
        self._was_ready = True
        return web.Response(body=b'{"status":"ready"}', content_type=JSON)


def _not_ready(detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", detail, retryable=True, headers={"Retry-After": "1"})

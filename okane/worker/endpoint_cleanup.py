"""Ends what requests about webhook endpoints have left: deletions without an end, and endpoints without a reader.

Every worker does it once a minute. Several at once do no harm.
"""

from __future__ import annotations

import asyncio

import structlog

from okane.errors import AccountBusy, StoreUnavailable
from okane.pausing import pause
from okane.store import SweepStore
from okane.store.webhook_endpoints import WebhookEndpointStore

log = structlog.get_logger("okane.webhooks")

INTERVAL_S = 60.0


class EndpointCleanup:
    """The cleanup of one worker. `endpoints` is connected only if an account has an endpoint."""

    def __init__(self, *, sweep_store: SweepStore, endpoints: WebhookEndpointStore) -> None:
        self._sweep_store = sweep_store
        self._endpoints = endpoints

    async def run(self, stop: asyncio.Event) -> None:
        """Clean up every minute until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except (StoreUnavailable, AccountBusy) as error:  # the connection that was lost has logged it
                log.debug("endpoint_cleanup_interrupted", reason=str(error))
            except Exception:
                log.exception("endpoint_cleanup_failed")  # the next round may succeed
            await pause(INTERVAL_S, stop)

    async def run_once(self) -> int:
        """Clean up; return how many deletions were ended. The others wait for their dispatchers. Raises StoreUnavailable."""
        if not await self._sweep_store.needs_sequencing():
            return 0
        ended = 0
        for endpoint in await self._endpoints.tidy():
            if await self._endpoints.finish_delete(endpoint):
                ended += 1
                log.info(
                    "webhook_endpoint_deleted", endpoint=str(endpoint.id), account=endpoint.account_id, actor="worker"
                )
        return ended

"""The notices of the mock provider: signed webhooks about refunds that are decided or fail later, and about
disputes.

A notice is sent when its time has come, and again until it is taken. After a restart those of the last hour are sent again:
its receiver knows each by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import aiohttp

from okane.simulator.operation_journal import OperationEntry

_RECENT = timedelta(hours=1)
_PAUSES_S = (0.2, 1.0, 5.0, 30.0, 60.0)  # between the attempts at one notice
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class NoticeSender:
    """Sends to `url`, signed with `secret`. Created on a running loop; closed by `aclose()`."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret.encode()
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self, entries: Iterable[OperationEntry]) -> None:
        """Plan the notices of a journal that was just opened."""
        for entry in entries:
            if entry.changes_at is not None and datetime.fromisoformat(entry.changes_at) > datetime.now(UTC) - _RECENT:
                self.plan(entry, charge_ref=None)

    def plan(self, entry: OperationEntry, *, charge_ref: str | None) -> None:
        """Send the notice about an operation when its status changes; `charge_ref` is the name of its charge."""
        if entry.changes_at is None or entry.later is None:
            return
        event = {
            "type": f"{entry.kind}.{entry.later}",
            "charge": entry.charge,
            "payment_id": entry.payment_id,
            "operation_id": entry.operation_id,
            "provider_ref": charge_ref,
        }
        wait = datetime.fromisoformat(entry.changes_at) - datetime.now(UTC)
        self.send(f"evt_{entry.provider_ref}", event, wait_s=wait.total_seconds())

    def send(self, event_id: str, event: dict[str, str | None], *, wait_s: float = 0.0) -> None:
        """Send a notice after this time."""
        task = asyncio.create_task(self._send(event_id, event, wait_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Drop what is not sent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def _send(self, event_id: str, event: dict[str, str | None], wait_s: float) -> None:
        await asyncio.sleep(max(wait_s, 0.0))
        body = json.dumps({name: value for name, value in event.items() if value is not None}).encode()
        for pause_s in (*_PAUSES_S, None):
            signed_at_s = int(time.time())
            message = f"{event_id}.{signed_at_s}.".encode() + body
            headers = {
                "Content-Type": "application/json",
                "webhook-id": event_id,
                "webhook-timestamp": str(signed_at_s),
                "webhook-signature": f"v1,{b64encode(hmac.digest(self._secret, message, 'sha256')).decode()}",
            }
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                    if 200 <= answer.status < 300:
                        return
            if pause_s is not None:
                await asyncio.sleep(pause_s)

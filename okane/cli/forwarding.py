"""Forwards the events of an account to one URL, signed as a dispatcher signs them.

Guarantee: every event behind its place is posted until the receiver answers it, versions of one payment in order. The place
moves only after that, so a lost connection, to the API or to the receiver, skips none; it may repeat some.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import aiohttp

from okane import __version__
from okane.client import Client, ClientError, EventPage, NoAnswer, Refused, WebhookEvent
from okane.client.errors import broken
from okane.webhooks.signing import sign

WAIT_S = 25  # of one poll
TIMEOUT_S = 15.0  # of one request, as an endpoint's
IN_FLIGHT = 8  # requests at a time, each of another payment
TRIES = 5  # of an event that the receiver answers with other than 2xx
MAX_PAUSE_S = 5.0
KEEP_ALIVE_S = 300.0  # an endpoint that is not polled for an hour is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """One request to the receiver. `status` is None if no answer came, for the `reason`; `again_s`: until the next try."""

    event: WebhookEvent
    attempt: int
    status: int | None
    ms: int
    reason: str | None = None
    again_s: float | None = None

    @property
    def is_skipped(self) -> bool:
        """True if the receiver has refused the event, and it is not tried again."""
        return self.again_s is None and self.status is not None and self.status // 100 != 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The API does not answer, or answers that it cannot now."""

    reason: str


class Back:
    """The API answers again."""


Report = Callable[[Forwarded | Lost | Back], None]


class Forwarder:
    """Follows the log from a place, or a time on. `client` must not be patient: this repeats requests, and reports that.

    `after` is the place behind the last page that was forwarded; before the first one, `since` is still the beginning.
    """

    def __init__(
        self,
        client: Client,
        http: aiohttp.ClientSession,
        *,
        url: str,
        secret: str,
        endpoint_id: UUID,
        after: str | None,
        since: datetime | None = None,
        types: Sequence[str] | None,
        report: Report,
        max_pause_s: float = MAX_PAUSE_S,
    ) -> None:
        self._client = client
        self._http = http
        self._url = url
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._endpoint_id = endpoint_id
        self._types = types
        self._report = report
        self._max_pause_s = max_pause_s
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.after = after
        self.since = since

    async def run(self) -> None:
        """Forward until cancelled. Raises Refused if the API refuses to go on."""
        while True:
            await self.run_once(wait_s=WAIT_S)

    async def run_once(self, *, wait_s: int) -> int:
        """Read one page, forward it, and move the cursor behind it; return how many events it had."""
        page = await self._poll(wait_s=wait_s)
        events = [*page.redelivered, *page.events]
        alive = asyncio.create_task(self._keep_alive())
        try:
            await self._forward_page(events)
        finally:
            alive.cancel()
        self.after, self.since = page.after, None
        return len(events)

    async def _poll(self, *, wait_s: int, limit: int = 100) -> EventPage:
        """Return the next page, once the API answers."""
        failures = 0
        while True:
            try:
                page = await self._client.webhooks.page(
                    after=self.after,
                    since=self.since,
                    types=self._types,
                    endpoint_id=self._endpoint_id,
                    limit=limit,
                    wait_s=wait_s,
                )
            except ClientError as error:
                if isinstance(error, Refused) and not error.retryable:
                    raise
                failures += 1
                if failures == 1:
                    self._report(Lost(reason=error.reason if isinstance(error, NoAnswer) else str(error)))
                await asyncio.sleep(self._pause_s(failures))
            else:
                if failures:
                    self._report(Back())
                return page

    async def _keep_alive(self) -> None:
        """Poll while a page waits for its receiver, so that the endpoint is not deleted for having no reader."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await self._poll(wait_s=0, limit=1)  # it confirms nothing: what it has comes with the next page, too

    async def _forward_page(self, events: Sequence[WebhookEvent]) -> None:
        """Forward payments side by side, the events of each one after the other."""
        by_payment: dict[UUID | str, list[WebhookEvent]] = defaultdict(list)
        for event in events:
            by_payment[event.id if event.payment is None else event.payment.id].append(event)
        async with asyncio.TaskGroup() as group:
            for each in by_payment.values():
                group.create_task(self._forward_all(each))

    async def _forward_all(self, events: Sequence[WebhookEvent]) -> None:
        for event in events:
            await self._forward(event)

    async def _forward(self, event: WebhookEvent) -> None:
        """Post one event: until an answer comes, and up to `TRIES` times until the answer is a 2xx."""
        attempt = answers = 0
        while True:
            attempt += 1
            async with self._slots:
                began_s = time.perf_counter()
                status, reason = await self._post(event)
                ms = round((time.perf_counter() - began_s) * 1000)
            answers += status is not None
            is_done = status is not None and (status // 100 == 2 or answers >= TRIES)
            again_s = None if is_done else self._pause_s(attempt)
            self._report(Forwarded(event=event, attempt=attempt, status=status, ms=ms, reason=reason, again_s=again_s))
            if again_s is None:
                return
            await asyncio.sleep(again_s)

    async def _post(self, event: WebhookEvent) -> tuple[int | None, str | None]:
        """Send one request; return the status, or why there is none. A status counts, even if its body is cut."""
        body = json.dumps(event.document, ensure_ascii=False, separators=(",", ":")).encode()
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._http.post(
                self._url, data=body, headers=self._headers(event.id, body), timeout=timeout, allow_redirects=False
            ) as answer:
                return answer.status, None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, broken(error)

    def _headers(self, event_id: str, body: bytes) -> Mapping[str, str]:
        timestamp_s = int(time.time())
        return {
            "Content-Type": "application/json",
            "User-Agent": f"okane/{__version__} (listen)",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign([self._key], event_id, timestamp_s, body),
        }

    def _pause_s(self, failures: int) -> float:
        return min(self._max_pause_s, 0.5 * 2.0 ** min(failures - 1, 10))

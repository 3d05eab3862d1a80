"""The owners of webhook endpoints: they create, rotate, pause and delete them through the APIs under faults, and keep a
journal of what was answered.

Each try of a creation has a URL of its own: without a clear answer it may have made an endpoint, which gets requests beside
the one of the next try. Its secret was never seen, and it is deleted; only order and repeats are judged there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import aiohttp

from okane.errors import OkaneError
from okane.store.webhook_endpoints import Endpoint as StoredEndpoint
from okane.store.webhook_endpoints import NewEndpoint, WebhookEndpointStore
from okane.webhooks.keys import Masters, secret
from torture.history.webhooks import Endpoint, Secret, read_late
from torture.system.cluster import Cluster

ACCOUNT, OTHER_ACCOUNT = "default", "another"
DEAD = "dead"  # the endpoint that never answers, while repairs are measured
_ROUTE = "/v1/webhook-endpoints"
_DEFAULT_TYPES = ("payment.succeeded", "payment.failed", "payment.canceled", "payment.review_required")
_ALL_TYPES = ("payment.*", "refund.*", "dispute.*")
_PLAN: Mapping[str, tuple[str, ...]] = {
    "all": _ALL_TYPES,
    "default": _DEFAULT_TYPES,
    "rotated": ("payment.failed", "payment.retry_scheduled"),
    "paused": ("payment.failed", "payment.outcome_unknown"),
    DEAD: ("payment.failed", "payment.retry_scheduled"),
    "churned": ("payment.failed", "payment.retry_scheduled"),
}
_SETTINGS: Mapping[str, object] = {
    "timeout_s": 3,
    "hold_s": 259_200,
}  # whatever fails holds its payment back to the end
_TIMEOUT = aiohttp.ClientTimeout(total=20)  # a deletion waits for the owner's lease
_PAUSE_S = 0.3
_ROUND_S = (1.0, 3.0)
_PAUSED_S = (0.5, 2.5)
_LATER = frozenset({408, 409, 429})


@dataclass(frozen=True, slots=True)
class _Answer:
    """A clear answer, and the times of its request since the epoch: that of the first try, and of the answer."""

    status: int
    body: Mapping[str, Any]
    sent_s: float
    answered_s: float


class Subscribers:
    """All endpoints of a run."""

    def __init__(self, cluster: Cluster, *, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(f"subscribers {seed}")
        self._endpoints: dict[str, Endpoint] = {}  # by path
        self._paused: set[str] = set()  # ids
        self._turns = itertools.count()
        self._numbers = itertools.count(1)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints whose creation was answered, the deleted ones too."""
        return list(self._endpoints.values())

    @property
    def dead_path(self) -> str:
        """The path of the endpoint that is to die."""
        return self._named(DEAD).path

    async def run(self, enough: Callable[[], bool]) -> None:
        """Create the endpoints, then change them until `enough`."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as http:
            await self._create_at_other_account()
            for name in _PLAN:
                await self.create(http, name)
            acts = itertools.cycle((self._rotate, self._pause, self._replace))
            while not enough():
                await asyncio.sleep(self._dice.uniform(*_ROUND_S))
                await next(acts)(http)
                await self._tend(http)

    async def tend(self) -> None:
        """Enable what was disabled, delete what was created without an answer, and have late deliveries made at once.

        After its third failure a delivery waits for minutes, which nothing else at rest takes.
        """
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as http:
            await self._tend(http)
            for event, endpoint in await read_late(self._cluster.database_url):
                # Once: a repeat may meet what was delivered meanwhile, and would have that sent again.
                await self._try(http, "POST", f"/v1/events/{event}/redeliver", {"endpoint": endpoint})

    async def _tend(self, http: aiohttp.ClientSession) -> None:
        known = {one.id for one in self._endpoints.values()}
        listed = (await self._insist(http, "GET", _ROUTE)).body["endpoints"]
        for one in listed:
            if one["id"] not in known:
                await self._insist(http, "DELETE", f"{_ROUTE}/{one['id']}")
            elif one["status"] == "disabled" and one["id"] not in self._paused:
                await self._insist(http, "POST", f"{_ROUTE}/{one['id']}/enable", {})

    async def _create_at_other_account(self) -> None:
        """Create the endpoint of an account that has no payments."""
        store = WebhookEndpointStore(self._cluster.database_url)
        path = "/other/1"
        new = NewEndpoint(
            id=uuid4(),
            account_id=OTHER_ACCOUNT,
            url=f"{self._cluster.factory.receiver_url}{path}",
            types=_ALL_TYPES,
            api_version="2026-12-01",
        )
        try:
            while True:
                with contextlib.suppress(OkaneError):
                    created = await store.create(new)
                    if isinstance(created, StoredEndpoint):
                        break
                await asyncio.sleep(_PAUSE_S)
        finally:
            await store.aclose()
        master = self._cluster.factory.webhook_master.encode()
        text, now_s = secret(Masters((master,)).current, new.id, 1), time.time()
        self._endpoints[path] = Endpoint(
            id=str(new.id),
            path=path,
            account_id=OTHER_ACCOUNT,
            types=_ALL_TYPES,
            created_s=now_s,
            secrets=(Secret(text=text, asked_s=now_s, known_s=now_s),),
        )

    async def create(self, http: aiohttp.ClientSession, name: str) -> None:
        """Create an endpoint of the plan; delete those that tries without an answer have made."""
        types = _PLAN[name]
        while True:
            path = f"/{name}/{next(self._numbers)}"
            body = {"url": f"{self._cluster.factory.receiver_url}{path}", "types": list(types), **_SETTINGS}
            if types == _DEFAULT_TYPES:
                del body["types"]
            answer = await self._try(http, "POST", _ROUTE, body)
            if answer is not None:
                break
            await asyncio.sleep(_PAUSE_S)
            await self._tend(http)
        self._endpoints[path] = Endpoint(
            id=answer.body["endpoint"]["id"],
            path=path,
            account_id=ACCOUNT,
            types=types,
            created_s=answer.answered_s,
            secrets=(_secret(answer),),
        )

    async def _rotate(self, http: aiohttp.ClientSession) -> None:
        one = self._named("rotated")
        answer = await self._insist(http, "POST", f"{_ROUTE}/{one.id}/rotate", {"older_valid_for": "24h"})
        self._endpoints[one.path] = replace(one, secrets=(*one.secrets, _secret(answer)))

    async def _pause(self, http: aiohttp.ClientSession) -> None:
        one = self._named("paused")
        self._paused.add(one.id)
        await self._insist(http, "POST", f"{_ROUTE}/{one.id}/disable", {})
        await asyncio.sleep(self._dice.uniform(*_PAUSED_S))
        self._paused.discard(one.id)
        await self._insist(http, "POST", f"{_ROUTE}/{one.id}/enable", {})

    async def _replace(self, http: aiohttp.ClientSession) -> None:
        """Delete an endpoint, and create another one."""
        one = self._named("churned")
        answer = await self._insist(http, "DELETE", f"{_ROUTE}/{one.id}")
        # A 404 is that of a repeat: an earlier try has deleted it, and its owner has confirmed that.
        self._endpoints[one.path] = replace(one, deleted_s=answer.answered_s)
        await self.create(http, "churned")

    def _named(self, name: str) -> Endpoint:
        """Return the newest endpoint of this name."""
        return next(one for path, one in reversed(self._endpoints.items()) if path.startswith(f"/{name}/"))

    async def _insist(
        self, http: aiohttp.ClientSession, method: str, route: str, body: Mapping[str, object] | None = None
    ) -> _Answer:
        """Send to one API after the other until there is a clear answer."""
        sent_s = time.time()
        while True:
            answer = await self._try(http, method, route, body)
            if answer is not None:
                return replace(answer, sent_s=sent_s)
            await asyncio.sleep(_PAUSE_S)

    async def _try(
        self, http: aiohttp.ClientSession, method: str, route: str, body: Mapping[str, object] | None
    ) -> _Answer | None:
        """Send to the next API; return None if its answer is not clear. Raises AssertionError if it refuses."""
        sent_s = time.time()
        urls = self._cluster.api_urls
        url = f"{urls[next(self._turns) % len(urls)]}{route}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with http.request(method, url, json=body) as answer:
                document = await answer.json(content_type=None) if answer.status != 204 else {}
                if answer.status < 500 and answer.status not in _LATER:
                    if answer.status >= 400 and not (method == "DELETE" and answer.status == 404):
                        raise AssertionError(f"{method} {route} was answered {answer.status}: {document}")
                    return _Answer(answer.status, document or {}, sent_s, time.time())
        return None


def _secret(answer: _Answer) -> Secret:
    return Secret(text=answer.body["secret"], asked_s=answer.sent_s, known_s=answer.answered_s)

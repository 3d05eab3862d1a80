"""The handlers of actions on a webhook endpoint: its secrets, its switch, and the repeat of a range of time."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web

from okane.api import timestamps
from okane.api.access import account_of
from okane.api.problems import Problem
from okane.api.webhook_documents import endpoint_document
from okane.api.webhook_endpoints import check_has_url, log_change, until
from okane.api.webhook_requests import OLDER_VALID, EnableRequest, RecoverRequest, RotateRequest
from okane.api.webhook_services import WebhookServices, body_of, endpoint_id_in, endpoint_not_found, json_answer
from okane.store.webhook_deliveries import MAX_RECOVERIES
from okane.store.webhook_endpoints import Endpoint
from okane.webhooks import keys
from okane.webhooks.endpoint_tests import EndpointTests

BY_REQUEST = "requested"  # the reason of an endpoint that its client has disabled


class EndpointActions:
    """The handlers of actions on an endpoint."""

    def __init__(self, services: WebhookServices, tests: EndpointTests) -> None:
        self._services = services
        self._endpoints = services.endpoints
        self._tests = tests

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST …/{id}/rotate`: change to the next secret, and show it. Without an overlap it waits for the dispatcher."""
        rotation = await body_of(request, RotateRequest, optional=True)
        masters = self._services.needed_masters()
        older_valid_for = OLDER_VALID if rotation.older_valid_for is None else rotation.older_valid_for
        endpoint_id = endpoint_id_in(request)
        rotated = await self._endpoints.rotate(account_of(request), endpoint_id, older_valid_for=older_valid_for)
        if rotated is None:
            raise endpoint_not_found(endpoint_id)
        log_change("webhook_endpoint_rotated", request, rotated, older_valid_s=older_valid_for.total_seconds())
        if not older_valid_for:
            await until(lambda: self._endpoints.is_confirmed(rotated))
        return json_answer(
            {
                "endpoint": endpoint_document(await self._services.state_of(request)),
                "secret": keys.secret(masters.current, rotated.id, rotated.key_generation),
            }
        )

    async def secret(self, request: web.Request) -> web.Response:
        """`GET …/{id}/secret`: the secrets that receivers verify with."""
        masters = self._services.needed_masters()
        endpoint = (await self._services.state_of(request)).endpoint
        generation, older_until = endpoint.key_generation, endpoint.older_key_until
        document = {"secret": keys.secret(masters.current, endpoint.id, generation)}
        if older_until is not None and generation > 1 and older_until > datetime.now(UTC):
            document["older_secret"] = keys.secret(masters.current, endpoint.id, generation - 1)
            document["older_key_until"] = timestamps.to_text(older_until)
        if endpoint.asymmetric:
            document["public_key"] = keys.public_key(masters.current, endpoint.id, generation)
        log_change("webhook_endpoint_secret_shown", request, endpoint)
        return json_answer(document)

    async def test(self, request: web.Request) -> web.Response:
        """`POST …/{id}/test`: send `webhook_endpoint.test` now, on a connection of its own, and show the answer."""
        masters = self._services.needed_masters()
        async with self._tests.slot(account_of(request), endpoint_id_in(request), masters) as test:
            endpoint = (await self._services.state_of(request)).endpoint
            check_has_url(endpoint)
            answer = await self._tests.send(test, endpoint)
        log_change("webhook_endpoint_tested", request, endpoint, outcome=answer.outcome)
        document: dict[str, object] = {"outcome": answer.outcome, "ms": answer.ms, "reason": answer.reason}
        document |= {} if answer.status is None else {"status": answer.status}
        return json_answer({**document, "text": answer.text})

    async def enable(self, request: web.Request) -> web.Response:
        """`POST …/{id}/enable`: resume an endpoint, where it stopped or at the end of the log."""
        from_now = (await body_of(request, EnableRequest, optional=True)).from_ == "now"
        endpoint_id = endpoint_id_in(request)
        enabled = await self._endpoints.enable(account_of(request), endpoint_id, from_now=from_now)
        if enabled is None:
            raise endpoint_not_found(endpoint_id)
        log_change("webhook_endpoint_enabled", request, enabled, from_now=from_now)
        return json_answer({"endpoint": endpoint_document(await self._services.state_of(request))})

    async def disable(self, request: web.Request) -> web.Response:
        """`POST …/{id}/disable`: pause an endpoint; answered when its dispatcher has stopped, or its lease has expired."""
        endpoint_id = endpoint_id_in(request)
        disabled = await self._endpoints.disable(account_of(request), endpoint_id, reason=BY_REQUEST)
        if disabled is None:
            raise endpoint_not_found(endpoint_id)
        log_change("webhook_endpoint_disabled_by_request", request, disabled)
        await self._tests.end(endpoint_id)
        await until(lambda: self._endpoints.is_confirmed(disabled))
        return json_answer({"endpoint": endpoint_document(await self._services.state_of(request))})

    async def recover(self, request: web.Request) -> web.Response:
        """`POST …/{id}/recover`: deliver the events of a time again."""
        endpoint = (await self._services.state_of(request)).endpoint
        wanted = await body_of(request, RecoverRequest)
        check_has_url(endpoint)
        deliveries, account_id = self._services.deliveries, endpoint.account_id
        found = await deliveries.range_between(account_id, wanted.since, wanted.until)
        if found is None:
            return json_answer({"events": 0}, status=HTTPStatus.ACCEPTED)
        first, last = found
        is_begun = await deliveries.recover(
            account_id, endpoint.id, first=first, last=last, only_failed=wanted.only_failed is not False
        )
        if not is_begun:
            raise _too_many_recoveries(endpoint)
        log_change("webhook_endpoint_recovering", request, endpoint, first=first, last=last)
        events = await deliveries.count_between(account_id, endpoint.id, first=first, last=last)
        return json_answer({"events": events}, status=HTTPStatus.ACCEPTED)


def _too_many_recoveries(endpoint: Endpoint) -> Problem:
    detail = f"{MAX_RECOVERIES} recoveries of endpoint {endpoint.id} are not done yet"
    return Problem(HTTPStatus.CONFLICT, "too_many_recoveries", detail)

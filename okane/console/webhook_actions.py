"""The actions on a webhook endpoint: enable, disable, test, redeliver and recover."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from okane.console.actions import Done, Form, Run, perform
from okane.console.page_errors import PageError
from okane.console.query_fields import moment_of, number_of, refused
from okane.console.rendering import PAGES
from okane.console.session import session_of
from okane.console.webhooks import endpoint_id_in, not_found
from okane.errors import TooManyTests
from okane.store.webhook_deliveries import MAX_COUNTED, MAX_RECOVERIES, WebhookDeliveryStore
from okane.store.webhook_endpoints import Endpoint, WebhookEndpointStore
from okane.store.webhook_events import FARTHEST
from okane.webhooks.confirmation import is_confirmed_in_time
from okane.webhooks.endpoint_tests import EndpointTests
from okane.webhooks.keys import Masters

BY_REQUEST = "requested"  # the reason of an endpoint that its client has disabled
MAX_ANSWER = 200  # characters of an endpoint's answer in a message


class WebhookActions:
    """The actions. `masters` is None where no request can be signed."""

    def __init__(
        self,
        endpoints: WebhookEndpointStore,
        deliveries: WebhookDeliveryStore,
        tests: EndpointTests,
        masters: Masters | None,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._tests = tests
        self._masters = masters

    async def enable(self, request: web.Request) -> web.StreamResponse:
        """`POST /webhooks/{endpoint_id}/enable`: resume where it stopped, or at the end of the log."""

        async def run(form: Form) -> Done:
            from_now, version = form.get("from") == "now", _version(form)
            enabled = await self._endpoints.enable(
                _account(request), endpoint_id_in(request), from_now=from_now, version=version
            )
            if enabled is None:
                raise await self._changed(request)
            return _done(request, enabled.id, "The endpoint is enabled.", "enabled from now" if from_now else "enabled")

        return await self._perform(request, run)

    async def disable(self, request: web.Request) -> web.StreamResponse:
        """`POST /webhooks/{endpoint_id}/disable`: pause it; its place in the log is kept."""

        async def run(form: Form) -> Done:
            disabled = await self._endpoints.disable(
                _account(request), endpoint_id_in(request), reason=BY_REQUEST, version=_version(form)
            )
            if disabled is None:
                raise await self._changed(request)
            await self._tests.end(disabled.id)
            confirmed = await is_confirmed_in_time(lambda: self._endpoints.is_confirmed(disabled))
            message = "The endpoint is disabled: no request to it begins."
            if not confirmed:
                message = "The endpoint is disabled. Its dispatcher has not confirmed that yet."
            return _done(request, disabled.id, message, "disabled" if confirmed else "disabled, not confirmed")

        return await self._perform(request, run)

    async def test(self, request: web.Request) -> web.StreamResponse:
        """`POST /webhooks/{endpoint_id}/test`: send a test event now, and show the answer."""

        async def run(_form: Form) -> Done:
            if self._masters is None:
                raise PageError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "This console has no OKANE_WEBHOOK_MASTER, from which the secrets of endpoints derive.",
                )
            endpoint_id = endpoint_id_in(request)
            try:
                async with self._tests.slot(_account(request), endpoint_id, self._masters) as test:
                    answer = await self._tests.send(test, await self._with_url(request))
            except TooManyTests as error:
                raise PageError(HTTPStatus.TOO_MANY_REQUESTS, f"Not tested: {error}.") from error
            text = "".join(letter if letter.isprintable() else " " for letter in answer.text[:MAX_ANSWER]).strip()
            result = f"{answer.outcome} after {answer.ms:,} ms: {answer.reason}"
            return _done(request, endpoint_id, f"Test {result}" + (f" ({text})" if text else ""), result)

        return await self._perform(request, run)

    async def redeliver(self, request: web.Request) -> web.StreamResponse:
        """`POST /webhooks/{endpoint_id}/redeliver`: deliver one event again, delivered or not."""

        async def run(form: Form) -> Done:
            position = number_of(form, "position", least=1, most=FARTHEST, default=0)
            if not position:
                raise refused("position", "is missing")
            endpoint = await self._with_url(request)
            if await self._deliveries.redeliver(_account(request), endpoint.id, position) is None:
                raise not_found()
            return _done(request, endpoint.id, "The event is delivered again.", f"redelivered {position}", 1)

        return await self._perform(request, run)

    async def recover(self, request: web.Request) -> web.StreamResponse:
        """`POST /webhooks/{endpoint_id}/recover`: deliver the events of a time again."""

        async def run(form: Form) -> Done:
            since, until = moment_of(form, "since"), moment_of(form, "until")
            if since is None:
                raise refused("since", "is missing")
            endpoint = await self._with_url(request)
            found = await self._deliveries.range_between(endpoint.account_id, since, until)
            if found is None:
                return _done(request, endpoint.id, "There are no events of that time.", "no events", 0)
            first, last = found
            is_begun = await self._deliveries.recover(
                endpoint.account_id, endpoint.id, first=first, last=last, only_failed=form.get("all") != "1"
            )
            if not is_begun:
                raise PageError(HTTPStatus.CONFLICT, f"{MAX_RECOVERIES} recoveries of this endpoint are not done yet.")
            count = await self._deliveries.count_between(endpoint.account_id, endpoint.id, first=first, last=last)
            many = f"{count:,}{' or more' if count >= MAX_COUNTED else ''} event{'' if count == 1 else 's'}"
            message = f"Recovering {many} of that time: what is to be sent is delivered again."
            return _done(request, endpoint.id, message, f"recovering {first} to {last}", count)

        return await self._perform(request, run)

    async def _perform(self, request: web.Request, run: Run) -> web.StreamResponse:
        return await perform(request, run, target=str(endpoint_id_in(request)))

    async def _changed(self, request: web.Request) -> PageError:
        """Return the page for an endpoint that has changed after its page was shown, or is not there."""
        state = await self._endpoints.get(_account(request), endpoint_id_in(request))
        if state is None:
            return not_found()
        return PageError(
            HTTPStatus.CONFLICT,
            f"The endpoint has changed meanwhile: it is {state.endpoint.status} now. Nothing was changed.",
        )

    async def _with_url(self, request: web.Request) -> Endpoint:
        state = await self._endpoints.get(_account(request), endpoint_id_in(request))
        if state is None:
            raise not_found()
        if state.endpoint.url is None:
            raise PageError(HTTPStatus.CONFLICT, "Nothing is sent to this endpoint: its events are only read.")
        return state.endpoint


def _version(form: Form) -> int:
    """Return the version of the endpoint that the form was made for; none has the version 0."""
    return number_of(form, "version", least=1, most=FARTHEST, default=0)


def _account(request: web.Request) -> str:
    return session_of(request).account_id


def _done(request: web.Request, endpoint_id: UUID, message: str, answer: str, count: int | None = None) -> Done:
    return Done(message, request.app[PAGES].links.endpoint(endpoint_id), answer=answer, count=count)

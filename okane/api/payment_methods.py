"""The handlers of saved payment methods: save, list, show and delete them.

Guarantee: no answer and no line of the log has a token, or the number of a card.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from okane.api import card_guard, idempotency_key, query_parameters, timestamps
from okane.api.access import CALLER, account_of, actor_of
from okane.api.payment_method_requests import MethodQuery, SavePaymentMethod, month_text, to_new_method
from okane.api.payment_queries import documents, page_of
from okane.api.problems import FieldError, Problem, shortened
from okane.api.webhook_services import body_of, json_answer
from okane.errors import PaymentMethodKeyReused
from okane.logs import REQUEST_ID
from okane.payment_method import NewSavedMethod, SavedMethod, saved_method_id
from okane.store.payment_methods import PaymentMethodStore

log = structlog.get_logger("okane.api")


class PaymentMethodHandlers:
    """The handlers of saved methods. `providers`: the names that a token may be for."""

    def __init__(self, *, methods: PaymentMethodStore, providers: Collection[str]) -> None:
        self._methods = methods
        self._providers = frozenset(providers)

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/payment-methods`: save a method; 201 for a new one, 200 for the repeat of a request."""
        body = await body_of(request, SavePaymentMethod)
        new = to_new_method(
            body,
            account_id=account_of(request),
            key=idempotency_key.choose_key(request.headers.getall("Idempotency-Key", ()), body.idempotency_key),
            request_id=REQUEST_ID.get(None),
            api_key=request[CALLER].key,
        )
        card_guard.check_payment_method(new)
        try:
            method, created = await self._save(new)
        except PaymentMethodKeyReused as error:
            raise idempotency_key.key_reused_for_method(str(error.method_id)) from None
        if created:
            _log_change("payment_method_saved", request, method)
        return _saved(method, created=created)

    async def _save(self, new: NewSavedMethod) -> tuple[SavedMethod, bool]:
        """Save a method, unless it has a token for an unknown provider. The repeat of an accepted request is exempt: a
        provider may have been removed since."""
        unknown = [name for name in new.tokens if name not in self._providers]
        if not unknown:
            return await self._methods.create(new)
        earlier = await self._methods.find(new.account_id, new.idempotency_key, new.fingerprint)
        if earlier is None:
            raise _provider_unknown(unknown[0], self._providers)
        return earlier, False

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/payment-methods`: a page of the account's methods, newest first, without deleted ones."""
        query = query_parameters.parse_query(MethodQuery, request.query)
        page = await self._methods.list(
            account_of(request), customer=query.customer, limit=query.limit, after=query.after
        )
        listed = await documents(page.methods, method_text)
        after = None if page.after is None else query_parameters.cursor(page.after)
        return page_of(request, "payment_methods", f"[{','.join(listed)}]", after)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/payment-methods/{id}`: a method, also one that is deleted."""
        method_id = _id_in(request)
        return json_answer(
            {
                "payment_method": method_document(
                    _found(await self._methods.get(account_of(request), method_id), request)
                )
            }
        )

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/payment-methods/{id}`: let a method take no new payments; those that were accepted go on."""
        method_id = _id_in(request)
        _log_change(
            "payment_method_deleted",
            request,
            _found(await self._methods.delete(account_of(request), method_id), request),
        )
        return web.Response(status=HTTPStatus.NO_CONTENT)


def method_document(method: SavedMethod) -> Mapping[str, Any]:
    """Return the document of a method. Members without a value are left out."""
    known = {
        "customer": method.customer,
        "brand": method.brand,
        "last4": method.last4,
        "expires": None if method.expires_on is None else month_text(method.expires_on),
        "deleted_at": None if method.deleted_at is None else timestamps.to_text(method.deleted_at),
    }
    return {
        "id": str(method.id),
        "kind": method.kind,
        "providers": list(method.providers),
        "created_at": timestamps.to_text(method.created_at),
        **{name: value for name, value in known.items() if value is not None},
    }


def method_text(method: SavedMethod) -> str:
    """Return the document of a method as JSON."""
    return json.dumps(method_document(method))


def _saved(method: SavedMethod, *, created: bool) -> web.Response:
    headers = {"Location": f"/v1/payment-methods/{method.id}"}
    if not created:
        headers["Idempotent-Replayed"] = "true"
    document = {"payment_method": method_document(method), "created": created}
    return json_answer(document, status=HTTPStatus.CREATED if created else HTTPStatus.OK, headers=headers)


def _id_in(request: web.Request) -> UUID:
    method_id = saved_method_id(request.match_info["payment_method_id"])
    if method_id is None:
        raise _not_found(request)
    return method_id


def _found(method: SavedMethod | None, request: web.Request) -> SavedMethod:
    if method is None:
        raise _not_found(request)
    return method


def _not_found(request: web.Request) -> Problem:
    text = shortened(request.match_info["payment_method_id"]).encode("utf-8", "replace").decode()
    return Problem(HTTPStatus.NOT_FOUND, "payment_method_not_found", f"there is no payment method {text!r}")


def _provider_unknown(name: str, providers: Collection[str]) -> Problem:
    detail = f"the providers here are {', '.join(sorted(providers))}"
    errors = [FieldError(f"/tokens/{shortened(name)}", "provider_unknown", detail)]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "provider_unknown", f"{errors[0].pointer}: {detail}", errors=errors)


def _log_change(event: str, request: web.Request, method: SavedMethod) -> None:
    log.info(
        event,
        payment_method=str(method.id),
        account=method.account_id,
        providers=list(method.providers),
        actor=actor_of(request),
    )

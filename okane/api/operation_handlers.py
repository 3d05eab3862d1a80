"""The handlers of captures and refunds, and of the cancel of a payment, which is a void if its money is held."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from okane.api import card_guard, idempotency_key, payment_ids, query_parameters
from okane.api.access import CALLER, account_of, actor_of
from okane.api.answer import JSON, is_known
from okane.api.operation_requests import (
    CaptureRequest,
    OperationQuery,
    RefundQuery,
    RefundRequest,
    refund_id_in_path,
    refund_not_found,
    to_operation,
)
from okane.api.payment_queries import documents, page_of
from okane.api.resolve_request import ResolveRequest
from okane.api.webhook_services import body_of
from okane.errors import OperationNotFound
from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake, OperationReceipt
from okane.logs import REQUEST_ID
from okane.operation import NewOperation, Operation, OperationKind, OperationStatus
from okane.operation_json import operation_document
from okane.payment import Payment
from okane.payment_json import payment_document
from okane.providers.capabilities import Capabilities
from okane.store import PaymentStore
from okane.store.operation_records import OperationFilter
from okane.store.operations import OperationLists, OperationStore
from streams import Publisher


@dataclass(frozen=True, slots=True)
class OperationServices:
    """The stores of operations, and the producer of their stream. `capabilities`: of the providers of this process."""

    store: OperationStore
    lists: OperationLists
    producer: Publisher
    capabilities: Capabilities


class OperationHandlers:
    """The handlers of operations."""

    def __init__(self, services: OperationServices, *, payments: PaymentStore, intake: PaymentIntake) -> None:
        self._payments = payments
        self._operations = services.store
        self._lists = services.lists
        self._intake = OperationIntake(
            store=services.store,
            lists=services.lists,
            payments=intake,
            producer=services.producer,
            capabilities=lambda: services.capabilities,
        )

    async def capture(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/capture`: take all of the money that is held, or a part, and let the rest go."""
        payment = await self._payments.get(payment_ids.id_in_path(request), account_id=account_of(request))
        body = await body_of(request, CaptureRequest, optional=True)
        receipt = await self._requested(request, payment, body)
        return _answer(receipt, f'{{"operation":{operation_document(receipt.operation)}', f"/v1/payments/{payment.id}")

    async def refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds`: give money of a payment back."""
        body = await body_of(request, RefundRequest)
        payment = await self._payments.get(body.payment, account_id=account_of(request))
        return _refund_answer(await self._requested(request, payment, body))

    async def cancel_payment(self, request: web.Request) -> web.Response:
        """`POST /v1/payments/{id}/cancel`: withdraw a payment, or request the void of one whose money is held."""
        payment_id, account_id = payment_ids.id_in_path(request), account_of(request)
        done = await self._intake.cancel_payment(payment_id, account_id=account_id, actor=actor_of(request))
        if isinstance(done, Payment):
            return web.Response(body=f'{{"payment":{payment_document(done)}}}'.encode(), content_type=JSON)
        payment = await self._payments.get(payment_id, account_id=account_id)
        document = f'{{"payment":{payment_document(payment)},"operation":{operation_document(done.operation)}'
        return _answer(done, document, f"/v1/payments/{payment_id}", repeated=HTTPStatus.ACCEPTED)

    async def of_payment(self, request: web.Request) -> web.Response:
        """`GET /v1/payments/{id}/operations`: the captures, voids and refunds of a payment, oldest first."""
        query = query_parameters.parse_query(OperationQuery, request.query)
        payment = await self._payments.get(payment_ids.id_in_path(request), account_id=account_of(request))
        wanted = OperationFilter(ascending=True, payment_id=payment.id)
        return await self._page(request, "operations", wanted, limit=query.limit, after=query.after)

    async def refunds(self, request: web.Request) -> web.Response:
        """`GET /v1/refunds`: a page of the account's refunds, newest first unless `order` is `ascending`."""
        query = query_parameters.parse_query(RefundQuery, request.query)
        return await self._page(request, "refunds", query.filter, limit=query.limit, after=query.after)

    async def show_refund(self, request: web.Request) -> web.Response:
        """`GET /v1/refunds/{id}`: the refund as it is now."""
        refund = await self._refund(request)
        headers = {"ETag": f'"{refund.version}"'}
        if is_known(request, headers["ETag"]):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = f'{{"refund":{operation_document(refund)}}}'.encode()
        return web.Response(body=body, content_type=JSON, headers=headers)

    async def cancel_refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds/{id}/cancel`: withdraw a refund before it is executed; 409 if it is too late."""
        found = await self._refund(request)
        refund = await self._intake.cancel(found.id, account_id=found.account_id, actor=actor_of(request))
        return web.Response(body=f'{{"refund":{operation_document(refund)}}}'.encode(), content_type=JSON)

    async def retry_refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds/{id}/retry`: make a failed refund pending again; 409 from any other status."""
        found = await self._refund(request)
        receipt = await self._intake.retry(found.id, account_id=found.account_id, actor=actor_of(request))
        return _refund_answer(receipt, repeated=HTTPStatus.ACCEPTED)

    async def resolve_refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds/{id}/resolve`: decide a refund that needs a review; 409 from any other status."""
        found = await self._refund(request)
        resolution = await body_of(request, ResolveRequest)
        card_guard.check_resolution(resolution.reason, resolution.provider_ref)
        refund = await self._intake.resolve(
            found.id,
            account_id=found.account_id,
            decision=OperationStatus.SUCCESS if resolution.decision == "success" else OperationStatus.FAILED_FINAL,
            reason=resolution.reason,
            provider_ref=resolution.provider_ref,
            actor=actor_of(request),
            version=resolution.version,
        )
        return web.Response(body=f'{{"refund":{operation_document(refund)}}}'.encode(), content_type=JSON)

    async def _requested(
        self, request: web.Request, payment: Payment, body: CaptureRequest | RefundRequest
    ) -> OperationReceipt:
        new = to_operation(
            body,
            payment_id=payment.id,
            account_id=payment.account_id,
            key=idempotency_key.choose_key(request.headers.getall("Idempotency-Key", ()), body.idempotency_key),
            request_id=REQUEST_ID.get(None),
            api_key=request[CALLER].key,
        )
        await card_guard.check_operation(new)
        await self._check_provider(new, payment)
        return await self._intake.request(new, actor=actor_of(request))

    async def _check_provider(self, new: NewOperation, payment: Payment) -> None:
        """Raise OperationRefused if the payment's provider cannot execute a new operation. A repeat of an earlier request is
        exempt: it is answered, whatever the providers can do now."""
        refusal = self._intake.unsupported(new, payment)
        if refusal is None:
            return
        earlier = OperationFilter(idempotency_key=new.idempotency_key)
        if not (await self._lists.page(earlier, account_id=payment.account_id, limit=1)).operations:
            raise refusal

    async def _page(
        self, request: web.Request, name: str, wanted: OperationFilter, *, limit: int, after: UUID | None
    ) -> web.Response:
        page = await self._lists.page(wanted, account_id=account_of(request), limit=limit, after=after)
        listed = await documents(page.operations, operation_document)
        place = page.after if len(listed) == len(page.operations) else page.operations[len(listed) - 1].id
        cursor = None if place is None else query_parameters.cursor(place)
        return page_of(request, name, f"[{','.join(listed)}]", cursor)

    async def _refund(self, request: web.Request) -> Operation:
        """Return the refund in the path. Raises a 404 Problem, also for another kind of operation, or another account's."""
        refund_id = refund_id_in_path(request)
        try:
            found = await self._operations.get(refund_id, account_id=account_of(request))
        except OperationNotFound:
            raise refund_not_found(refund_id) from None
        if found.kind is not OperationKind.REFUND:
            raise refund_not_found(refund_id)
        return found


def _refund_answer(receipt: OperationReceipt, *, repeated: HTTPStatus = HTTPStatus.OK) -> web.Response:
    document = f'{{"refund":{operation_document(receipt.operation)}'
    return _answer(receipt, document, f"/v1/refunds/{receipt.operation.id}", repeated=repeated)


def _answer(
    receipt: OperationReceipt, document: str, location: str, *, repeated: HTTPStatus = HTTPStatus.OK
) -> web.Response:
    """Return the answer with a document that lacks its last members: 202 for a new operation, `repeated` for another."""
    created, enqueued = (str(one).lower() for one in (receipt.created, receipt.enqueued))
    headers = {"Location": location}
    if not receipt.created and repeated is HTTPStatus.OK:
        headers["Idempotent-Replayed"] = "true"
    body = f'{document},"created":{created},"enqueued":{enqueued}}}'
    status = HTTPStatus.ACCEPTED if receipt.created else repeated
    return web.Response(status=status, body=body.encode(), content_type=JSON, headers=headers)

"""Captures and refunds that are requested on the page of a payment, and the decisions about those that exist.

Guarantee: the forms of one version of a payment make one operation. Its idempotency key has that version: a double click, a
reload, or a second person finds the operation that is there already. No two requests move more than there is: the statement
that writes one reserves what it moves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from okane.console.actions import Done, Form, Shown, perform
from okane.console.amounts import example_of, parse_amount
from okane.console.formats import money
from okane.console.page_errors import PageError
from okane.console.payment import PaymentScreen, payment_id_in, version_in
from okane.console.rendering import PAGES
from okane.console.session import Session, session_of
from okane.currencies import MAX_AMOUNT_MINOR
from okane.errors import (
    IdempotencyKeyReused,
    OperationNotFound,
    OperationRefused,
    StatusConflict,
    VersionConflict,
)
from okane.intake.decision_texts import find_fault, find_reason_fault
from okane.intake.operations import OperationIntake
from okane.operation import NewOperation, Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status
from okane.payment_id import parse_id
from okane.store.operations import OperationDecision
from okane.store.payment_details import PaymentDetails, PaymentDetailsStore

_DECISIONS: Mapping[str, OperationDecision] = {
    "success": OperationStatus.SUCCESS,
    "failed_final": OperationStatus.FAILED_FINAL,
}
_DONE = {OperationKind.CAPTURE: "captured", OperationKind.REFUND: "refunded"}


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of an action: the text for the page, and the one for the audit table."""

    message: str
    answer: str


class OperationActions:
    """The actions."""

    def __init__(
        self,
        screen: PaymentScreen,
        *,
        details: PaymentDetailsStore,
        intake: OperationIntake,
    ) -> None:
        self._screen = screen
        self._details = details
        self._intake = intake

    async def capture(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/capture`: take all of the money that is held, or a part, and let the rest go."""
        return await self._request(request, OperationKind.CAPTURE)

    async def refund(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/refund`: give all that is left of the captured amount back, or a part."""
        return await self._request(request, OperationKind.REFUND)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/operations/{operation_id}/cancel`: withdraw a refund before it is executed."""
        session = session_of(request)

        async def run(form: Form) -> _Result:
            found, seen = await self._find(request), version_in(form)
            operation = await self._intake.cancel(
                found.id, account_id=session.account_id, actor=session.actor, version=seen
            )
            await self._check_is_own(request, operation, seen, "canceled")
            return _result(operation, "The refund is canceled. No money is given back.", "canceled")

        return await self._perform(request, run)

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/operations/{operation_id}/retry`."""
        session = session_of(request)

        async def run(form: Form) -> _Result:
            found = await self._find(request)
            receipt = await self._intake.retry(
                found.id, account_id=session.account_id, actor=session.actor, version=version_in(form)
            )
            text = f"The {found.kind} is pending again{_woken(enqueued=receipt.enqueued)}"
            return _result(receipt.operation, text, "retried")

        return await self._perform(request, run)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/operations/{operation_id}/resolve`: the decision about one that needs a review."""
        session = session_of(request)

        async def run(form: Form) -> _Result:
            found, seen = await self._find(request), version_in(form)
            decision = _DECISIONS.get(form.get("as", ""))
            if decision is None:
                raise PageError(HTTPStatus.BAD_REQUEST, "A decision is success or failed_final.")
            reason, provider_ref = form.get("reason", ""), form.get("provider_ref", "").strip() or None
            if fault := find_fault(reason, provider_ref, Status(decision.value)):
                label = "The reason" if fault[0] == "reason" else "The provider's reference"
                raise _unprocessable(f"{label} {fault[1]}")
            operation = await self._intake.resolve(
                found.id,
                account_id=session.account_id,
                decision=decision,
                reason=reason,
                provider_ref=provider_ref,
                actor=session.actor,
                version=seen,
            )
            await self._check_is_own(request, operation, seen, "resolved", reason=reason)
            return _result(operation, f"The decision is recorded: {operation.status}.", f"resolved {decision}")

        return await self._perform(request, run)

    async def _request(self, request: web.Request, kind: OperationKind) -> web.StreamResponse:
        """Request a capture or refund by the version of the payment that the form was made for."""
        session = session_of(request)

        async def run(form: Form) -> _Result:
            seen = version_in(form)
            payment = (await self._read(request)).payment
            new = _new_operation(kind, payment, session, form, seen=seen)
            refusal = self._intake.unsupported(new, payment) if payment.version == seen else None
            if refusal is not None:
                raise _unprocessable(refusal.message[:1].upper() + refusal.message[1:])
            try:
                receipt = await self._intake.request(new, actor=session.actor)
            except IdempotencyKeyReused:  # by another form of this version
                after = (await self._read(request)).payment
                raise VersionConflict(after.status, _DONE[kind], seen=seen, version=after.version) from None
            operation = receipt.operation
            amount = money(operation.amount_minor, operation.currency)
            if not receipt.created:
                return _result(operation, f"The {kind} of {amount} was requested already, and once.", "known already")
            text = f"The {kind} of {amount} is requested{_woken(enqueued=receipt.enqueued)}"
            return _result(operation, text, f"requested {amount}")

        return await self._perform(request, run)

    async def _read(self, request: web.Request) -> PaymentDetails:
        payment_id = payment_id_in(request)
        details = await self._details.read(payment_id, account_id=session_of(request).account_id)
        if details is None:
            raise await self._details.missing(payment_id, account_id=session_of(request).account_id)
        return details

    async def _find(self, request: web.Request) -> Operation:
        """Return the operation in the path. Raises PageError if the page of the payment does not have it."""
        operation_id = parse_id(request.match_info["operation_id"])
        for one in (await self._read(request)).operations:
            if one.id == operation_id:
                return one
        raise _not_found()

    async def _check_is_own(
        self, request: web.Request, operation: Operation, seen: int, action: str, *, reason: str | None = None
    ) -> None:
        """Raise VersionConflict if another person has done the same before, as for payments."""
        actor = session_of(request).actor
        steps = [one for one in (await self._read(request)).steps if one.operation_id == operation.id]
        own = [one for one in steps if one.version == seen + 1 and one.actor == actor]
        if not any(reason is None or one.reason == reason for one in own):
            what = operation.kind.value
            raise VersionConflict(operation.status, action, seen=seen, version=operation.version, what=what)

    async def _perform(self, request: web.Request, run: Callable[[Form], Awaitable[_Result]]) -> web.StreamResponse:
        """Run an action. One that is refused shows the payment as it is now."""
        payment_id = payment_id_in(request)

        async def attempt(form: Form) -> Done | Shown:
            try:
                done = await run(form)
            except OperationNotFound:
                raise _not_found() from None
            except OperationRefused as error:
                refusal = await self._explain(request, error)
            except StatusConflict as error:
                refusal = str(error)
            else:
                return Done(done.message, request.app[PAGES].links.payment(payment_id), answer=done.answer)
            return Shown(await self._screen.page(request, conflict=refusal), answer=f"refused: {refusal}")

        operation_id = request.match_info.get("operation_id")
        return await perform(request, attempt, target=str(payment_id) + (f" {operation_id}" if operation_id else ""))

    async def _explain(self, request: web.Request, error: OperationRefused) -> str:
        """Return the refusal with its limit in the currency's units."""
        if error.limit is None:
            return str(error)
        limit = money(error.limit, (await self._read(request)).payment.currency)
        if error.code == "capture_exceeds_authorized":
            return f"no more than {limit} is held, and can be captured"
        return f"no more than {limit} of the captured amount is left to refund"


def _new_operation(kind: OperationKind, payment: Payment, session: Session, form: Form, *, seen: int) -> NewOperation:
    """Return the operation that a form requests. Raises PageError."""
    text, reason = form.get("amount", "").strip(), form.get("reason", "").strip() or None
    amount_minor = parse_amount(text, payment.currency)
    if not amount_minor or amount_minor > MAX_AMOUNT_MINOR:
        example = example_of(payment.currency)
        raise _unprocessable(f"The amount must be above zero, in the units of {payment.currency}, like {example}")
    if reason is not None and (fault := find_reason_fault(reason)):
        raise _unprocessable(f"The reason {fault}")
    meaning = [kind.value, str(payment.id), amount_minor, reason, session.actor]
    return NewOperation(
        payment_id=payment.id,
        account_id=payment.account_id,
        kind=kind,
        idempotency_key=f"console-{kind}-{payment.id}-{seen}",
        fingerprint=hashlib.sha256(json.dumps(meaning).encode()).digest(),
        amount_minor=amount_minor,
        currency=payment.currency,
        reason=reason,
        api_key=session.key or None,
        version=seen,
    )


def _result(operation: Operation, message: str, answer: str) -> _Result:
    return _Result(message, f"{answer}: {operation.kind} {operation.id}")


def _woken(*, enqueued: bool) -> str:
    if enqueued:
        return ", and its wake-up is sent."
    return ". Redis did not take its wake-up: the sweep will send it."


def _unprocessable(text: str) -> PageError:
    return PageError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{text}. Nothing has changed.")


def _not_found() -> PageError:
    return PageError(HTTPStatus.NOT_FOUND, "This payment has no such capture, void or refund among its newest.")

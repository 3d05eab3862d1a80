"""One payment: its timeline, its facts, and what can be done about it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from aiohttp import web

from okane.console.actions import Done, Form, Shown, perform
from okane.console.operation_choices import actions_for, is_capturable, is_refundable
from okane.console.outages import Outage
from okane.console.page_errors import PageError
from okane.console.place import BEFORE, BEHIND, Place, find_place, may_have_entry, woken_at
from okane.console.rendering import PAGES, find_known_part, is_part, render, render_part
from okane.console.session import Session, session_of
from okane.console.timeline import build_timeline
from okane.errors import OperationRefused, PaymentNotFound, StatusConflict, VersionConflict
from okane.intake.accept import PaymentIntake
from okane.intake.decision_texts import find_fault
from okane.intake.operations import OperationIntake
from okane.payment import CANCELABLE, RETRYABLE, Payment, Status
from okane.payment_id import parse_id
from okane.payment_json import payment_document
from okane.store import Decision
from okane.store.payment_details import PaymentDetails, PaymentDetailsStore
from streams import EntrySearch, Inspector, StreamError

_VERSION = re.compile(r"[0-9]{1,9}", re.ASCII)
_DECISIONS: Mapping[str, Decision] = {"success": Status.SUCCESS, "failed_final": Status.FAILED_FINAL}


class PaymentScreen:
    """One payment of the account."""

    def __init__(
        self, details: PaymentDetailsStore, intake: PaymentIntake, operations: OperationIntake, inspector: Inspector
    ) -> None:
        self._details = details
        self._intake = intake
        self._operations = operations
        self._inspector = inspector

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /payments/{id}`: the payment, or its live region."""
        return await self.page(request)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/cancel`."""
        payment_id = payment_id_in(request)
        session = session_of(request)

        async def run(form: Form) -> str:
            done = await self._operations.cancel_payment(
                payment_id, account_id=session.account_id, actor=session.actor, version=version_in(form)
            )
            await self._check_is_own(payment_id, session, form, "canceled")
            if isinstance(done, Payment):
                return "The payment is canceled. It will not be charged."
            return "The money is being let go. Then the payment is canceled."

        return await self._perform(request, run)

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/retry`."""
        payment_id = payment_id_in(request)
        session = session_of(request)

        async def run(form: Form) -> str:
            receipt = await self._intake.retry(
                payment_id, account_id=session.account_id, actor=session.actor, version=version_in(form)
            )
            if receipt.enqueued:
                return "The payment is pending again, and its wake-up is sent."
            return "The payment is pending again. Redis did not take its wake-up: the sweep will send it."

        return await self._perform(request, run)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """`POST /payments/{id}/resolve`: the decision about a payment that needs a review."""
        payment_id = payment_id_in(request)
        session = session_of(request)

        async def run(form: Form) -> str:
            decision = _DECISIONS.get(form.get("as", ""))
            if decision is None:
                raise PageError(HTTPStatus.BAD_REQUEST, "A decision is success or failed_final.")
            reason, provider_ref = form.get("reason", ""), form.get("provider_ref", "").strip() or None
            if fault := find_fault(reason, provider_ref, decision):
                label = "The reason" if fault[0] == "reason" else "The provider's reference"
                raise PageError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{label} {fault[1]}. Nothing has changed.")
            payment = await self._intake.resolve(
                payment_id,
                account_id=session.account_id,
                decision=decision,
                reason=reason,
                provider_ref=provider_ref,
                actor=session.actor,
                version=version_in(form),
            )
            await self._check_is_own(payment_id, session, form, "resolved", reason=reason)
            return f"The decision is recorded: {payment.status}."

        return await self._perform(request, run)

    async def _check_is_own(
        self, payment_id: UUID, session: Session, form: Form, action: str, *, reason: str | None = None
    ) -> None:
        """Raise VersionConflict if another person has done the same before: then that one's reason is in the history.

        The layers below take a repeat, since a client that had no answer repeats its request.
        """
        details = await self._details.read(payment_id, account_id=session.account_id)
        if details is None:
            raise await self._details.missing(payment_id, account_id=session.account_id)
        seen, payment = version_in(form), details.payment
        own = [event for event in details.events if event.version == seen + 1 and event.actor == session.actor]
        if not any(reason is None or event.reason == reason for event in own):
            raise VersionConflict(payment.status, action, seen=seen, version=payment.version)

    async def _perform(self, request: web.Request, run: Callable[[Form], Awaitable[str]]) -> web.StreamResponse:
        """Run an action on the payment. One that came too late shows the payment as it is now."""
        payment_id = payment_id_in(request)

        async def attempt(form: Form) -> Done | Shown:
            try:
                message = await run(form)
            except (StatusConflict, OperationRefused) as error:
                return Shown(await self.page(request, conflict=str(error)), answer=f"refused: {error}")
            return Done(message, request.app[PAGES].links.payment(payment_id))

        return await perform(request, attempt, target=str(payment_id))

    async def page(self, request: web.Request, *, conflict: str = "") -> web.Response:
        """Return the page of the payment in the path, or its live region. `conflict`: why an action was refused. Raises
        PaymentNotFound."""
        payment_id, session = payment_id_in(request), session_of(request)
        of_part = is_part(request) and request.method == "GET"

        def is_known(details: PaymentDetails) -> bool:
            """Tell whether the browser has the payment as it is. Its place may need the events, or be on the stream."""
            return not may_have_entry(details) and _known_part(request, details, find_place(details, None)) is not None

        details = await self._details.read(
            payment_id, account_id=session.account_id, is_known=is_known if of_part else None
        )
        if details is None:
            raise await self._details.missing(payment_id, account_id=session.account_id)
        payment = details.payment
        redis = request.app[PAGES].outages.redis
        search = await self._find_entry(details, redis) if may_have_entry(details) else None
        may_act = session.checked and not request.app[PAGES].read_only
        place = find_place(details, search)
        if of_part and (known := _known_part(request, details, place)) is not None:
            return known
        context: dict[str, Any] = {
            "payment": payment,
            "details": details,
            "lines": build_timeline(
                details.events, details.deliveries, details.notices, details.operations, details.steps
            ),
            "place": place,
            "may_cancel": may_act and session.may("write") and _is_cancelable(payment),
            "may_retry": may_act and session.may("write") and _is_retryable(payment),
            "may_resolve": may_act and session.may("operate") and payment.status is Status.NEEDS_REVIEW,
            "may_capture": may_act and session.may("write") and is_capturable(payment),
            "may_refund": may_act and session.may("write") and is_refundable(payment),
            "actions": {one.id: actions_for(one, session) if may_act else () for one in details.operations},
            "raw": json.dumps(json.loads(payment_document(payment)), indent=2, ensure_ascii=False),
            "conflict": conflict,
        }
        if of_part:
            return render_part(request, "payment_part.html", state=_state(details, place), **context)
        status = HTTPStatus.CONFLICT if conflict else HTTPStatus.OK
        return render(request, "payment.html", status=status, **context)

    async def _find_entry(self, details: PaymentDetails, redis: Outage) -> EntrySearch | None:
        """Return the wake-up of a payment on the stream; None if Redis does not answer.

        Its entry was added at about a known time. A sweep may have sent another one since: of those the newest are looked at.
        """
        if redis.is_silent():
            return None
        payment, woken = details.payment, woken_at(details)
        began_s = time.monotonic()
        try:
            first = await self._entry_between(payment, woken - BEFORE, woken + BEHIND)
            if first.found is not None or details.now <= woken + BEHIND:
                return first
            later = await self._entry_between(payment, woken + BEHIND, details.now + BEHIND)
        except StreamError:
            redis.notice(time.monotonic() - began_s)
            return None
        return EntrySearch(found=later.found, complete=later.found is not None or (first.complete and later.complete))

    async def _entry_between(self, payment: Payment, since: datetime, until: datetime) -> EntrySearch:
        return await self._inspector.entry_of(
            payment.id.bytes,
            payment.lane,
            since_ms=int(since.timestamp() * 1000),
            until_ms=int(until.timestamp() * 1000),
        )


def payment_id_in(request: web.Request) -> UUID:
    """Return the id of the payment in the path. Raises PaymentNotFound if it is not one."""
    payment_id = parse_id(request.match_info["payment_id"])
    if payment_id is None:
        raise PaymentNotFound(request.match_info["payment_id"])
    return payment_id


def version_in(form: Form) -> int:
    """Return the version of the payment or operation that the form was made for. Raises PageError."""
    text = form.get("version", "")
    if not _VERSION.fullmatch(text):
        raise PageError(HTTPStatus.BAD_REQUEST, "This form does not say which version it is about.")
    return int(text)


def _is_cancelable(payment: Payment) -> bool:
    if payment.status is Status.AUTHORIZED:
        return payment.open_operation is None
    return payment.status in CANCELABLE and payment.provider_ref is None


def _is_retryable(payment: Payment) -> bool:
    return payment.status in RETRYABLE and not (
        payment.status is Status.FAILED_FINAL and payment.provider_ref is not None
    )


def _known_part(request: web.Request, details: PaymentDetails, place: Place | None) -> web.Response | None:
    return find_known_part(request, _state(details, place))


def _state(details: PaymentDetails, place: Place | None) -> str:
    """Return a text that differs wherever the regions of two payments do. The events follow from the version."""
    return f"{replace(details, now=details.payment.created_at, events=(), steps=())!r} {place!r}"

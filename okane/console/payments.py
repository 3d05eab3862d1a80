"""The list of payments: searched, filtered, by pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from okane.console import formats
from okane.console.links import Links
from okane.console.outages import Outage
from okane.console.payment_filter import FilterForm, parse_filter
from okane.console.payment_search import FoundPayments, PaymentSearch
from okane.console.rendering import PAGES, is_part, redirect, render, render_part
from okane.console.search import Kind, Meaning
from okane.console.search_turns import WAIT_S, SearchTurns
from okane.console.session import session_of
from okane.console.shared_reads import SharedReads
from okane.errors import PaymentArchived, PaymentNotFound, StoreBusy, StoreSlow, StoreUnavailable
from okane.payment import Payment, Status
from okane.store import PaymentLists, PaymentStore
from okane.store.lists import is_search
from okane.store.metadata_index import MetadataSearch

PAGE = 50


class PaymentsScreen:
    """The list of the account's payments."""

    def __init__(
        self, lists: PaymentLists, by_metadata: MetadataSearch, payments: PaymentStore, turns: SearchTurns
    ) -> None:
        self._payments = payments
        self._search = PaymentSearch(lists, turns, by_metadata=by_metadata)
        self._polled: SharedReads[FoundPayments | None] = SharedReads()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /payments`: a page of the list. The id of a payment in the search box leads to that payment."""
        form = parse_filter(request.query)
        if form.problems:
            return _page(request, form, status=HTTPStatus.BAD_REQUEST)
        meanings = form.search.meanings
        if meanings and meanings[0].payment_id is not None:
            payment_id = meanings[0].payment_id
            try:
                await self._payments.get(payment_id, account_id=session_of(request).account_id)
            except PaymentArchived:
                raise
            except PaymentNotFound:
                meanings = (*meanings[1:], meanings[0])
            else:
                return redirect(request.app[PAGES].links.payment(payment_id))
        meaning = meanings[0] if meanings else None
        wanted = form.wanted(meaning)
        session = session_of(request)
        postgres = request.app[PAGES].outages.postgres
        began_s = time.monotonic()
        # A search costs what many pages cost: it is repeated on request alone.
        is_live = not is_search(wanted) and form.after is None

        async def read() -> FoundPayments | None:
            return await self._search.page(
                wanted, account_id=session.account_id, session_id=session.id, limit=PAGE, after=form.after
            )

        try:
            _check_answers(postgres)
            if is_part(request) and is_live:
                found = await self._polled.get((session.account_id, request.path_qs), read)
            else:
                found = await read()
        except StoreUnavailable as error:
            if is_part(request):
                raise
            if not isinstance(error, StoreBusy):
                postgres.notice(time.monotonic() - began_s)
            reason = unread_reason(error)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return _page(request, form, meaning, status=status, headers={"Retry-After": str(WAIT_S)}, unread=reason)
        postgres.end()
        if found is None:
            status = HTTPStatus.TOO_MANY_REQUESTS
            return _page(request, form, meaning, status=status, headers={"Retry-After": str(WAIT_S)})
        return _page(request, form, meaning, found, is_live=is_live)


def _check_answers(postgres: Outage) -> None:
    if postgres.is_silent():
        raise StoreUnavailable("it hangs")


def unread_reason(error: StoreUnavailable) -> str:
    """Return the words for a Postgres that has not answered a page."""
    if isinstance(error, StoreSlow):
        return "took too long"
    return "is too busy" if isinstance(error, StoreBusy) else "does not answer"


def _page(
    request: web.Request,
    form: FilterForm,
    meaning: Meaning | None = None,
    found: FoundPayments | None = None,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
    is_live: bool = False,
    unread: str = "",
) -> web.Response:
    context = {
        "form": form,
        "meaning": meaning,
        "others": [one for one in form.search.meanings if one != meaning and one.kind is not Kind.PAYMENT],
        "not_an_id": meaning is not None and form.search.meanings[0].kind is Kind.PAYMENT,
        "found": found,
        "rows_of": lambda payments: _rows(payments, request.app[PAGES].links),
        "statuses": list(Status),
        "is_live": is_live,
        "unread": unread,
        "unread_since": request.app[PAGES].outages.postgres.since,
        "wait_s": WAIT_S,
    }
    if is_part(request) and status is HTTPStatus.OK:
        return render_part(request, "payments_part.html", state=_state(found), **context)
    return render(request, "payments.html", status=status, headers=headers, **context)


def _rows(payments: Sequence[Payment], links: Links) -> list[tuple[str, ...]]:
    """Return the texts of the rows of `payments_part.html`, in its order."""
    first = links.payment("")
    return [
        (
            text := str(payment.id),
            formats.iso(payment.created_at),
            formats.utc(payment.created_at),
            first + text,
            text,
            formats.money(payment.amount_minor, payment.currency),
            formats.tone(payment.status),
            payment.status,
            str(payment.attempts),
            payment.called_provider or "",
            payment.idempotency_key,
        )
        for payment in payments
    ]


def _state(found: FoundPayments | None) -> str:
    """Return a text that differs wherever two lists of one address do."""
    if found is None:
        return ""
    rows = " ".join(f"{payment.id.hex}.{payment.version}" for payment in found.payments)
    return f"{found.after} {found.stopped} {found.looked_through} {rows}"

"""`POST /v1/payments/batch`: many payments in one request, each accepted or refused on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus

from aiohttp import web

from okane.api import batch_items, error_problems, payment_documents, request_body, strict_json
from okane.api.access import account_of
from okane.api.answer import JSON
from okane.api.payment_creation import MAX_BODY_BYTES, PaymentCreation
from okane.api.problems import Problem, malformed
from okane.intake.accept import IntakeReceipt
from okane.store import NewPayment
from okane.time_slice import TimeSlice

NDJSON = "application/x-ndjson"
MAX_BYTES = 1024 * 1024
MAX_ITEMS = 1_000
MAX_ITEM_ERRORS = 5  # listed for one item
GROUP_SIZE = 64  # items written in one transaction

Item = NewPayment | str  # a payment to accept, or the result of an item that was refused


class BatchHandler:
    """The handler of batches."""

    def __init__(self, *, creation: PaymentCreation) -> None:
        self._creation = creation

    async def create(self, request: web.Request) -> web.Response:
        """Accept the items that can be accepted; answer 207 with a result for each item, in order."""
        lines = request_body.check_media_type(request, JSON, NDJSON) == NDJSON
        if "Idempotency-Key" in request.headers:
            raise malformed("idempotency_key_misplaced", "in a batch every item carries its own idempotency_key")
        body = await request_body.read_body(request, MAX_BYTES)
        items = await self._read(body, lines=lines, account_id=account_of(request))
        return await self._accept(items)

    async def _read(self, body: bytes, *, lines: bool, account_id: str) -> Sequence[tuple[Item, int]]:
        """Return all items with their sizes before any is accepted: a body that is not JSON is refused as a whole."""
        items: list[tuple[Item, int]] = []
        time_slice = TimeSlice()
        for piece in batch_items.of_lines(body) if lines else batch_items.of_array(body):
            await time_slice.end_if_spent()
            if piece is None:
                continue
            if len(items) == MAX_ITEMS:
                raise _batch_size("not more")
            try:
                items.append((self._item(piece, account_id=account_id), len(piece)))
            except Problem as problem:
                if not lines and problem.code in strict_json.CODES:
                    raise
                items.append((_refused(problem), 0))
        if not items:
            raise _batch_size("not none")
        return items

    def _item(self, piece: bytes, *, account_id: str) -> NewPayment:
        if len(piece) > MAX_BODY_BYTES:
            detail = f"an item has up to {MAX_BODY_BYTES // 1024} kB, as a request of its own"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail)
        return self._creation.parse(piece, (), account_id=account_id)

    async def _accept(self, items: Sequence[tuple[Item, int]]) -> web.Response:
        results: list[str] = []
        accepted, away = 0, None
        time_slice = TimeSlice()
        for group in grouped(items):
            news = [one for one in group if isinstance(one, NewPayment)]
            outcomes = [away] * len(news) if away else list(map(_outcome, await self._creation.create(news)))
            lost = [one for one in outcomes if isinstance(one, Problem) and one.code == "store_unavailable"]
            if lost and len(lost) == len(outcomes):
                away = lost[0]  # the rest of the items need not wait for Postgres again
            following = iter(outcomes)
            for one in group:
                outcome = one if isinstance(one, str) else next(following)
                accepted += isinstance(outcome, IntakeReceipt)
                results.append(_written(outcome))
                await time_slice.end_if_spent()
        if away and not accepted and all(isinstance(one, NewPayment) for one, _ in items):
            raise away  # no item is known to be accepted: the client repeats the batch
        body = f'{{"results":[{",".join(results)}],"accepted":{accepted},"refused":{len(results) - accepted}}}'
        return web.Response(status=HTTPStatus.MULTI_STATUS, body=body.encode(), content_type=JSON)


def grouped(items: Iterable[tuple[Item, int]]) -> Iterator[Sequence[Item]]:
    """Yield the items in groups that are limited in number and size: a group is handled without a pause."""
    group: list[Item] = []
    size = 0
    for item, item_size in items:
        if len(group) == GROUP_SIZE or (group and size + item_size > MAX_BODY_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += item_size
    yield group


def _batch_size(but: str) -> Problem:
    detail = f"a batch has 1 to {MAX_ITEMS:,} items, {but}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "batch_size", detail)


def _outcome(receipt: IntakeReceipt | BaseException) -> IntakeReceipt | Problem:
    if isinstance(receipt, IntakeReceipt):
        return receipt
    if not isinstance(receipt, Exception):
        raise receipt
    return error_problems.problem_for(receipt)


def _written(outcome: IntakeReceipt | Problem | str) -> str:
    if isinstance(outcome, str):
        return outcome
    if isinstance(outcome, Problem):
        return _refused(outcome)
    status = HTTPStatus.ACCEPTED if outcome.created else HTTPStatus.OK
    return f'{{"status":{status.value},{payment_documents.receipt_text(outcome)[1:]}'


def _refused(problem: Problem) -> str:
    document = json.dumps(problem.document(max_errors=MAX_ITEM_ERRORS))
    return f'{{"status":{problem.status.value},"problem":{document}}}'

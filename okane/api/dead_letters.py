"""The routes of the dead letters: the list of payments that were given up, and their replay."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from okane.api import (
    create_request,
    query_parameters,
    request_body,
    strict_json,
    timestamps,
)
from okane.api.access import account_of, actor_of
from okane.api.answer import JSON
from okane.api.payment_creation import MAX_BODY_BYTES
from okane.api.payment_ids import ID
from okane.api.payment_queries import documents, page_of
from okane.api.timestamps import Timestamp
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.payment import Status
from okane.payment_id import parse_id
from okane.payment_json import payment_document
from okane.store import DeadLetterFilter, DeadLetterStore, DeadPayment
from okane.time_slice import TimeSlice

MAX_REPLAY = 500
DEFAULT_REPLAY = 100


def _id(text: object) -> object:
    payment_id = parse_id(text) if isinstance(text, str) else None
    if payment_id is None:
        raise ValueError("must be a payment's id")
    return payment_id


class DeadQuery(BaseModel):
    """The parameters of `GET /v1/dead-letters`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = 20
    order: query_parameters.Order = "descending"
    after: query_parameters.DatedCursor | None = None
    status: frozenset[Status] = frozenset()
    currency: create_request.AnyCurrency | None = None
    lane: query_parameters.Text | None = None
    dead_after: query_parameters.QueryTimestamp | None = None
    dead_before: query_parameters.QueryTimestamp | None = None


class ReplayFilter(BaseModel):
    """The dead letters to replay: all that can be retried, narrowed by these members."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    payment_ids: Annotated[
        list[Annotated[UUID, BeforeValidator(_id), WithJsonSchema(ID)]] | None,
        Field(min_length=1, max_length=MAX_REPLAY),
    ] = None
    currency: create_request.AnyCurrency | None = None
    lane: query_parameters.Text | None = None
    dead_after: Timestamp | None = None
    dead_before: Timestamp | None = None


class ReplayRequest(BaseModel):
    """The body of `POST /v1/dead-letters/replay`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    filter: ReplayFilter | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_REPLAY, description=request_body.WHOLE)] | None = None
    dry_run: bool | None = None


class DeadLetterHandlers:
    """The handlers of the dead letters."""

    def __init__(self, *, dead: DeadLetterStore, replay: DeadLetterReplay) -> None:
        self._dead = dead
        self._replay = replay

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/dead-letters`: a page, the newest dead letters first unless `order` is `ascending`."""
        query = query_parameters.parse_query(DeadQuery, request.query)
        wanted = DeadLetterFilter(
            ascending=query.order == "ascending",
            account_id=account_of(request),
            statuses=query.status,
            currency=query.currency,
            lane=query.lane,
            dead_from=query.dead_after,
            dead_before=query.dead_before,
        )
        page = await self._dead.search(wanted, limit=query.limit, after=query.after)
        listed = await documents(page.letters, _letter)
        place = page.after if len(listed) == len(page.letters) else page.letters[len(listed) - 1].place
        after = None if place is None else query_parameters.dated_cursor(place)
        return page_of(request, "dead_letters", f"[{','.join(listed)}]", after)

    async def replay(self, request: web.Request) -> web.Response:
        """`POST /v1/dead-letters/replay`: retry dead letters, the oldest first."""
        request_body.check_media_type(request, JSON)
        body = await request_body.read_body(request, MAX_BODY_BYTES)
        time_slice = TimeSlice()
        requested = request_body.validate(ReplayRequest, strict_json.loads(body))
        await time_slice.end_if_spent()  # many ids take as long to validate as to select
        chosen = requested.filter or ReplayFilter()
        limit, dry_run = requested.limit or DEFAULT_REPLAY, bool(requested.dry_run)
        wanted = DeadLetterFilter(
            account_id=account_of(request),
            # Payments that need a review are not retried; one that is named is reported as kept.
            statuses=frozenset() if chosen.payment_ids else frozenset({Status.FAILED_FINAL}),
            ids=chosen.payment_ids,
            currency=chosen.currency,
            lane=chosen.lane,
            dead_from=chosen.dead_after,
            dead_before=chosen.dead_before,
        )
        letters = await self._dead.oldest(limit + 1, wanted)
        done = await self._replay.run(letters[:limit], dry_run=dry_run, actor=actor_of(request))
        document = {
            "retried": [str(payment_id) for payment_id in done.retried],
            "kept": [str(payment_id) for payment_id in done.kept],
            "dry_run": dry_run,
            "has_more": len(letters) > limit,
        }
        return web.Response(body=json.dumps(document).encode(), content_type=JSON)


def _letter(letter: DeadPayment) -> str:
    payment = letter.payment
    return (
        f'{{"dead_at":"{timestamps.to_text(letter.dead_at)}","provider_key":{json.dumps(payment.provider_key)},'
        f'"payment":{payment_document(payment)}}}'
    )

"""Journals of webhooks for the tests of the invariants: good ones, of the payments of `histories`, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tests.faults.histories import STARTED_S, good
from torture.history.journals import History
from torture.history.webhooks import (
    Comparison,
    Endpoint,
    LogRow,
    Received,
    Secret,
    Trouble,
    WebhookHistory,
    WebhookTables,
    reported,
)

LATENCY_S = 0.05
DEAD_FROM_S = STARTED_S + 1_000
ROTATED_S = STARTED_S + 2_000
ENDED_S = STARTED_S + 3_000
DEFAULT = ("payment.succeeded", "payment.failed", "payment.canceled", "payment.review_required")

ALL = Endpoint(
    id="e-all",
    path="/all/1",
    account_id="default",
    types=("payment.*",),
    created_s=STARTED_S - 10,
    secrets=(Secret(text="one", asked_s=STARTED_S - 11, known_s=STARTED_S - 10),),
)
ROTATED = replace(
    ALL,
    id="e-rotated",
    path="/rotated/1",
    types=DEFAULT,
    secrets=(*ALL.secrets, Secret(text="two", asked_s=ROTATED_S - 1, known_s=ROTATED_S)),
)
DELETED = replace(ALL, id="e-deleted", path="/deleted/1", deleted_s=STARTED_S + 2.5)
OTHER = replace(ALL, id="e-other", path="/other/1", account_id="another")
ENDPOINTS = (ALL, ROTATED, DELETED, OTHER)
STOP = Trouble(what="stop_dispatcher", since_s=STARTED_S - 1, until_s=ENDED_S, cuts_off=True)
DEATH = Trouble(what="death of dispatcher-1", since_s=STARTED_S - 1, until_s=ENDED_S)

Spoil = Callable[[History], History]


def with_webhooks() -> History:
    """A good history whose changes were delivered."""
    history = good()
    changes = [
        (payment_id, change.version, change.at_s, type_)
        for payment_id, events in history.events.items()
        for change, type_ in reported(events)
    ]
    log = [
        LogRow(position=position, account_id="default", payment_id=payment_id, version=version, type=type_)
        for position, (payment_id, version, _, type_) in enumerate(sorted(changes, key=lambda one: one[2]), 1)
    ]
    tables = WebhookTables(
        committed_s={(payment_id, version): at_s for payment_id, version, at_s, _ in changes},
        log=log,
        last=len(log),
        done_to=dict.fromkeys((one.id for one in ENDPOINTS if one.deleted_s is None), len(log)),
    )
    received = [
        arrival(endpoint, row, at_s=tables.committed_s[row.payment_id, row.version])
        for row in log
        for endpoint in ENDPOINTS
        if endpoint.account_id == "default" and endpoint.subscribes(row.type) and is_there(endpoint, tables, row)
    ]
    comparison = Comparison(alone=(STARTED_S, DEAD_FROM_S), beside_dead=(DEAD_FROM_S, ENDED_S), dead_path="/dead/1")
    return replace(
        history,
        webhooks=WebhookHistory(endpoints=ENDPOINTS, received=received, tables=tables, comparison=comparison),
    )


def is_there(endpoint: Endpoint, tables: WebhookTables, row: LogRow) -> bool:
    return endpoint.deleted_s is None or tables.committed_s[row.payment_id, row.version] < endpoint.deleted_s


def arrival(endpoint: Endpoint, row: LogRow, *, at_s: float, **changes: Any) -> Received:
    """An accepted request of this event, some time after its commit."""
    id_ = f"evt_{row.payment_id.replace('-', '')}_{row.version}"
    request = Received(
        path=endpoint.path,
        webhook_id=id_,
        began_s=at_s + LATENCY_S / 2,
        ended_s=at_s + LATENCY_S,
        accepted=True,
        signed_by=(0,),
        digest=f"body of {id_}",
        event_id=id_,
        type=row.type,
        account_id=endpoint.account_id,
        payment_id=row.payment_id,
        version=row.version,
    )
    return replace(request, **changes)


def of(history: History) -> WebhookHistory:
    assert history.webhooks is not None
    return history.webhooks


def having(**changes: Any) -> Spoil:
    return lambda history: replace(history, webhooks=replace(of(history), **changes))


def having_tables(**changes: Any) -> Spoil:
    return lambda history: having(tables=replace(of(history).tables, **changes))(history)


class Place(NamedTuple):
    """One event at one endpoint."""

    path: str
    payment: str
    version: int


def with_requests(change: Callable[[Received], Sequence[Received]], place: Place) -> Spoil:
    """Other requests in the place of those of one event at one endpoint."""

    def changed(history: History) -> Iterator[Received]:
        for one in of(history).received:
            if (one.path, one.payment_id, one.version) == (place.path, f"id-{place.payment}", place.version):
                yield from change(one)
            else:
                yield one

    return lambda history: having(received=list(changed(history)))(history)


def request(place: Place, **changes: Any) -> Spoil:
    """Something else about the requests of one event at one endpoint."""
    return with_requests(lambda one: [replace(one, **changes)], place)


def later(one: Received, seconds: float, **changes: Any) -> Received:
    """The same request some time later."""
    return replace(one, began_s=one.began_s + seconds, ended_s=one.ended_s + seconds, **changes)

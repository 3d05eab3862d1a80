"""Bugs planted on purpose in the delivery of webhooks. Each must be caught within the budget.

Each is a context manager: the product, or the model of its tables, is wrong in one way inside its block. The bugs of the
statements that sequence are in tests/okane/test_webhook_mutants.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow
from okane.webhooks import feed, repeats, served_queue
from okane.webhooks.cursor import Cursor
from okane.webhooks.delivery import Delivery
from okane.webhooks.holds import Holds
from okane.webhooks.queue import EndpointQueue
from tests.simulation.webhooks.receivers import SimulatedSender
from tests.simulation.webhooks.tables import QueueRow, Tables


def no_epoch() -> AbstractContextManager[Any]:
    """Any dispatcher may write results. Caught by the rule that only the holder of a queue writes them."""

    def broken(_self: Tables, _owner: str, _queue: QueueRow, _epoch: int) -> bool:
        return True

    return patch.object(Tables, "holds_epoch", broken)


def cursor_before_row() -> AbstractContextManager[Any]:
    """The cursor moves when an event is read. Caught by the rule that it passes no event without a row."""
    return patch.object(Cursor, "done_to", property(lambda self: self.read_to))


def no_payment_order() -> AbstractContextManager[Any]:
    """Every event has a line of its own. Caught by I14."""

    def broken(row: EventRow, attempts: int = 0) -> Delivery[EventRow]:
        event = row.event
        return Delivery(event.position, UUID(int=event.position), row, attempts=attempts)

    stack = _All()
    for module in (feed, repeats, served_queue):
        if hasattr(module, "delivery_of"):
            stack.add(patch.object(module, "delivery_of", broken))
    return stack


def no_hold() -> AbstractContextManager[Any]:
    """A delivery that waits holds back no later one of its payment. Caught by I14."""

    def broken(_self: Holds, _payment_id: UUID, _position: int, _now_s: float) -> float | None:
        return None

    return patch.object(Holds, "held_until_s", broken)


def lease_never_ends() -> AbstractContextManager[Any]:
    """Requests begin after the lease. Caught by I14: the tables know of no lease."""
    begin = EndpointQueue.begin

    def broken(self: EndpointQueue[EventRow], now_s: float) -> Delivery[EventRow] | None:
        self.lease.until_s = max(self.lease.until_s, now_s + 1)
        return begin(self, now_s)

    return patch.object(EndpointQueue, "begin", broken)


def begins_without_leave() -> AbstractContextManager[Any]:
    """A request begins however long it has waited for its connection. Caught by I14, I15 and I16."""
    send = SimulatedSender.send

    async def broken(self: SimulatedSender, *arguments: Any, **options: Any) -> Any:
        return await send(self, *arguments, **{**options, "may_begin": lambda: True})

    return patch.object(SimulatedSender, "send", broken)


def deletion_is_not_awaited() -> AbstractContextManager[Any]:
    """A deletion is answered at once. Caught by I16."""

    def broken(self: Tables, endpoint: Endpoint) -> bool:
        self.queues.pop(endpoint.id, None)
        return True

    return patch.object(Tables, "finish_delete", broken)


def results_are_forgotten() -> AbstractContextManager[Any]:
    """The rows of a queue that changes its owner are sent again. Caught by I18."""
    read_account = Tables.read_account

    def broken(self: Tables, *arguments: Any, **options: Any) -> Any:
        return read_account(self, *arguments, **{**options, "undelivered_to": None})

    return patch.object(Tables, "read_account", broken)


class _All(AbstractContextManager[None]):
    """Several patches at once."""

    def __init__(self) -> None:
        self._patches: list[Any] = []

    def add(self, one: Any) -> None:
        self._patches.append(one)

    def __enter__(self) -> None:
        for one in self._patches:
            one.__enter__()

    def __exit__(self, *error: object) -> None:
        for one in reversed(self._patches):
            one.__exit__(*error)


MUTANTS: Final[Mapping[str, Callable[[], AbstractContextManager[Any]]]] = {
    mutant.__name__: mutant
    for mutant in (
        no_epoch,
        cursor_before_row,
        no_payment_order,
        no_hold,
        lease_never_ends,
        begins_without_leave,
        deletion_is_not_awaited,
        results_are_forgotten,
    )
}

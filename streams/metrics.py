"""The metrics of the library, and the hooks through which its parts report them.

`Metrics` does nothing; `streams.prometheus` implements it with prometheus_client, which the library does not need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

log = logging.getLogger("streams")

Kind = Literal["counter", "gauge", "histogram"]
Step = Literal["publish", "read", "settle"]


@dataclass(frozen=True, slots=True)
class Spec:
    """The definition of a metric. Names get a prefix, counters the suffix `_total`. A `shared` metric describes the stream
    and is the same in every process; all others are of one process. A metric `of_one_message` is observed inside the
    message's trace, if there is one."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ("stream",)
    buckets: tuple[float, ...] = ()
    shared: bool = False
    of_one_message: bool = False


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LANE = ("stream", "lane")
_GROUP = ("stream", "lane", "group")
_CONSUMER = ("stream", "lane", "group", "consumer")


def _shared(meaning: str, labels: tuple[str, ...] = ("stream",)) -> Spec:
    return Spec("gauge", meaning, labels, shared=True)


# Metrics that redis_exporter has too have its names, so that its dashboards and alerts work here.
METRICS: Final[Mapping[str, Spec]] = {
    "stream_length": _shared("Entries in the lane's stream: waiting and in work", _LANE),
    "stream_depth": _shared("Entries that no consumer has read yet (length - pending)", _LANE),
    "stream_oldest_entry_seconds": _shared("Age of the oldest entry in the lane's stream, 0 when empty", _LANE),
    "stream_group_messages_pending": _shared("Entries read and not yet acked", _GROUP),
    "stream_group_lag": _shared("The server's own count of unread entries; absent when it has none", _GROUP),
    "stream_group_consumers": _shared("Consumers of the group, dead ones included", _GROUP),
    "stream_group_consumer_messages_pending": _shared("Entries the consumer has read and not acked", _CONSUMER),
    "stream_group_consumer_idle_seconds": _shared("Time since the consumer last tried to read", _CONSUMER),
    "delayed_messages": _shared("Messages that wait for their next attempt"),
    "delayed_overdue_seconds": _shared("How late the first delayed message is; near 0 while a process promotes"),
    "dead_letter_messages": _shared("Messages given up, until replayed or purged"),
    "in_flight_messages": Spec("gauge", "Messages this process has read and not acked"),
    "messages_published": Spec("counter", "Messages published by this process", _LANE),
    "messages_settled": Spec("counter", "Messages acked, by outcome: done, retry, dead", (*_LANE, "outcome")),
    "messages_reclaimed": Spec("counter", "Messages taken over from a dead consumer", _LANE),
    "messages_promoted": Spec("counter", "Delayed messages moved back into their lanes"),
    "handler_errors": Spec("counter", "Handlers that raised, or returned something other than an outcome", _LANE),
    "leases_renewed": Spec("counter", "Leases renewed for messages that take long"),
    "leases_lost": Spec("counter", "Messages another consumer took over while they were being worked on"),
    "stale_outcomes": Spec("counter", "Outcomes dropped because another consumer had taken the message over", _LANE),
    "groups_recreated": Spec("counter", "Times the consumer group had vanished and was created again"),
    "message_wait_seconds": Spec(
        "histogram",
        "From the entry's creation to the start of its handler, by the server's clock "
        "(the process's own clock adds the time since its last read), so clock skew does not show",
        _LANE,
        _SECONDS,
        of_one_message=True,
    ),
    "handler_seconds": Spec("histogram", "Time in the handler", _LANE, _SECONDS, of_one_message=True),
    "batch_size": Spec("histogram", "Messages per command: publish, read, settle", ("stream", "step"), _SIZES),
    "round_trip_seconds": Spec(
        "histogram", "Duration of round trips to the server: publish, settle", ("stream", "step"), _SECONDS
    ),
}


class Metrics:
    """The hooks. Every method does nothing: override those you need. They run on the hot path and must be quick."""

    def published(self, lane: str, count: int) -> None: ...
    def batch(self, step: Step, size: int) -> None: ...
    def round_trip(self, step: Step, seconds: float) -> None: ...
    def started(self, lane: str, wait_s: float) -> None: ...
    def handled(self, lane: str, seconds: float) -> None: ...
    def handler_error(self, lane: str) -> None: ...
    def settled(self, lane: str, outcome: str, count: int) -> None: ...
    def reclaimed(self, lane: str, count: int) -> None: ...
    def promoted(self, count: int) -> None: ...
    def renewed(self, count: int) -> None: ...
    def lost(self, count: int) -> None: ...
    def stale(self, lane: str, count: int) -> None: ...
    def group_recreated(self) -> None: ...
    def in_flight(self, count: int) -> None: ...


def guarded(metrics: Metrics | None) -> Metrics:
    """Return hooks whose errors are logged, once for each hook, and not raised: a metric must not hold up a message."""
    safe = Metrics()
    if metrics is None or type(metrics) is Metrics:
        return safe
    for name in vars(Metrics):
        if not name.startswith("_"):
            setattr(safe, name, quiet(getattr(metrics, name), f"metrics.{name}"))
    return safe


def quiet(call: Callable[..., object], name: str) -> Callable[..., None]:
    """Return a function that runs `call`, logs its first error, and raises nothing but an exit."""
    is_logged = False

    def quietly(*args: object) -> None:
        nonlocal is_logged
        try:
            call(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            if not is_logged:
                log.exception("a bug: %s raised; what it raises from now on is not logged", name)
            is_logged = True

    return quietly

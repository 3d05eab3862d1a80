"""Every metric of the library with its meaning, and the calls by which the parts report.

`Metrics` does nothing; `streams.prometheus` is the one on prometheus_client, which the library itself does not need.
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
    """What a metric is. Names get a prefix, counters `_total`. What is `shared` describes the stream, whoever looks at it;
    everything else is one process's own. What is `of_one_message` is observed inside its trace, if there is one."""

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


# Those that redis_exporter has too are named as it names them, so that its dashboards and alerts carry over.
METRICS: Final[Mapping[str, Spec]] = {
    "stream_length": _shared("Entries in the lane's stream: waiting and being worked on", _LANE),
    "stream_depth": _shared("Entries that no consumer has read yet (length - pending)", _LANE),
    "stream_oldest_entry_seconds": _shared("Age of the oldest entry in the lane's stream, 0 when empty", _LANE),
    "stream_group_messages_pending": _shared("Entries read and not yet settled", _GROUP),
    "stream_group_lag": _shared("The server's own count of unread entries; absent when it does not know", _GROUP),
    "stream_group_consumers": _shared("Consumers the group knows, dead ones included", _GROUP),
    "stream_group_consumer_messages_pending": _shared("Entries the consumer has read and not settled", _CONSUMER),
    "stream_group_consumer_idle_seconds": _shared("Time since the consumer last tried to read", _CONSUMER),
    "delayed_messages": _shared("Messages that wait for their next attempt"),
    "delayed_overdue_seconds": _shared("How late the first delayed message is; near 0 unless nobody promotes"),
    "dead_letter_messages": _shared("Messages given up, until replayed or purged"),
    "in_flight_messages": Spec("gauge", "Messages this process has read and not settled"),
    "messages_published": Spec("counter", "Messages published by this process", _LANE),
    "messages_settled": Spec("counter", "Messages settled by outcome: done, retry, dead", (*_LANE, "outcome")),
    "messages_reclaimed": Spec("counter", "Messages taken over from a consumer that went silent", _LANE),
    "messages_promoted": Spec("counter", "Delayed messages moved back into their lanes"),
    "handler_errors": Spec("counter", "Handlers that raised, or answered what is not an outcome", _LANE),
    "leases_renewed": Spec("counter", "Leases renewed for messages that take long"),
    "leases_lost": Spec("counter", "Messages another consumer took over while they were being worked on"),
    "stale_outcomes": Spec(
        "counter", "Outcomes dropped when they were to be settled: another consumer had taken the message over", _LANE
    ),
    "groups_recreated": Spec("counter", "Times the consumer group had vanished and was created again"),
    "message_wait_seconds": Spec(
        "histogram",
        "From the entry's creation to the start of its handler; both ends are the server's clock "
        "(ours is only used for the time since it was last asked), so clock skew does not show",
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
    """What the parts report. Every method does nothing: override those you want. Called on the hot path: be quick."""

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
    """The same, but what a method raises is logged, once each, and goes no further: counting must not hold up a message."""
    safe = Metrics()
    if metrics is None or type(metrics) is Metrics:
        return safe
    for name in vars(Metrics):
        if not name.startswith("_"):
            setattr(safe, name, quiet(getattr(metrics, name), f"metrics.{name}"))
    return safe


def quiet(call: Callable[..., object], name: str) -> Callable[..., None]:
    """`call`, of which nothing comes out but an exit. Answers nothing."""
    said = False

    def quietly(*args: object) -> None:
        nonlocal said
        try:
            call(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            if not said:
                log.exception("a bug: %s raised; what it raises from now on is not logged", name)
            said = True

    return quietly

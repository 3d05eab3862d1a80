"""Work queues on Redis Streams consumer groups: priorities, retries, dead letters, leases, metrics.

Delivery is at least once. The outcome of its handler ends a message, or it is delivered again.

Names are imported when they are first used: a program that needs only messages, outcomes or a retry policy does not
load redis-py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.batcher import Batcher
    from streams.clock import Clock, SystemClock
    from streams.cluster_state import ClusterFacts, NodeFacts, cluster_facts
    from streams.coalesce import Coalescer
    from streams.connection import connect
    from streams.consumer import Consumer
    from streams.dead_letters import DeadLetterPage, DeadLetters
    from streams.delayed import Delayed
    from streams.draft import Draft
    from streams.entry import DeadLetter, timestamp_ms
    from streams.errors import (
        CommandRejected,
        StreamError,
        StreamForbidden,
        StreamFull,
        StreamRefused,
        StreamUnavailable,
        UnsafeServer,
    )
    from streams.handling import BatchHandler, Handler, Tracer
    from streams.inspector import (
        ConsumerStats,
        DelayedMessage,
        DelayedPage,
        EntrySearch,
        FoundEntry,
        Inspector,
        LaneStats,
        PendingEntry,
        StreamStats,
    )
    from streams.janitor import Janitor
    from streams.keys import Lane, Stream
    from streams.message import Message
    from streams.metrics import METRICS, Metrics
    from streams.options import ConsumerOptions
    from streams.outcome import Dead, Done, Outcome, Retry
    from streams.producer import Producer, Publisher
    from streams.retry import RetryPolicy
    from streams.rights import MissingRights, missing_rights, user_of
    from streams.server import ServerFacts, require_noeviction, server_facts

__all__ = [
    "METRICS",
    "BatchHandler",
    "Batcher",
    "Clock",
    "ClusterFacts",
    "Coalescer",
    "CommandRejected",
    "Consumer",
    "ConsumerOptions",
    "ConsumerStats",
    "Dead",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetters",
    "Delayed",
    "DelayedMessage",
    "DelayedPage",
    "Done",
    "Draft",
    "EntrySearch",
    "FoundEntry",
    "Handler",
    "Inspector",
    "Janitor",
    "Lane",
    "LaneStats",
    "Message",
    "Metrics",
    "MissingRights",
    "NodeFacts",
    "Outcome",
    "PendingEntry",
    "Producer",
    "Publisher",
    "Retry",
    "RetryPolicy",
    "ServerFacts",
    "Stream",
    "StreamError",
    "StreamForbidden",
    "StreamFull",
    "StreamRefused",
    "StreamStats",
    "StreamUnavailable",
    "SystemClock",
    "Tracer",
    "UnsafeServer",
    "cluster_facts",
    "connect",
    "missing_rights",
    "require_noeviction",
    "server_facts",
    "timestamp_ms",
    "user_of",
]

_NAMES_BY_MODULE = {
    "batcher": "Batcher",
    "clock": "Clock SystemClock",
    "cluster_state": "ClusterFacts NodeFacts cluster_facts",
    "coalesce": "Coalescer",
    "connection": "connect",
    "consumer": "Consumer",
    "dead_letters": "DeadLetterPage DeadLetters",
    "delayed": "Delayed",
    "draft": "Draft",
    "entry": "DeadLetter timestamp_ms",
    "errors": "CommandRejected StreamError StreamForbidden StreamFull StreamRefused StreamUnavailable UnsafeServer",
    "handling": "BatchHandler Handler Tracer",
    "inspector": "ConsumerStats DelayedMessage DelayedPage EntrySearch FoundEntry Inspector LaneStats PendingEntry"
    " StreamStats",
    "janitor": "Janitor",
    "keys": "Lane Stream",
    "message": "Message",
    "metrics": "METRICS Metrics",
    "options": "ConsumerOptions",
    "outcome": "Dead Done Outcome Retry",
    "producer": "Producer Publisher",
    "retry": "RetryPolicy",
    "rights": "MissingRights missing_rights user_of",
    "server": "ServerFacts require_noeviction server_facts",
}
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    module = _MODULE_BY_NAME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found  # from now on without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Work queues on Redis Streams consumer groups: priorities, retries, dead letters, leases, metrics.

Delivery is at least once. A message is settled by what its handler answers, or it is delivered again.
"""

from streams.batcher import Batcher
from streams.clock import Clock, SystemClock
from streams.coalesce import Coalescer
from streams.connection import RedisClient, connect
from streams.consumer import Consumer
from streams.dead import DeadLetterPage, DeadLetters
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
from streams.inspector import ConsumerStats, Inspector, LaneStats, StreamStats
from streams.janitor import Janitor
from streams.keys import Lane, Stream
from streams.message import Message
from streams.metrics import METRICS, Metrics
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
    "Coalescer",
    "CommandRejected",
    "Consumer",
    "ConsumerStats",
    "Dead",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetters",
    "Delayed",
    "Done",
    "Draft",
    "Handler",
    "Inspector",
    "Janitor",
    "Lane",
    "LaneStats",
    "Message",
    "Metrics",
    "MissingRights",
    "Outcome",
    "Producer",
    "Publisher",
    "RedisClient",
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
    "connect",
    "missing_rights",
    "require_noeviction",
    "server_facts",
    "timestamp_ms",
    "user_of",
]

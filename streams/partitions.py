"""The partitions of a stream: several streams with the same lanes, each in its own slots of a Redis Cluster.

A message goes by its body to one partition, and stays there with its retries and its dead letter. Partitions are spread
evenly over any even division of the slots: plain numbers as hash tags are not, 8 of them lay 2, 4 and 2 on three nodes.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from streams.keys import Lane, Stream

MOST: Final = 256  # the last byte of a body tells no more apart
_SLOTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of `stream`, a power of two up to 256. A single one is the stream itself, with its keys.

    The partition of a message is the last byte of its body modulo `number`.
    """

    stream: Stream
    number: int = 1
    streams: tuple[Stream, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MOST or self.number & (self.number - 1):
            raise ValueError(f"the number of partitions is a power of two, 1 to {MOST}: {self.number}")
        lanes = self.stream.lanes
        streams = (self.stream,) if self.number == 1 else _streams(self.stream.name, lanes, self.number)
        object.__setattr__(self, "streams", streams)

    def of(self, body: bytes) -> int:
        """Return the partition of the message with this body, 0 for an empty one."""
        return body[-1] & (self.number - 1) if body else 0


def partition_name(stream: str, partition: int, number: int) -> str:
    """Return the name of one of `number` partitions: that of the stream, the partition, and the smallest number that puts
    it, as a hash tag, into the slots from `partition * 16384 / number` on, `16384 / number` of them."""
    width = _SLOTS // number
    begin = f"{stream}:{partition:02d}."
    crc = crc_hqx(begin.encode(), 0)
    suffix = next(each for each in count() if crc_hqx(b"%d" % each, crc) % _SLOTS // width == partition)
    return f"{begin}{suffix}"


def _streams(name: str, lanes: Sequence[Lane], number: int) -> tuple[Stream, ...]:
    return tuple(Stream(partition_name(name, partition, number), lanes) for partition in range(number))

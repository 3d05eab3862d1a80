"""Faults of the network: one link of one process, or all of them.

A charge that is delayed on its way to the provider arrives in the end. okane trusts the provider's `not found` after the
consistency lag, so no stall here is longer than the time-out of a call and the lag together, 2.5 s (see options.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from torture.faults.fault import Fault, Made
from torture.network.link_faults import Blackhole, Direction, Drip, Latency, LoseReplies, Refuse, Stall
from torture.network.link_faults import Fault as LinkFault
from torture.schedule import Step, pick
from torture.system.cluster import Cluster
from torture.system.shape import Shape

_DIRECTIONS = tuple(Direction)


@contextlib.asynccontextmanager
async def _reset(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    cluster.links[step.target].reset()
    yield


@contextlib.asynccontextmanager
async def _refused(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    link = cluster.links[step.target]
    link.strike(Refuse())
    link.reset()
    yield
    link.heal()


@contextlib.asynccontextmanager
async def _cut_off(cluster: Cluster, step: Step) -> AsyncIterator[None]:
    links = cluster.links.of(step.target)
    for link in links:
        link.strike(Blackhole())
    yield
    for link in links:
        link.heal()


def _struck(fault: Callable[[Step], LinkFault]) -> Made:
    @contextlib.asynccontextmanager
    async def made(cluster: Cluster, step: Step) -> AsyncIterator[None]:
        link = cluster.links[step.target]
        link.strike(fault(step))
        try:
            yield
        finally:
            link.heal()

    return made


def _all_links(step: Step, shape: Shape) -> list[str]:
    return [link for link in shape.links if link.startswith(f"{step.target}>")]


def _every_link(shape: Shape) -> list[str]:
    return list(shape.links)


def _link(step: Step, shape: Shape) -> list[str]:
    """A link that all share is that of a server: no other fault strikes Redis meanwhile."""
    return [step.target, *(["redis"] if step.target in shape.shared_links else [])]


NETWORK_FAULTS = (
    Fault(
        name="connection_reset",
        meaning="RST of all connections of one process to one server",
        targets=_every_link,
        touches=_link,
        made=_reset,
        weight=3,
    ),
    Fault(
        name="connection_refused",
        meaning="one process cannot connect to one server, and loses what connections it has",
        targets=_every_link,
        touches=_link,
        made=_refused,
        hold_s=(0.5, 3.0),
    ),
    Fault(
        name="blackhole",
        meaning="bytes between one process and one server vanish, in one direction or both",
        targets=_every_link,
        touches=_link,
        made=_struck(lambda step: Blackhole(direction=pick(_DIRECTIONS, step.roll))),
        hold_s=(1.0, 4.0),
        weight=2,
    ),
    Fault(
        name="stall",
        meaning="bytes between one process and one server are held up and come later",
        targets=_every_link,
        touches=_link,
        made=_struck(lambda step: Stall(direction=pick(_DIRECTIONS, step.roll))),
        hold_s=(0.5, 2.2),
        weight=2,
    ),
    Fault(
        name="latency",
        meaning="50 to 250 ms more on every chunk",
        targets=_every_link,
        touches=_link,
        made=_struck(lambda step: Latency(delay_ms=50 + step.roll * 200, jitter_ms=50)),
        hold_s=(1.0, 4.0),
    ),
    Fault(
        name="lost_reply",
        meaning="requests get through, replies are lost and the connection breaks",
        targets=_every_link,
        touches=_link,
        made=_struck(lambda step: LoseReplies(after_bytes=1 if step.roll < 0.5 else 200)),
        hold_s=(0.3, 1.5),
        weight=3,
    ),
    Fault(
        name="slow_drip",
        meaning="a few bytes at a time",
        targets=_every_link,
        touches=_link,
        made=_struck(lambda step: Drip(chunk_bytes=pick((16, 64, 256), step.roll), every_ms=10)),
        hold_s=(1.0, 3.0),
    ),
    Fault(
        name="cut_off",
        meaning="one process loses Postgres, Redis and the provider at once, silently",
        targets=lambda shape: [*shape.workers, *shape.apis],
        made=_cut_off,
        hold_s=(1.5, 5.0),
        touches=_all_links,
    ),
)

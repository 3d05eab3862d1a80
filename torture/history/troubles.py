"""The times in which the result of a delivery may be lost: its owner, its receiver, or Postgres was in trouble. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from torture.history.webhooks import Trouble
from torture.system.shape import Shape
from torture.system.tally import Tally

_AFTERWARDS_S = 3.0  # until sessions are back, and what waited in memory is written
_NOTED_S = 1.0  # a death is seen so much later at most
_DELAYED_S = 10.0  # a failpoint that delays or raises is passed within this time of the start
_STOPPED_S = 15.0
_STRIKES_S: Final = {"kill": 0.0, "stop": _STOPPED_S}
# An answer that the receiver has noted may come too late, or never.
_OF_RECEIVER = frozenset({"receiver_slow", "receiver_silent", "receiver_down", "kill_receiver"})
_KILLS = frozenset({"kill_dispatcher", *_OF_RECEIVER})


def troubles(tally: Tally, shape: Shape) -> Sequence[Trouble]:
    """Return them all, in no order."""
    return [*_of_faults(tally, shape), *_of_deaths(tally, shape), *_of_failpoints(tally, shape)]


def _of_faults(tally: Tally, shape: Shape) -> Iterator[Trouble]:
    concerned = {"postgres", *shape.dispatchers, *(f"{one}>postgres" for one in shape.dispatchers)}
    for time in tally.times:
        if time.fault.startswith("failpoint_"):
            continue  # that is when it was armed
        if time.fault in _OF_RECEIVER or not concerned.isdisjoint(time.touched):
            yield Trouble(
                what=time.fault,
                since_s=time.since_s,
                until_s=time.until_s + _AFTERWARDS_S,
                cuts_off=time.fault not in _KILLS,
            )


def _of_deaths(tally: Tally, shape: Shape) -> Iterator[Trouble]:
    for death in tally.deaths:
        if death.process in ("receiver", *shape.dispatchers):
            yield Trouble(what=f"death of {death.process}", since_s=death.at_s - _NOTED_S, until_s=death.at_s)


def _of_failpoints(tally: Tally, shape: Shape) -> Iterator[Trouble]:
    for strike in tally.strikes:
        if strike.process in shape.dispatchers:
            yield Trouble(
                what=f"failpoint in {strike.process}",
                since_s=strike.at_s - _NOTED_S,
                until_s=strike.at_s + _STRIKES_S.get(strike.action, _DELAYED_S),
                cuts_off=strike.action == "stop",
            )

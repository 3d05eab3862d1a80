"""The times in which the result of a delivery may be lost, since its owner, its receiver, or Postgres was in trouble; and
those in which it is written later. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from torture.history.webhooks import Delay, Trouble
from torture.system.crash_points import DELAY_S
from torture.system.shape import Shape
from torture.system.tally import Tally

_AFTERWARDS_S: Final = 3.0  # until sessions are back, and what waited in memory is written
# An answer that the receiver has noted may come too late, or never.
_OF_RECEIVER = frozenset({"receiver_slow", "receiver_silent", "receiver_down", "kill_receiver"})
_KILLS = frozenset({"kill_dispatcher", *_OF_RECEIVER})


def troubles(tally: Tally, shape: Shape) -> Sequence[Trouble]:
    """Return them all, in no order."""
    return [*_of_faults(tally, shape), *_of_deaths(tally, shape), *_of_failpoints(tally, shape)]


def _of_faults(tally: Tally, shape: Shape) -> Iterator[Trouble]:
    links = (f"{one}>{server}" for one in shape.dispatchers for server in shape.postgres)
    concerned = {"postgres", *shape.dispatchers, *links}
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
    """Every end counts, whatever its cause, but that of a process that has written all it had."""
    for end in tally.endings:
        if end.process in ("receiver", *shape.dispatchers) and end.code != 0:
            yield Trouble(what=f"death of {end.process}", since_s=end.alive_s, until_s=end.gone_s)


def _of_failpoints(tally: Tally, shape: Shape) -> Iterator[Trouble]:
    """One that kills is a death; one that delays costs no answer (see `delays`)."""
    for strike in tally.strikes:
        if strike.process not in shape.dispatchers:
            continue
        what = f"failpoint in {strike.process}"
        if strike.action == "stop":
            until_s = strike.until_s + _AFTERWARDS_S
            yield Trouble(what=what, since_s=strike.since_s, until_s=until_s, cuts_off=True)
        elif strike.action == "raise":
            yield Trouble(what=what, since_s=strike.since_s, until_s=strike.until_s, most=1)


def delays(tally: Tally, shape: Shape) -> Sequence[Delay]:
    """Return what made the dispatchers write later: stalls of the machine, and their failpoints that delay."""
    return [
        *stalls(tally),
        *(
            Delay(strike.since_s, strike.until_s, DELAY_S)
            for strike in tally.strikes
            if strike.process in shape.dispatchers and strike.action == "delay"
        ),
    ]


def stalls(tally: Tally) -> Sequence[Delay]:
    """Return the stalls of the machine."""
    return [Delay(one.since_s, one.until_s, one.until_s - one.since_s) for one in tally.stalls]

"""The durations of repairs, from the database's events and the times of the faults. Pure."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from okane.load.report import AT_REST, Latency, latency
from okane.store.history import EventRow
from torture.system.tally import Death

_CLAIMED = "claimed"
_SOON_S = 60.0  # an outage after which nothing was settled for longer was not the last one


def orphans_settled(events: Mapping[str, Sequence[EventRow]], deaths: Iterable[Death]) -> Latency | None:
    """Milliseconds from a worker's death to the settlement of each payment that it held a claim on."""
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for death in deaths:
        moments[death.process].append(death.at_s)
    for times in moments.values():
        times.sort()
    return latency(sample for timeline in events.values() for sample in _orphaned(timeline, moments))


def _orphaned(timeline: Sequence[EventRow], deaths: Mapping[str, Sequence[float]]) -> Iterable[float]:
    """One sample for each claim of this payment that its worker did not outlive."""
    for number, event in enumerate(timeline):
        if event.event != _CLAIMED or event.actor not in deaths:
            continue
        times = deaths[event.actor]
        at = bisect.bisect_left(times, event.at_s)
        following = timeline[number + 1].at_s if number + 1 < len(timeline) else float("inf")
        if at == len(times) or times[at] >= following:
            continue  # it lived to write the outcome, or to lose its lease
        end = next((later.at_s for later in timeline[number + 1 :] if later.status in AT_REST), None)
        if end is not None:
            yield (end - times[at]) * 1000


def first_settlements(events: Mapping[str, Sequence[EventRow]], moments: Iterable[float]) -> Latency | None:
    """Milliseconds from each moment to the next settlement of any payment."""
    settled = sorted(event.at_s for timeline in events.values() for event in timeline if event.status in AT_REST)
    samples = []
    for moment in moments:
        at = bisect.bisect_left(settled, moment)
        if at < len(settled) and settled[at] - moment < _SOON_S:
            samples.append((settled[at] - moment) * 1000)
    return latency(samples)


def later_ones_settled(events: Mapping[str, Sequence[EventRow]], moments: Iterable[float]) -> Latency | None:
    """Milliseconds from each moment to the first settlement of a payment that was not claimed before."""
    spans = sorted(
        (timeline[0].at_s, min(event.at_s for event in timeline if event.status in AT_REST))
        for timeline in events.values()
        if any(event.status in AT_REST for event in timeline)
    )
    # Of a payment and all later ones.
    earliest = [*itertools.accumulate((end for _, end in reversed(spans)), min)][::-1]
    samples = []
    for moment in moments:
        at = bisect.bisect_left(spans, (moment, 0.0))
        if at < len(spans) and earliest[at] - moment < _SOON_S:
            samples.append((earliest[at] - moment) * 1000)
    return latency(samples)

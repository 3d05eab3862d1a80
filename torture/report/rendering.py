"""A TortureReport as text for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from okane.load.report import Latency
from torture.report.report import Judgement, TortureReport

_SHOWN = 5  # violations of one invariant: report.json has more
_LONGEST = 300  # of what shows one


def render(report: TortureReport) -> str:
    """The findings, several lines, no colour: what is quoted is what is printed."""
    return "\n".join(_lines(report))


def _lines(report: TortureReport) -> Iterator[str]:
    cut = " (interrupted)" if report.interrupted else ""
    yield (
        f"seed {report.seed}: {report.acknowledged:,} payments, {report.kill_count:,} kills, "
        f"{len(report.faults)} kinds of faults in {report.seconds:,.0f} s{cut}, at rest {report.waited_s:,.1f} s later"
    )
    yield f"  {report.requests:,} requests, {report.charges:,} charges, {_listed(report.by_status)}"
    yield f"  operations: {_listed(report.operations) or 'none'}"
    yield f"  decisions: {_listed(report.decisions) or 'none'}"
    if report.webhooks:
        yield f"  {report.webhooks:,} webhooks delivered, {report.webhook_repeats:,} more than once"
    yield f"  lost {report.lost:,}, doubled {report.doubled:,}, wrong {report.wrong:,}, stuck {report.stuck:,}"
    yield ""
    for judgement in report.judgements:
        yield from _judgement(judgement)
    yield ""
    yield f"  {'seconds':<52}{'n':>7}{'p50':>9}{'p99':>9}{'max':>9}"
    lease = f"lease {report.lease_s:g} s"
    yield _latency(f"worker killed -> settled, alone ({lease})", report.orphans_settled_calm)
    yield _latency(f"worker killed -> settled, under torture ({lease})", report.orphans_settled)
    yield _latency("Redis back -> next settlement, alone", report.redis_back_calm)
    yield _latency("Redis back -> next settlement, under torture", report.redis_back)
    if report.redis_lost is not None:
        yield _latency("Redis primary lost -> a later payment settled", report.redis_lost)
    if report.promoted is not None:
        yield _latency("Postgres standby promoted -> next settlement", report.promoted)
    yield ""
    yield f"  kills: {_listed(report.kills)}"
    yield f"  faults: {_listed(report.faults)}"
    yield f"  crash points that struck: {_listed(report.failpoints) or 'none'}"
    if report.failpoints_missed:
        yield f"  crash points that were not reached: {', '.join(report.failpoints_missed)}"
    for name, why in report.impossible.items():
        yield f"  not made: {name}: {why}"
    for said, why in report.failed.items():
        yield f"  went wrong: {said}: {why}"
    if report.unexpected_exits:
        yield f"  ended by themselves: {_listed(report.unexpected_exits)}"
    if report.helped:
        yield f"  had to be repaired by hand: {_listed(report.helped)}"
    for said, count in report.errors.items():
        yield f"  logged at error, {count:,} times: {said}"
    yield (
        f"  wake-ups sent again by the sweep (in the last life of each worker): {report.swept:,.0f}; "
        f"late results: {report.late_results:,}; Redis commands over 10 ms: {report.slow_commands:,}"
    )
    if report.stalls:
        yield f"  the machine stalled {report.stalls:,} times, {report.stalled_s:,.1f} s in all"
    sizes = (
        f"{name} {first.rss_mb:g} -> {last.rss_mb:g} MB, {first.descriptors} -> {last.descriptors}"
        for name, (first, last) in report.sizes.items()
    )
    yield f"  private memory and descriptors: {'; '.join(sizes)}"
    yield ""
    if report.folder is not None:
        yield f"kept: {report.folder}"
    yield "all invariants hold" if report.holds else "INVARIANTS ARE VIOLATED"
    yield f"(--seed {report.seed} repeats the schedule of faults; when each begins depends on the machine)"


def _judgement(judgement: Judgement) -> Iterator[str]:
    said = f"VIOLATED {judgement.violated:,} times" if judgement.violated else "holds"
    if not judgement.judged:
        said = "not judged"
    yield f"  {judgement.name:<4} {said:<12} {judgement.meaning} ({judgement.judged:,})"
    for one in judgement.shown[:_SHOWN]:
        yield f"         {one.subject}: {one.what}: {one.evidence[:_LONGEST]}"
    if judgement.violated > _SHOWN:
        yield f"         ... and {judgement.violated - _SHOWN:,} more"


def _latency(name: str, found: Latency | None) -> str:
    if found is None:
        return f"  {name:<52}{'-':>7}"
    values = "".join(f"{value / 1000:>9.2f}" for value in (found.p50, found.p99, found.max))
    return f"  {name:<52}{found.count:>7,}{values}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())

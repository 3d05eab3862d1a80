"""The result of a torture run: the verdict, the faults, and the durations of repairs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from okane.load.report import Latency
from torture.history.journals import History
from torture.history.watch import Size, Watch
from torture.invariants.verdict import Verdict, Violation
from torture.options import TortureOptions
from torture.report import repair_times
from torture.system.tally import Tally

_SHOWN = 20  # violations of one invariant: the first ones tell the story


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One invariant: how much there was to judge, and what was wrong."""

    name: str
    meaning: str
    judged: int
    violated: int
    shown: Sequence[Violation]


@dataclass(frozen=True, slots=True, kw_only=True)
class TortureReport:
    """The result of a run. Latencies are milliseconds."""

    seed: int
    seconds: float  # of torture
    waited_s: float  # until the healed system was at rest
    interrupted: bool
    requests: int
    acknowledged: int  # payments
    by_status: Mapping[str, int]
    operations: Mapping[str, int]  # by status
    decisions: Mapping[str, int]  # by what was done and how it was answered last
    charges: int
    judgements: Sequence[Judgement]
    lost: int  # acknowledged, and not there or not as acknowledged
    doubled: int  # charged more than once
    wrong: int  # charged without success, succeeded without charge, or for another amount
    stuck: int  # still open in the end
    kills: Mapping[str, int]
    faults: Mapping[str, int]
    impossible: Mapping[str, str]  # faults that this machine cannot have, and why
    failed: Mapping[str, str]  # faults that could not be made or healed this time, and why
    failpoints: Mapping[str, int]  # that struck
    failpoints_missed: Sequence[str]
    unexpected_exits: Mapping[str, int]
    helped: Mapping[str, int]  # programs that did not start any more until their files were repaired
    errors: Mapping[str, int]  # lines at error in the logs of our processes
    lease_s: float
    orphans_settled: Latency | None  # from a worker's death, under torture
    orphans_settled_calm: Latency | None  # the same while nothing else was wrong
    redis_back: Latency | None  # until the next settlement
    redis_back_calm: Latency | None
    redis_lost: Latency | None  # from the loss of a primary until a payment is settled that was claimed later
    promoted: Latency | None  # from the promotion of a standby of Postgres until the next settlement
    slow_commands: int
    swept: float
    late_results: int
    webhooks: int  # accepted by the receiver, each once
    webhook_repeats: int  # accepted again
    stalls: int  # times in which the machine did not let this program run
    stalled_s: float  # in all
    sizes: Mapping[str, tuple[Size, Size]]  # first and last look
    folder: str | None  # where it is kept

    @property
    def holds(self) -> bool:
        return not any(judgement.violated for judgement in self.judgements)

    @property
    def kill_count(self) -> int:
        return sum(self.kills.values())

    @property
    def exit_code(self) -> int:
        return 0 if self.holds else 1

    def to_json(self) -> dict[str, object]:
        """Return plain types, for `json.dumps`."""
        return asdict(self) | {"holds": self.holds, "kill_count": self.kill_count, "exit_code": self.exit_code}


def build_report(
    *,
    options: TortureOptions,
    verdict: Verdict,
    history: History,
    tally: Tally,
    watch: Watch,
    acknowledged: int,
    seconds: float,
    interrupted: bool,
    impossible: Mapping[str, str],
    failpoints: Sequence[str],
    errors: Mapping[str, int],
    folder: Path | None,
) -> TortureReport:
    """Put it all together."""
    counts = verdict.counts
    received = () if history.webhooks is None else history.webhooks.received
    accepted = Counter((one.path, one.webhook_id) for one in received if one.accepted)

    def calm(at_s: float) -> bool:
        return at_s >= tally.calm_from_s

    return TortureReport(
        seed=options.seed,
        seconds=round(seconds, 1),
        waited_s=round(history.waited_s, 1),
        interrupted=interrupted,
        requests=len(history.requests),
        acknowledged=acknowledged,
        by_status=dict(Counter(row.status.value for row in history.rows.values()).most_common()),
        operations=dict(Counter(row.status.value for row in history.operations.rows.values()).most_common()),
        decisions=dict(
            Counter(f"{one.action} {one.answers[-1]}" for one in history.decisions or () if one.answers).most_common()
        ),
        charges=sum(charge.captured for charge in history.charges),
        judgements=[
            Judgement(
                name=finding.invariant.name,
                meaning=finding.invariant.meaning,
                judged=finding.judged,
                violated=len(finding.violations),
                shown=finding.violations[:_SHOWN],
            )
            for finding in verdict.findings
        ],
        lost=counts["I1"],
        doubled=counts["I2"] + counts["I20"],
        wrong=counts["I3"] + counts["I4"],
        stuck=counts["I5"],
        kills=_sorted(tally.kills),
        faults=_sorted(tally.made),
        impossible=impossible,
        failed=dict(tally.failed),
        failpoints=_sorted(tally.points),
        failpoints_missed=[name for name in failpoints if name not in tally.points],
        unexpected_exits=_sorted(tally.unexpected),
        helped=_sorted(tally.helped),
        errors=_sorted(errors),
        lease_s=options.lease_s,
        orphans_settled=repair_times.orphans_settled(
            history.events, [one for one in tally.deaths if not calm(one.at_s)]
        ),
        orphans_settled_calm=repair_times.orphans_settled(
            history.events, [one for one in tally.deaths if calm(one.at_s)]
        ),
        redis_back=repair_times.first_settlements(
            history.events, [at_s for at_s in tally.redis_back if not calm(at_s)]
        ),
        redis_back_calm=repair_times.first_settlements(
            history.events, [at_s for at_s in tally.redis_back if calm(at_s)]
        ),
        redis_lost=repair_times.later_ones_settled(history.events, tally.redis_lost),
        promoted=repair_times.first_settlements(history.events, tally.promoted),
        slow_commands=watch.slow_commands,
        swept=history.total("okane_sweep_repairs_total"),
        late_results=sum(event.event == "late_result" for timeline in history.events.values() for event in timeline),
        webhooks=len(accepted),
        webhook_repeats=accepted.total() - len(accepted),
        stalls=len(tally.stalls),
        stalled_s=round(sum(one.until_s - one.since_s for one in tally.stalls), 1),
        sizes={name: (watch.first[name], watch.last[name]) for name in watch.first},
        folder=None if folder is None else str(folder),
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

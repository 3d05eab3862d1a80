"""Render a LoadReport as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from okane.load.report import JournalCheck, Latency, LoadReport


def render(report: LoadReport) -> str:
    """Return the summary as plain lines, as the README shows them."""
    return "\n".join(_lines(report))


def render_journal(check: JournalCheck) -> str:
    text = (
        f"provider's journal: {_charges(check.charges)} for {check.successes:,} success{_es(check.successes)}, "
        f"{check.doubled:,} doubled, {check.missing:,} missing, {check.without_success:,} without a success"
    )
    if check.wrong_amount:
        text += f", {check.wrong_amount:,} of another amount"
    if check.open_charges:
        text += f" ({_charges(check.open_charges)} of payments still waiting)"
    return text


def _lines(report: LoadReport) -> Iterator[str]:
    cut = ", interrupted" if report.interrupted else ""
    yield (
        f"run {report.run_id}: {report.accepted:,} of {report.payments:,} payments accepted "
        f"in {report.sending_s:,.1f} s ({report.accept_rate:,.0f}/s){cut}"
    )
    yield ""
    for status, count in report.by_status.items():
        yield f"  {status:<16} {count:>9,}"
    if report.waiting:
        yield f"  {'waiting':<16} {sum(report.waiting.values()):>9,}   {_listed(report.waiting)}"
    if report.lost:
        yield f"  {'LOST':<16} {report.lost:>9,}"
    yield ""
    yield f"  {'':<24}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}"
    yield _latency_line("POST to 202, ms", report.accept)
    yield _latency_line("accepted to settled, ms", report.settle)
    yield ""
    rate = "" if report.settled_rate is None else f" at {report.settled_rate:,.0f}/s"
    errors = f"errors: {_listed(report.errors)}" if report.errors else "no errors"
    yield f"  {report.settled:,} settled{rate}, {report.retried:,} requests repeated, {errors}"
    yield ""
    if report.journal is not None:
        yield render_journal(report.journal)
    else:
        yield f"provider's journal: not checked, {report.journal_error}"
    for violation in report.violations:
        yield f"BROKEN: {violation}"
    if report.accepted < report.payments and not report.interrupted:
        yield f"NOT ACCEPTED: {report.payments - report.accepted:,} payments, see the errors above"
    if report.settled < report.accepted and not report.interrupted:
        yield f"NOT SETTLED: {report.accepted - report.settled:,} payments in time (--timeout); see `okane review ls`"


def _latency_line(name: str, latency: Latency | None) -> str:
    if latency is None:
        return f"  {name:<24}{'-':>10}"
    return f"  {name:<24}" + "".join(
        f"{value:>10,.1f}" for value in (latency.p50, latency.p90, latency.p99, latency.max)
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _charges(count: int) -> str:
    return f"{count:,} charge{'' if count == 1 else 's'}"


def _es(count: int) -> str:
    return "" if count == 1 else "es"

"""The row about the provider's own books: differences from ours, the age of the comparison, and disputes."""

from __future__ import annotations

from grafana.board import Row
from grafana.panels import PanelText, Query, lines

OF = 'job="$job"'
PROVIDER = f'{OF},provider=~"$provider"'

BOOKS = Row(
    title="The provider's books",
    panels=(
        lines(
            PanelText(
                title="Differences with the provider's books",
                means="Differences that `okane reconcile` has found in the last seven days and that are left, by kind.",
                do="missing_here: money moved that okane knows nothing of, or twice. Of every kind: "
                "compare with the provider's dashboard. `okane reconcile` names each one.",
            ),
            "short",
            Query(f"max by (provider, kind) (okane_reconcile_differences{{{PROVIDER}}})", "{{provider}} {{kind}}"),
            red=1,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Time since the last comparison",
                means="Time since `okane reconcile` has compared a day of the provider to its end, of providers that are "
                "compared as a routine.",
                do="Over two days: the job from cron fails, with exit code 2, or does not run. "
                "Run `okane reconcile` by hand for the days that are missing.",
            ),
            "s",
            Query(f"max by (provider) (okane_reconcile_age_seconds{{{PROVIDER}}})", "{{provider}}"),
            red=2 * 86_400,
        ),
        lines(
            PanelText(
                title="Disputes to answer",
                means="Disputes for which the provider waits for evidence, by provider.",
                do="Answer them in the provider's dashboard before they are due. "
                "`GET /v1/disputes?status=needs_response` lists those of an account.",
            ),
            "short",
            Query(f"max by (provider) (okane_disputes_to_answer{{{PROVIDER}}})", "{{provider}}"),
            red=1,
            to_red=True,
        ),
    ),
)

"""The dashboard of payments: outcomes, open payments, and the provider."""

from __future__ import annotations

from grafana.board import Board, Row, Variable
from grafana.books import BOOKS, OF, PROVIDER
from grafana.overview import JOB
from grafana.panels import COLOURS, PER_S, PanelText, Query, heat, lines, number
from grafana.promql import increase, quantiles, rate, ratio, waiting

OPEN = Row(
    title="Open, and given up",
    panels=(
        number(
            PanelText(
                title="Unknown",
                means="Payments, captures, voids and refunds that may have moved money: looked up at the provider until the "
                "outcome is known.",
                do="The provider times out or answers unreadably, and its look-ups do not help either. Contact it. "
                "Nothing is charged twice meanwhile; after a day a human decides.",
            ),
            "short",
            Query(waiting("unknown", OF)),
            red=100,
            amber=1,
        ),
        number(
            PanelText(
                title="Needs review",
                means="Payments, captures, voids and refunds that a human decides: outcome open for a day, poison, or money "
                "that moved late.",
                do="`okane review ls [--operations]`; look each up at the provider under its provider_key, and decide.",
            ),
            "short",
            Query(waiting("needs_review", OF)),
            red=1,
        ),
        number(
            PanelText(
                title="To be retried",
                means="Payments, captures, voids and refunds that the provider did not take; no money moved. They wait for "
                "their next attempt.",
                do="The provider is away or limits us: see its outcomes below.",
            ),
            "short",
            Query(waiting("failed_retryable", OF)),
            red=1_000,
            amber=100,
        ),
        number(
            PanelText(
                title="Dead letters",
                means="Payments, captures, voids and refunds given up and not yet replayed, decided or purged.",
                do="`okane dead ls [--operations]`, fix the cause, `okane dead replay --all`.",
            ),
            "short",
            Query(f"max(okane_payments_dead{{{OF}}}) + (max(okane_operations_dead{{{OF}}}) or vector(0))"),
            red=1,
        ),
        number(
            PanelText(
                title="In work",
                means="Payments a worker holds a claim on right now.",
                do="0 while payments wait: no worker claims them, see Streams and consumers.",
            ),
            "short",
            Query(f"sum(okane_payments_in_flight{{{OF}}})"),
        ),
        number(
            PanelText(
                title="Provider answers",
                means="Share of provider calls that ended in an answer: approved, declined, or not found.",
                do="It is away, slow, or limits us. Payments are retried and looked up; restart nothing.",
            ),
            "percentunit",
            Query(
                ratio(
                    "okane_provider_attempts_total",
                    f'{PROVIDER},outcome=~"approved|authorized|declined|not_found"',
                    PROVIDER,
                )
            ),
            red=0.5,
            amber=0.95,
            red_below=True,
        ),
    ),
)

OUTCOMES = Row(
    title="Payments",
    panels=(
        lines(
            PanelText(
                title="Outcomes by status",
                means="Outcomes written per second, by the status they led to.",
                do="failed_final without declines: retries were spent. needs_review: see the dead letters.",
            ),
            PER_S,
            Query(rate("okane_payments_settled_total", OF, "status"), "{{status}}"),
            colours=COLOURS,
            stacked=True,
        ),
        lines(
            PanelText(
                title="Off the happy path, by status",
                means="Payments that wait for anything but a free worker, from Postgres.",
                do="unknown rises: outcomes stay open. failed_retryable rises: the provider refuses. pending: "
                "wake-ups were lost, the sweep sends them.",
            ),
            "short",
            Query(f"max by (status) (okane_payments_waiting{{{OF}}})", "{{status}}"),
            colours=COLOURS,
        ),
        lines(
            PanelText(
                title="By lane",
                means="Payments that workers finished per second, by lane: critical has large amounts, low small ones.",
                do="One lane stands still while others move: see its depth in Streams and consumers.",
            ),
            PER_S,
            Query(
                rate("okane_messages_settled_total", f'{OF},outcome=~"done|dead"', "lane"),
                "{{lane}}",
            ),
            stacked=True,
        ),
        heat(
            PanelText(
                title="Time to settle",
                means="From acceptance to the final status, as a heat map. Bands above the first are retries and "
                "look-ups.",
                do="The upper bands grow: the provider. The lowest rises: the wait or the provider delays all payments.",
            ),
            "s",
            Query(rate("okane_payment_settle_seconds_bucket", OF, "le"), "{{le}}", exemplars=True),
        ),
        lines(
            PanelText(
                title="Accepted, new and repeated",
                means="Requests answered 2xx per second. Repeats found the payment of their key.",
                do="Many repeats: answers reach clients too late; see the time to accept.",
            ),
            PER_S,
            Query(rate("okane_payments_accepted_total", OF, "result"), "{{result}}"),
            width=12,
        ),
    ),
)

PROVIDERS = Row(
    title="Providers",
    panels=(
        lines(
            PanelText(
                title="Calls by outcome",
                means="Calls of the chosen providers per second, charges and look-ups.",
                do="unavailable: the provider did not take them, no money moved. unknown: it may have; they are looked up.",
            ),
            "reqps",
            Query(
                rate("okane_provider_attempts_total", PROVIDER, "call", "outcome"),
                "{{call}} {{outcome}}",
            ),
        ),
        lines(
            PanelText(
                title="Duration of calls",
                means="p50 and p99 by call. The deadline is OKANE_PROVIDER_TIMEOUT (5 s).",
                do="At the deadline: those calls end as unknown. Contact the provider; a longer deadline only holds places.",
            ),
            "s",
            *quantiles("okane_provider_call_seconds", PROVIDER, "call"),
            red=5,
        ),
        lines(
            PanelText(
                title="Declines by code",
                means="Charges the provider declined, per second, by its code.",
                do="One code rises: a bank, a card network, a fraud rule, or a bad batch of payments. "
                "`okane_payments_declined` keeps 40 codes and counts the rest as other.",
            ),
            PER_S,
            Query(
                rate("okane_payments_declined_total", PROVIDER, "code"),
                "{{code}}",
            ),
            stacked=True,
        ),
        lines(
            PanelText(
                title="Retries by provider",
                means="Attempts per second that led to another try or look-up.",
                do="As for the calls: the provider refuses or stays silent.",
            ),
            PER_S,
            Query(
                rate("okane_payment_retries_total", PROVIDER, "provider"),
                "{{provider}}",
            ),
        ),
        lines(
            PanelText(
                title="Notices by result",
                means="Notices in the webhooks of the chosen providers per second, by result. A notice only makes okane ask "
                "the provider.",
                do="invalid: a wrong webhook secret, a clock that is minutes off, or forged webhooks; payments settle by "
                "polling meanwhile. unmatched: payments of another system under the same account. None at all: the "
                "provider's dashboard says why its webhooks fail.",
            ),
            PER_S,
            Query(rate("okane_provider_notices_total", PROVIDER, "result"), "{{result}}"),
        ),
        lines(
            PanelText(
                title="Circuit breakers",
                means="Workers whose breaker of the provider is not closed; and 1 where it is open for all workers.",
                do="All workers: the provider is away, and payments wait without burning attempts. One worker: its host "
                "has lost its way there. `okane providers ls`.",
            ),
            "short",
            Query(
                f'sum by (provider) (okane_provider_circuit_open{{{PROVIDER},level="worker"}})', "{{provider}}, workers"
            ),
            Query(
                f'max by (provider) (okane_provider_circuit_open{{{PROVIDER},level="shared"}})', "{{provider}}, for all"
            ),
            red=1,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Put off",
                means="Payments per second that were put off without burning an attempt: our rate limit, the provider's "
                "limit, an open circuit breaker, or a key that the provider refuses.",
                do="config: the key is wrong or has been revoked. rate_limit: more payments than the rate in the "
                "providers file. limit: the provider allows less than that rate.",
            ),
            PER_S,
            Query(rate("okane_provider_deferred_total", PROVIDER, "provider", "reason"), "{{provider}} {{reason}}"),
        ),
        lines(
            PanelText(
                title="Switched by an operator",
                means="1 for a provider that an operator has set to drain (no new charges) or off (no calls).",
                do="`okane providers ls` says who did it, when and why; `okane providers enable` ends it.",
            ),
            "short",
            Query(f'max by (provider, mode) (okane_provider_mode{{{PROVIDER},mode!="on"}})', "{{provider}} {{mode}}"),
            red=1,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Waiting for the customer, or for the provider",
                means="Payments whose customer has to act (requires_action), or that the provider decides later "
                "(submitted). They are polled until a notice or a poll settles them.",
                do="requires_action rises: customers cannot open the page, or leave it. submitted rises: notices do not "
                "come, or the provider is behind.",
            ),
            "short",
            Query(
                f'max by (status) (okane_payments_waiting{{{OF},status=~"requires_action|submitted"}})', "{{status}}"
            ),
            colours=COLOURS,
        ),
        lines(
            PanelText(
                title="Claims",
                means="Claims per second by result: granted, or the status that refused it. Refusals are doubles "
                "that ended harmlessly.",
                do="Many refusals: wake-ups come twice. Check take-overs and sweep repairs.",
            ),
            PER_S,
            Query(rate("okane_claims_total", OF, "result"), "{{result}}"),
        ),
        lines(
            PanelText(
                title="Late results",
                means="Outcomes that came after their attempt had lost the payment; kept as events.",
                do="A worker was stalled for longer than the lease: starved CPU, a suspended machine. Consider a longer "
                "VISIBILITY_TIMEOUT.",
            ),
            "short",
            Query(increase("okane_late_results_total", OF, "event"), "{{event}}"),
            red=1,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Late charges",
                means="Charges that a later look-up found for payments closed without one; and closed payments that are "
                "still to be looked up.",
                do="Any charge: `okane review ls`. Something holds requests for longer than OKANE_CONSISTENCY_LAG.",
            ),
            "short",
            Query(increase("okane_late_charges_total", OF, "provider"), "{{provider}}"),
            Query(f'max by (status) (okane_payments_waiting{{{OF},status=~"canceled|failed_final"}})', "{{status}}"),
        ),
    ),
)

OPERATIONS = Row(
    title="Captures, voids and refunds",
    panels=(
        lines(
            PanelText(
                title="Open operations",
                means="Captures, voids and refunds that are not at rest, by kind and status, and how long the longest "
                "waiting one has been due.",
                do="needs_review: `okane review ls --operations`, and the provider's records. Many wait: their "
                "workers are away, or the provider is slow.",
            ),
            "short",
            Query(f"max by (kind, status) (okane_operations_waiting{{{OF}}})", "{{kind}} {{status}}"),
            Query(f"max(okane_oldest_due_operation_seconds{{{OF}}})", "due for (s)"),
        ),
        lines(
            PanelText(
                title="Operations by outcome",
                means="Outcomes of captures, voids and refunds per second, by kind and status; failed_retryable, submitted "
                "and unknown are open.",
                do="failed_final: `okane refunds ls --status failed_final`. unknown stays: the provider does not say what "
                "became of them.",
            ),
            PER_S,
            Query(rate("okane_operations_settled_total", OF, "kind", "status"), "{{kind}} {{status}}"),
        ),
        lines(
            PanelText(
                title="Time to settle an operation",
                means="From the request of a capture, void or refund to its final status.",
                do="As for charges: the provider is slow, or away. Many at once wait for a place: "
                "OKANE_OPERATIONS_CONCURRENCY.",
            ),
            "s",
            *quantiles("okane_operation_settle_seconds", OF, "kind"),
        ),
        lines(
            PanelText(
                title="Operations in work",
                means="Captures, voids and refunds that a worker holds a claim on right now, and claims of them per second "
                "by result.",
                do="0 while operations wait: no worker claims them, see Streams and consumers.",
            ),
            "short",
            Query(f"sum(okane_operations_in_flight{{{OF}}})", "in work"),
            Query(rate("okane_operation_claims_total", OF, "result"), "{{result}}"),
        ),
        lines(
            PanelText(
                title="Late results of operations",
                means="Outcomes that came after their attempt had lost the operation: a stalled worker. And what a later "
                "look-up found: money that moved for a closed one, or a refund that a bank returned.",
                do="`okane review ls --operations`: what moved after it was closed needs a decision.",
            ),
            "short",
            Query(increase("okane_operation_late_results_total", OF, "kind", "event"), "{{kind}} {{event}}"),
            Query(increase("okane_late_operations_total", OF, "kind", "event"), "{{kind}} {{event}}, found later"),
            red=1,
            to_red=True,
        ),
    ),
)

PAYMENTS = Board(
    uid="okane-payments",
    title="okane / Payments",
    description="Payments by status, lane, provider and decline code; open payments, and those that need a review.",
    variables=(
        JOB,
        Variable(
            name="provider",
            label="Provider",
            values='label_values(okane_provider_attempts_total{job="$job"}, provider)',
            several=True,
        ),
    ),
    rows=(
        OPEN,
        OUTCOMES,
        PROVIDERS,
        OPERATIONS,
        BOOKS,
    ),
)

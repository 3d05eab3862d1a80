"""What became of payments, and what the providers say."""

from __future__ import annotations

from grafana.board import Board, Row, Variable
from grafana.overview import JOB
from grafana.panels import COLOURS, PER_S, Query, Words, heat, lines, number
from grafana.promql import grown, quantiles, rate, ratio

OF = 'job="$job"'
PROVIDER = f'{OF},provider=~"$provider"'

OPEN = Row(
    title="Open, and given up",
    panels=(
        number(
            Words(
                title="Unknown",
                means="Payments that may have been charged: looked up at the provider until it says.",
                do="The provider times out or answers unreadably, and its look-ups do not help either. Ask it. "
                "Nothing is charged twice meanwhile; after a day a human decides.",
            ),
            "short",
            Query(f'max(okane_payments_waiting{{{OF},status="unknown"}})'),
            red=100,
            amber=1,
        ),
        number(
            Words(
                title="Needs review",
                means="Payments that a human decides: outcome open for a day, poison, or money that moved late.",
                do="`okane review ls`; look each up at the provider under its provider_key, and decide.",
            ),
            "short",
            Query(f'max(okane_payments_waiting{{{OF},status="needs_review"}})'),
            red=1,
        ),
        number(
            Words(
                title="To be retried",
                means="Payments the provider did not take; nothing moved. They wait for their next attempt.",
                do="The provider is away or limits us: see its outcomes below.",
            ),
            "short",
            Query(f'max(okane_payments_waiting{{{OF},status="failed_retryable"}})'),
            red=1_000,
            amber=100,
        ),
        number(
            Words(
                title="Dead letters",
                means="Payments given up that nobody has looked after, from Postgres.",
                do="`okane dead ls`, mend the cause, `okane dead replay --all`.",
            ),
            "short",
            Query(f"max(okane_payments_dead{{{OF}}})"),
            red=1,
        ),
        number(
            Words(
                title="In work",
                means="Payments a worker holds a claim on right now.",
                do="0 while payments wait: workers do not get to them, see Streams and consumers.",
            ),
            "short",
            Query(f"sum(okane_payments_in_flight{{{OF}}})"),
        ),
        number(
            Words(
                title="Provider answers",
                means="Share of provider calls that ended in an answer: approved, declined, or not found.",
                do="It is away, slow, or limits us. Payments are retried and looked up; nothing to restart.",
            ),
            "percentunit",
            Query(
                ratio(
                    "okane_provider_attempts_total",
                    f'{PROVIDER},outcome=~"approved|declined|not_found"',
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
            Words(
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
            Words(
                title="Off the happy path, by status",
                means="Payments waiting for something other than their turn, from Postgres.",
                do="unknown rises: outcomes stay open. failed_retryable rises: the provider refuses. pending: "
                "wake-ups were lost, the sweep sends them.",
            ),
            "short",
            Query(f"max by (status) (okane_payments_waiting{{{OF}}})", "{{status}}"),
            colours=COLOURS,
        ),
        lines(
            Words(
                title="By lane",
                means="Payments that a worker finished with, per second, by lane: critical are large amounts, low "
                "small ones.",
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
            Words(
                title="Time to settle",
                means="From acceptance to the final status, as a heat map. Bands above the first are retries and "
                "look-ups.",
                do="The upper bands grow: the provider; the lowest rises: waiting, or the provider for everybody.",
            ),
            "s",
            Query(rate("okane_payment_settle_seconds_bucket", OF, "le"), "{{le}}", exemplars=True),
        ),
        lines(
            Words(
                title="Accepted, new and repeated",
                means="Requests answered 2xx per second. Repeats found the payment their key had made.",
                do="Many repeats: clients do not hear our answers in time; see the time to accept.",
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
            Words(
                title="Calls by outcome",
                means="Calls of the chosen providers per second, charges and look-ups.",
                do="unavailable: it did not take them, nothing moved. unknown: it may have; they are looked up.",
            ),
            "reqps",
            Query(
                rate("okane_provider_attempts_total", PROVIDER, "call", "outcome"),
                "{{call}} {{outcome}}",
            ),
        ),
        lines(
            Words(
                title="Duration of calls",
                means="p50 and p99 by call. The deadline is OKANE_PROVIDER_TIMEOUT (5 s).",
                do="At the deadline: those calls end as unknown. Ask the provider; a longer deadline only holds places.",
            ),
            "s",
            *quantiles("okane_provider_call_seconds", PROVIDER, "call"),
            red=5,
        ),
        lines(
            Words(
                title="Declines by code",
                means="Charges the provider declined, per second, by its code.",
                do="One code rises: a bank, a card network, a fraud rule, a bad batch of ours. `okane_payments_declined` "
                "keeps 40 codes and calls the rest other.",
            ),
            PER_S,
            Query(
                rate("okane_payments_declined_total", PROVIDER, "code"),
                "{{code}}",
            ),
            stacked=True,
        ),
        lines(
            Words(
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
            Words(
                title="Claims",
                means="Claims per second by result: granted, or the status that refused it. Refusals are doubles "
                "that ended harmlessly.",
                do="Many refusals: wake-ups come twice. Look at take-overs and sweep repairs.",
            ),
            PER_S,
            Query(rate("okane_claims_total", OF, "result"), "{{result}}"),
        ),
        lines(
            Words(
                title="Late results",
                means="Outcomes that came after their attempt had lost the payment; kept as events.",
                do="A worker stood still for longer than the lease: starved CPU, a suspended machine. Consider a longer "
                "VISIBILITY_TIMEOUT.",
            ),
            "short",
            Query(grown("okane_late_results_total", OF, "event"), "{{event}}"),
            red=1,
            to_red=True,
        ),
        lines(
            Words(
                title="Late charges",
                means="Charges that a later look-up found for payments closed without one; and closed payments that are "
                "still to be looked up.",
                do="Any charge: `okane review ls`. Something holds requests for longer than OKANE_CONSISTENCY_LAG.",
            ),
            "short",
            Query(grown("okane_late_charges_total", OF, "provider"), "{{provider}}"),
            Query(f'max by (status) (okane_payments_waiting{{{OF},status=~"canceled|failed_final"}})', "{{status}}"),
        ),
    ),
)

PAYMENTS = Board(
    uid="okane-payments",
    title="okane / Payments",
    description="Payments by status, lane, provider and decline code; what is open, and what waits for a human.",
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
    ),
)

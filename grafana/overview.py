"""The dashboard to open first: is money moving?"""

from __future__ import annotations

from grafana.board import Board, Row, Variable
from grafana.panels import AMBER, COLOURS, GREEN, PER_S, RED, PanelText, Query, lines, number
from grafana.promql import quantile, quantiles, rate, ratio, waiting

OF = 'job="$job"'

JOB = Variable(name="job", label="Job", values="label_values(okane_payments_in_flight, job)")

NOW = Row(
    title="Is money moving?",
    panels=(
        number(
            PanelText(
                title="Settled",
                means="Payments that came to rest per second: charged, or failed for good.",
                do="Nothing comes to rest. If payments are accepted, check the oldest due one beside this, then "
                "Streams and consumers: are there workers, and do they read? Then the provider in Payments.",
            ),
            PER_S,
            Query(rate("okane_payments_settled_total", f'{OF},status=~"success|failed_final"')),
            red=0.000_1,
            red_below=True,
        ),
        number(
            PanelText(
                title="Charged",
                means="Of the payments that came to rest, the share that was charged. Declines count against it.",
                do="Check the declines by code in Payments. One code: a bank or a card network. All of them: your "
                "account at the provider. Spent retries instead of declines: the provider was away for long.",
            ),
            "percentunit",
            Query(
                ratio(
                    "okane_payments_settled_total",
                    f'{OF},status="success"',
                    f'{OF},status=~"success|failed_final|needs_review"',
                )
            ),
            red=0.5,
            amber=0.8,
            red_below=True,
        ),
        number(
            PanelText(
                title="Time to settle, p99",
                means="From acceptance to the final status, retries included, by Postgres' clock.",
                do="Find where the time goes. Waiting in the lane: start workers. In the call: the provider. In neither: "
                "the round trips in Dependencies.",
            ),
            "s",
            Query(quantile(0.99, "okane_payment_settle_seconds", OF)),
            red=15,
            amber=5,
        ),
        number(
            PanelText(
                title="Oldest due",
                means="How long the longest waiting payment has been due, from Postgres. It does not depend on Redis or "
                "on any worker.",
                do="Due payments wait. No worker, a stuck group, or a slow provider that occupies all "
                "places: see Streams and consumers.",
            ),
            "s",
            Query('max(okane_oldest_due_seconds{job="$job"})'),
            red=60,
            amber=15,
        ),
        number(
            PanelText(
                title="For a human",
                means="Payments, captures, voids and refunds in needs_review: outcome unknown for a day, poison, or money "
                "that moved late.",
                do="`okane review ls [--operations]`, `okane review show ID`; look each up at the provider, and decide.",
            ),
            "short",
            Query(waiting("needs_review", OF)),
            red=1,
        ),
        number(
            PanelText(
                title="Processes that answer",
                means="Share of the listed API and worker processes that Prometheus can reach.",
                do="A process died, or cannot be reached. It is listed for 15 minutes; its payments are "
                "taken over after the lease. See `up` by process below, and its log.",
            ),
            "percentunit",
            Query('sum(up{job="$job",role=~"api|worker"}) / count(up{job="$job",role=~"api|worker"})'),
            red=1,
            red_below=True,
        ),
    ),
)

RATE = Row(
    title="Rate",
    panels=(
        lines(
            PanelText(
                title="Accepted and settled",
                means="New payments, and payments that came to rest, per second. The gap is the growth of the backlog.",
                do="Accepted above settled for long: too few workers or places for this load.",
            ),
            PER_S,
            Query(
                rate("okane_payments_accepted_total", f'{OF},result="created"'),
                "accepted",
            ),
            Query(
                rate("okane_payments_settled_total", f'{OF},status=~"success|failed_final"'),
                "settled",
            ),
        ),
        lines(
            PanelText(
                title="Outcomes",
                means="Outcomes of attempts per second. failed_retryable and unknown are open: tried again, or "
                "looked up.",
                do="Many failed_retryable: the provider refuses. Many unknown: it answers late or unreadably. See "
                "Payments.",
            ),
            PER_S,
            Query(
                rate("okane_payments_settled_total", OF, "status"),
                "{{status}}",
            ),
            colours=COLOURS,
            stacked=True,
        ),
        lines(
            PanelText(
                title="Answers of the API by status code",
                means="Requests per second. 4xx are errors of clients.",
                do="503: Postgres is away or too slow, see Dependencies; clients repeat with the same key. 500: a "
                "bug, its traceback is in the log (`request_failed`).",
            ),
            "reqps",
            Query(
                rate("okane_http_request_seconds_count", OF, "code"),
                "{{code}}",
            ),
            colours={"200": "blue", "202": GREEN, "503": AMBER, "500": RED},
            stacked=True,
        ),
    ),
)

LATENCY = Row(
    title="Latency",
    panels=(
        lines(
            PanelText(
                title="Time to accept",
                means="From the head of a POST to its answer, which is sent after the commit.",
                do="The commit is slow: `accept` in Dependencies. If that is quick, the API's CPU: start more with "
                "`okane api --processes`.",
            ),
            "s",
            *quantiles("okane_http_request_seconds", f'{OF},method="POST"'),
            red=1,
        ),
        lines(
            PanelText(
                title="Time to settle",
                means="From acceptance to the final status, retries included.",
                do="p99 alone: retries and look-ups, see Payments. p50 too: the wait or the provider delays all payments.",
            ),
            "s",
            *quantiles("okane_payment_settle_seconds", OF, shares=(0.5, 0.9, 0.99)),
            red=15,
        ),
        lines(
            PanelText(
                title="Waiting in the lane, p99",
                means="From the wake-up to the start of its handler, by lane.",
                do="No places are free: start workers, or raise WORKER_COUNT if the provider can take it.",
            ),
            "s",
            Query(
                quantile(0.99, "okane_message_wait_seconds", OF, "lane"),
                "{{lane}}",
                exemplars=True,
            ),
            red=10,
        ),
    ),
)

ERROR_BUDGET = Row(
    title="Error budget (30 days: 99.9 % of requests accepted, 99 % of payments settled within 15 s)",
    panels=(
        lines(
            PanelText(
                title="Burn rate: acceptance",
                means="Rate of 5xx relative to the allowed rate. At 1 the budget lasts 30 days, at 14.4 two days.",
                do="As for the alert OkaneAcceptBudgetBurn: 503 is Postgres, 500 is a bug.",
            ),
            "short",
            Query('job:okane_accept_errors:ratio_rate5m{job="$job"} / 0.001', "5 min"),
            Query('job:okane_accept_errors:ratio_rate1h{job="$job"} / 0.001', "1 h"),
            Query('job:okane_accept_errors:ratio_rate6h{job="$job"} / 0.001', "6 h"),
            red=14.4,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Burn rate: settling",
                means="Rate of payments that take longer than 15 s or need a review, relative to the allowed rate.",
                do="As for the alert OkaneSettleBudgetBurn: the provider, or too few workers.",
            ),
            "short",
            Query('job:okane_settle_slow:ratio_rate5m{job="$job"} / 0.01', "5 min"),
            Query('job:okane_settle_slow:ratio_rate1h{job="$job"} / 0.01', "1 h"),
            Query('job:okane_settle_slow:ratio_rate6h{job="$job"} / 0.01', "6 h"),
            red=14.4,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Processes",
                means="1 while Prometheus can read a process, 0 when a listed process does not answer.",
                do="Read its log and that of its supervisor. Nothing is lost: its payments are looked up after the lease.",
            ),
            "short",
            Query('max by (process, role, instance) (up{job="$job",role!="system"})', "{{process}} {{instance}}"),
        ),
    ),
)

OVERVIEW = Board(
    uid="okane-overview",
    title="okane / Overview",
    description="Is money moving: rate, success, latency, error budget. Start here; the links lead to the causes.",
    variables=(JOB,),
    rows=(
        NOW,
        RATE,
        LATENCY,
        ERROR_BUDGET,
    ),
)

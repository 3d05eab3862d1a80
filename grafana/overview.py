"""Is money moving? One look for whoever is called at night."""

from __future__ import annotations

from grafana.board import Board, Row, Variable
from grafana.panels import AMBER, COLOURS, GREEN, PER_S, RED, Query, Words, lines, number
from grafana.promql import quantile, quantiles, rate, ratio

OF = 'job="$job"'

JOB = Variable(name="job", label="Job", values="label_values(okane_payments_in_flight, job)")

NOW = Row(
    title="Is money moving?",
    panels=(
        number(
            Words(
                title="Settled",
                means="Payments that came to rest per second: charged, or failed for good.",
                do="Nothing comes to rest. If payments are accepted, look at the oldest due one beside this, then "
                "at Streams and consumers: are there workers, do they read? Then at the provider in Payments.",
            ),
            PER_S,
            Query(rate("okane_payments_settled_total", f'{OF},status=~"success|failed_final"')),
            red=0.000_1,
            red_below=True,
        ),
        number(
            Words(
                title="Charged",
                means="Of the payments that came to rest, the share that was charged. Declines count against it.",
                do="Look at the declines by code in Payments. One code: a bank or a card network. All of them: the "
                "provider's account. No declines but spent retries: the provider was away for long.",
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
            Words(
                title="Time to settle, p99",
                means="From acceptance to the final status, retries included, by Postgres' clock.",
                do="Where is the time? Waiting in the lane: more workers. In the call: the provider. In neither: "
                "the round trips in Dependencies.",
            ),
            "s",
            Query(quantile(0.99, "okane_payment_settle_seconds", OF)),
            red=15,
            amber=5,
        ),
        number(
            Words(
                title="Oldest due",
                means="For how long the longest waiting payment has been due, from Postgres. The truth: it does not "
                "depend on Redis, nor on any worker.",
                do="Payments wait although they could run. No worker, a stuck group, or a provider that takes all "
                "places: see Streams and consumers.",
            ),
            "s",
            Query('max(okane_oldest_due_seconds{job="$job"})'),
            red=60,
            amber=15,
        ),
        number(
            Words(
                title="For a human",
                means="Payments whose outcome nobody knows, that killed their workers, or for which money moved late.",
                do="`okane dead ls`, `okane dead show ID`; look each up at the provider.",
            ),
            "short",
            Query('max(okane_payments_waiting{job="$job",status="needs_review"})'),
            red=1,
        ),
        number(
            Words(
                title="Processes that answer",
                means="API and worker processes that Prometheus can reach, of those that said they were there.",
                do="One died without saying so, or cannot be reached. It is listed for 15 minutes; its payments are "
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
            Words(
                title="Accepted and settled",
                means="New payments, and payments that came to rest, per second. The gap is what piles up.",
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
            Words(
                title="Outcomes",
                means="What became of attempts, per second. failed_retryable and unknown are open: tried again, or "
                "looked up.",
                do="Much failed_retryable: the provider refuses. Much unknown: it answers late or unreadably. See "
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
            Words(
                title="Answers of the API by status code",
                means="Requests per second. 4xx are the clients' own.",
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
            Words(
                title="Time to accept",
                means="From the head of a POST to its answer, which is given after the commit.",
                do="The commit is slow: `accept` in Dependencies. If that is quick, the API's CPU: start another with "
                "`okane api --processes`.",
            ),
            "s",
            *quantiles("okane_http_request_seconds", f'{OF},method="POST"'),
            red=1,
        ),
        lines(
            Words(
                title="Time to settle",
                means="From acceptance to the final status, retries included.",
                do="p99 alone: retries and look-ups, see Payments. p50 as well: waiting or the provider, for everybody.",
            ),
            "s",
            *quantiles("okane_payment_settle_seconds", OF, shares=(0.5, 0.9, 0.99)),
            red=15,
        ),
        lines(
            Words(
                title="Waiting in the lane, p99",
                means="From the wake-up to the start of its handler, by lane.",
                do="Workers are full: more of them, or a larger WORKER_COUNT if the provider can take it.",
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
            Words(
                title="Burn rate: acceptance",
                means="How many times faster than allowed requests fail with 5xx. At 1 the budget lasts 30 days, at "
                "14.4 two of them.",
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
            Words(
                title="Burn rate: settling",
                means="How many times faster than allowed payments take longer than 15 s, or end with a human.",
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
            Words(
                title="Processes",
                means="1 while Prometheus can read a process, 0 when it died without saying so.",
                do="Its log, and whoever started it. Nothing is lost: its payments are looked up after the lease.",
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

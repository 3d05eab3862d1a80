"""The dashboard of webhooks: are events delivered, to which endpoints not, and do the dispatchers keep up?"""

from __future__ import annotations

from grafana.board import Board, Row
from grafana.overview import JOB
from grafana.panels import AMBER, COLOURS, GREEN, PER_S, RED, PanelText, Query, heat, lines, number
from grafana.promql import increase, quantile, quantiles, rate, ratio

OF = 'job="$job"'
STATES = {"healthy": GREEN, "failing": RED, "disabled": AMBER}
TYPES = {
    "payment.succeeded": COLOURS["success"],
    "payment.failed": COLOURS["failed_final"],
    "payment.retry_scheduled": COLOURS["failed_retryable"],
    "payment.outcome_unknown": COLOURS["unknown"],
    "payment.review_required": COLOURS["needs_review"],
    "payment.action_required": COLOURS["requires_action"],
    "payment.submitted": COLOURS["submitted"],
    "payment.authorized": COLOURS["authorized"],
}
OUTCOMES = {"delivered": GREEN, "timeout": "purple", "connect": RED, "guard": "dark-blue"}

NOW = Row(
    title="Are events delivered?",
    panels=(
        number(
            PanelText(
                title="Delivered",
                means="Requests to endpoints that were answered 2xx, per second.",
                do="0 while payments settle and accounts have endpoints: see the panels beside this.",
            ),
            PER_S,
            Query(rate("okane_webhook_requests_total", f'{OF},outcome="delivered"')),
        ),
        number(
            PanelText(
                title="Time to deliver, p99",
                means="From a payment's change to the 2xx of the endpoint, retries included.",
                do="Compare with the duration of requests: if that is short, endpoints fail and are retried, or dispatchers "
                "are behind.",
            ),
            "s",
            Query(quantile(0.99, "okane_webhook_delivery_seconds", OF)),
            red=60,
            amber=5,
        ),
        number(
            PanelText(
                title="Oldest event of healthy endpoints",
                means="Age of the oldest event that a healthy endpoint has not been sent yet.",
                do="Dispatchers do not keep up: their CPU, a low `rate_limit` or `max_in_flight` of an endpoint, or a slow "
                "receiver. `okane webhooks ls` names the endpoint.",
            ),
            "s",
            Query(f'max(okane_webhook_oldest_seconds{{{OF},state="healthy"}})'),
            red=300,
            amber=30,
        ),
        number(
            PanelText(
                title="Answered 2xx",
                means="Share of the requests to endpoints that were answered 2xx.",
                do="See the outcomes below. The events are kept and sent again; the client has to repair its receiver.",
            ),
            "percentunit",
            Query(ratio("okane_webhook_requests_total", f'{OF},outcome="delivered"', OF)),
            red=0.5,
            amber=0.95,
            red_below=True,
        ),
        number(
            PanelText(
                title="Failing endpoints",
                means="Enabled endpoints without a 2xx since their last failure began.",
                do="`okane webhooks ls` has their last errors. After five days they are disabled; nothing is lost meanwhile.",
            ),
            "short",
            Query(f'max(okane_webhook_endpoints{{{OF},state="failing"}})'),
            red=10,
            amber=1,
        ),
        number(
            PanelText(
                title="Without a dispatcher",
                means="Enabled endpoints that no dispatcher has leased.",
                do="No `okane dispatch` runs, or it cannot reach Postgres. Start one: every endpoint resumes at its place.",
            ),
            "short",
            Query(f"max(okane_webhook_unowned_endpoints{{{OF}}})"),
            red=1,
        ),
    ),
)

ENDPOINTS = Row(
    title="Endpoints",
    panels=(
        lines(
            PanelText(
                title="Endpoints by state",
                means="Endpoints that are healthy, failing, or disabled: by the client, by 410, or after five days.",
                do="Many fail at once: our network, DNS or a proxy rather than their receivers.",
            ),
            "short",
            Query(f"max by (state) (okane_webhook_endpoints{{{OF}}})", "{{state}}"),
            colours=STATES,
        ),
        lines(
            PanelText(
                title="Backlog",
                means="Events that endpoints have not received yet, by state; of each endpoint at most 10,000 count.",
                do="healthy rises: dispatchers do not keep up. failing or disabled: a receiver is away, its events wait.",
            ),
            "short",
            Query(f"max by (state) (okane_webhook_backlog_events{{{OF}}})", "{{state}}"),
            colours=STATES,
        ),
        lines(
            PanelText(
                title="Oldest event",
                means="Age of the oldest event that was not sent yet, by the state of its endpoint.",
                do="healthy: as for the panel at the top. Others: until the retention is used, nothing is lost.",
            ),
            "s",
            Query(f"max by (state) (okane_webhook_oldest_seconds{{{OF}}})", "{{state}}"),
            colours=STATES,
        ),
        lines(
            PanelText(
                title="Failing for",
                means="Time since the first failure of the endpoint that has failed for longest.",
                do="Inform the client: at five days the endpoint is disabled. `okane webhooks ls` has the error.",
            ),
            "s",
            Query(f"max(okane_webhook_failing_seconds{{{OF}}})", "longest"),
            red=3_600,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Retention used",
                means="Share of the retention, by age or by size, that the endpoint furthest behind has used.",
                do="At 100 % its oldest events are dropped undelivered. Enable or delete it, or raise OKANE_WEBHOOK_KEEP or "
                "OKANE_WEBHOOK_MAX_BYTES.",
            ),
            "percentunit",
            Query(f"max(okane_webhook_retention_used_ratio{{{OF}}})", "used"),
            red=0.9,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Size of the log",
                means="Bytes of the events and their deliveries in Postgres, with indexes.",
                do="It grows without end: `OKANE_WEBHOOK_MAX_BYTES` bounds it. Table partitions are dropped whole.",
            ),
            "bytes",
            Query(f"max(okane_webhook_log_bytes{{{OF}}})", "log"),
        ),
    ),
)

REQUESTS = Row(
    title="Requests",
    panels=(
        lines(
            PanelText(
                title="Requests by outcome",
                means="Requests to endpoints per second: 2xx, the class of another status, or the part that failed.",
                do="guard: an address that OKANE_WEBHOOK_ALLOW does not allow. dns, tls, connect of all endpoints: our side. "
                "Otherwise the receivers.",
            ),
            "reqps",
            Query(rate("okane_webhook_requests_total", OF, "outcome"), "{{outcome}}"),
            colours=OUTCOMES,
            stacked=True,
        ),
        lines(
            PanelText(
                title="Duration of requests",
                means="p50 and p99 of requests to endpoints, connecting included. The time-out is 15 s.",
                do="A slow receiver fills its own places only; others are not delayed.",
            ),
            "s",
            *quantiles("okane_webhook_request_seconds", OF),
            red=15,
        ),
        lines(
            PanelText(
                title="Time to deliver",
                means="p50 and p99 from a payment's change to the 2xx of an endpoint, retries included.",
                do="p50 rises: dispatchers, Postgres or sequencing. p99 alone: receivers that fail and are retried.",
            ),
            "s",
            *quantiles("okane_webhook_delivery_seconds", OF),
            red=60,
        ),
        heat(
            PanelText(
                title="Time to deliver, all",
                means="The same as a heat map: each band above the first is one delay of the retries.",
                do="The lowest band rises: everything is late. Upper bands grow: one or more endpoints fail.",
            ),
            "s",
            Query(rate("okane_webhook_delivery_seconds_bucket", OF, "le"), "{{le}}"),
            width=6,
        ),
        lines(
            PanelText(
                title="Repeats",
                means="Requests per second for an event that the endpoint may have received before, by reason.",
                do="takeover: a dispatcher died. retry: an endpoint fails. reconnect: it closes kept connections early.",
            ),
            "reqps",
            Query(rate("okane_webhook_repeats_total", OF, "why"), "{{why}}"),
            width=6,
        ),
        lines(
            PanelText(
                title="Given up",
                means="Deliveries given up after 76 hours of attempts, or because their events left the retention.",
                do="`okane webhooks deliveries` lists them. When the receiver works: `okane webhooks recover`.",
            ),
            "short",
            Query(increase("okane_webhook_given_up_total", OF), "given up"),
            red=1,
            to_red=True,
            width=6,
        ),
        lines(
            PanelText(
                title="Connections",
                means="Requests per second on a new connection, and on a kept one.",
                do="Mostly new: receivers close after each answer. Their proxies should keep connections for a minute.",
            ),
            "reqps",
            Query(rate("okane_webhook_connections_total", OF, "kind"), "{{kind}}"),
            width=6,
        ),
    ),
)

DISPATCHERS = Row(
    title="Sequencing and dispatchers",
    panels=(
        lines(
            PanelText(
                title="Events sequenced",
                means="Events that got their place in the log, per second, by type; of accounts with endpoints only.",
                do="0 while the outbox grows: no dispatcher and no worker runs, or Postgres is away.",
            ),
            PER_S,
            Query(rate("okane_webhook_events_sequenced_total", OF, "type"), "{{type}}"),
            stacked=True,
            colours=TYPES,
        ),
        lines(
            PanelText(
                title="Time to a place in the log",
                means="p50 and p99 over the runs of the sequencer, of the oldest change in each run.",
                do="Near 1 s: only workers sequence, no dispatcher runs. Above: Postgres, or an import that holds a lock.",
            ),
            "s",
            *quantiles("okane_webhook_sequence_lag_seconds", OF),
            red=5,
        ),
        lines(
            PanelText(
                title="Outbox",
                means="Changes without a place in the log.",
                do="It grows: as for the events sequenced.",
            ),
            "short",
            Query(f"max(okane_webhook_outbox_changes{{{OF}}})", "changes"),
        ),
        lines(
            PanelText(
                title="Oldest change without a place",
                means="Age of the oldest change in the outbox: near 0 while anything sequences.",
                do="Start a dispatcher or a worker. If they run, their logs have the error of Postgres.",
            ),
            "s",
            Query(f"max(okane_webhook_outbox_oldest_seconds{{{OF}}})", "oldest"),
            red=60,
            to_red=True,
            width=6,
        ),
        lines(
            PanelText(
                title="Leased endpoint queues",
                means="Endpoint queues by dispatcher and state. Dispatchers share them evenly.",
                do="One dispatcher has none: it cannot write to Postgres, or there are fewer endpoints than dispatchers.",
            ),
            "short",
            Query(
                f"sum by (process, instance, state) (okane_webhook_queues{{{OF}}})",
                "{{process}} {{instance}} {{state}}",
            ),
            width=6,
        ),
        lines(
            PanelText(
                title="In flight",
                means="Requests to endpoints that each dispatcher waits for right now; at most 1,000.",
                do="Near 1,000: slow receivers. Start another dispatcher.",
            ),
            "short",
            Query(f"sum by (process, instance) (okane_webhook_in_flight{{{OF}}})", "{{process}} {{instance}}"),
            red=1_000,
            width=6,
        ),
        lines(
            PanelText(
                title="Queues taken over",
                means="Endpoint queues whose dispatcher died or was stopped, taken over by another.",
                do="Find out what killed it: memory, a crash loop, a lost machine. Its requests in flight are repeated.",
            ),
            "short",
            Query(increase("okane_webhook_takeovers_total", OF), "taken over"),
            red=1,
            to_red=True,
            width=6,
        ),
    ),
)

WEBHOOKS = Board(
    uid="okane-webhooks",
    title="okane / Webhooks",
    description="Events and their delivery to the endpoints of clients: delays, backlogs, failing endpoints, dispatchers.",
    variables=(JOB,),
    rows=(NOW, ENDPOINTS, REQUESTS, DISPATCHERS),
)

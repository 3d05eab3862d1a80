"""The dashboard of dependencies: Postgres, Redis, and the machines of the processes."""

from __future__ import annotations

from grafana.board import Board, Row
from grafana.overview import JOB
from grafana.panels import PER_S, PanelText, Query, heat, lines, number
from grafana.promql import increase, mean, quantiles, rate

OF = 'job="$job"'

NOW = Row(
    title="Now",
    panels=(
        number(
            PanelText(
                title="Postgres",
                means="1 if the last scrape of the whole system could read from it.",
                do="Nothing is accepted (503); workers hold their payments and resume by themselves. Restore it; "
                "restart no okane process.",
            ),
            "short",
            Query(f'min(okane_dependency_up{{{OF},dependency="postgres"}})'),
            red=1,
            red_below=True,
            words_for={0: "away", 1: "up"},
        ),
        number(
            PanelText(
                title="Redis",
                means="1 if the last scrape of the whole system could read from it.",
                do="Payments are still accepted and settled, straight from Postgres. Fix it during working hours.",
            ),
            "short",
            Query(f'min(okane_dependency_up{{{OF},dependency="redis"}})'),
            red=1,
            red_below=True,
            words_for={0: "away", 1: "up"},
        ),
        number(
            PanelText(
                title="Repairs",
                means="Wake-ups the sweep had to send, in the last ten minutes.",
                do="Wake-ups were lost or spilled: Redis was away, flushed, full or failed over; a lane is at its "
                "limit; a clock is wrong. The payments are repaired already.",
            ),
            "short",
            Query(increase("okane_sweep_repairs_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            PanelText(
                title="Not enqueued",
                means="New payments for which Redis took no wake-up, in the last ten minutes.",
                do="Redis is away, slow, or a lane is at OKANE_MAX_STREAM_LENGTH. The sweep sends their wake-ups.",
            ),
            "short",
            Query(increase("okane_payments_not_enqueued_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            PanelText(
                title="Run without Redis",
                means="Payments run straight from Postgres, in the last ten minutes.",
                do="Redis is away for the workers. No payment waits for it.",
            ),
            "short",
            Query(increase("okane_direct_runs_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            PanelText(
                title="Busiest connection",
                means="Share of time that the busiest connection waits for Postgres. Each kind of statement has "
                "one connection in a process; callers share its round trips.",
                do="At 1 that statement is at its limit in that process: Postgres is slow, or you need another "
                "process.",
            ),
            "percentunit",
            Query(f"max({rate('okane_store_round_trip_seconds_sum', OF, 'instance', 'statement')})"),
            red=0.9,
            amber=0.7,
        ),
    ),
)

POSTGRES = Row(
    title="Postgres",
    panels=(
        lines(
            PanelText(
                title="Duration of a round trip",
                means="p50 and p99 by statement. accept, claim and settle include the commit.",
                do="All statements: the server, its disk (fsync), or a synchronous standby. One: a lock, see "
                "pg_stat_activity.",
            ),
            "s",
            *quantiles("okane_store_round_trip_seconds", OF, "statement"),
            red=0.25,
        ),
        lines(
            PanelText(
                title="How busy the connections are",
                means="Share of time that each connection waits for Postgres, by process and statement; each kind of "
                "statement has one connection.",
                do="Near 1: callers wait for each other. Postgres is slow, or you need another process.",
            ),
            "percentunit",
            Query(
                rate("okane_store_round_trip_seconds_sum", OF, "process", "instance", "statement"),
                "{{process}} {{instance}} {{statement}}",
            ),
            red=0.9,
        ),
        lines(
            PanelText(
                title="Callers per round trip",
                means="Mean number of payments that shared a statement and its commit. At most 256.",
                do="At 256: Postgres is the limit now.",
            ),
            "short",
            Query(
                mean("okane_store_batch_size", OF, "statement"),
                "{{statement}}",
            ),
            red=200,
        ),
    ),
)

REDIS = Row(
    title="Redis",
    panels=(
        lines(
            PanelText(
                title="Duration of a round trip",
                means="p50 and p99 of publishing and acking.",
                do="Redis (SLOWLOG, fsync of the AOF, swap), the network, or our own CPU.",
            ),
            "s",
            *quantiles("okane_round_trip_seconds", OF, "step"),
            red=0.25,
        ),
        lines(
            PanelText(
                title="Dependencies up",
                means="1 if the last scrape of the whole system could read from it.",
                do="As for the two panels at the top: Postgres is needed at once, Redis is not.",
            ),
            "short",
            Query(f"min by (dependency) (okane_dependency_up{{{OF}}})", "{{dependency}}"),
        ),
        lines(
            PanelText(
                title="Repairs",
                means="Wake-ups sent by the sweep, payments run without Redis, and new payments without a wake-up; "
                "per second.",
                do="As for the panels at the top. All three: Redis was away.",
            ),
            PER_S,
            Query(
                rate("okane_sweep_repairs_total", OF, "lane"),
                "sent again {{lane}}",
            ),
            Query(rate("okane_direct_runs_total", OF), "run without Redis"),
            Query(rate("okane_payments_not_enqueued_total", OF), "not enqueued"),
        ),
    ),
)

PROCESSES = Row(
    title="Our processes",
    panels=(
        lines(
            PanelText(
                title="CPU",
                means="Cores used by each process. Python uses one at most.",
                do="Near 1: that process is at its limit. Start more: `--processes`.",
            ),
            "short",
            Query(
                rate("process_cpu_seconds_total", OF, "process", "instance"),
                "{{process}} {{instance}}",
            ),
            red=0.9,
        ),
        lines(
            PanelText(
                title="Memory",
                means="Resident memory of each process.",
                do="If it rises without end, report it. If it rises with a backlog, it falls again.",
            ),
            "bytes",
            Query(
                f"max by (process, instance) (process_resident_memory_bytes{{{OF}}})",
                "{{process}} {{instance}}",
            ),
        ),
        lines(
            PanelText(
                title="Open files",
                means="Share of the files each process may open.",
                do="Clients that do not close, or a low limit (`ulimit -n`): connections are refused at the limit.",
            ),
            "percentunit",
            Query(
                f"max by (process, instance) (process_open_fds{{{OF}}} / process_max_fds{{{OF}}})",
                "{{process}} {{instance}}",
            ),
            red=0.8,
        ),
        lines(
            PanelText(
                title="Clients of the API",
                means="Open connections by process.",
                do="At OKANE_MAX_CONNECTIONS new ones are refused: start API processes, or find a client that leaks.",
            ),
            "short",
            Query(f"sum by (process, instance) (okane_http_connections{{{OF}}})", "{{process}} {{instance}}"),
        ),
        lines(
            PanelText(
                title="Refused before any route",
                means="Bytes that were not an HTTP request, and requests that were too slow, per second, by reason.",
                do="A broken client, a scanner, or slow networks. None of it became a payment.",
            ),
            "reqps",
            Query(
                rate("okane_http_requests_refused_total", OF, "reason"),
                "{{reason}}",
            ),
        ),
        heat(
            PanelText(
                title="Time to answer",
                means="All requests of the API, as a heat map.",
                do="A second band far above the first: Postgres, for some statements.",
            ),
            "s",
            Query(rate("okane_http_request_seconds_bucket", OF, "le"), "{{le}}", exemplars=True),
            width=8,
        ),
    ),
)

DEPENDENCIES = Board(
    uid="okane-dependencies",
    title="okane / Dependencies",
    description="Postgres and Redis, measured by okane: round trips, how busy the connections are, and repairs.",
    variables=(JOB,),
    rows=(
        NOW,
        POSTGRES,
        REDIS,
        PROCESSES,
    ),
)

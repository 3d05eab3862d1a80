"""What okane stands on: Postgres, Redis, and the processes' own machines."""

from __future__ import annotations

from grafana.board import Board, Row
from grafana.overview import JOB
from grafana.panels import PER_S, Query, Words, heat, lines, number
from grafana.promql import grown, mean, quantiles, rate

OF = 'job="$job"'

NOW = Row(
    title="Now",
    panels=(
        number(
            Words(
                title="Postgres",
                means="1 if the last scrape of the whole system could read from it.",
                do="Nothing is accepted (503), workers hold what they have and go on by themselves. Bring it back; "
                "restart nothing of ours.",
            ),
            "short",
            Query(f'min(okane_dependency_up{{{OF},dependency="postgres"}})'),
            red=1,
            red_below=True,
            words_for={0: "away", 1: "up"},
        ),
        number(
            Words(
                title="Redis",
                means="1 if the last scrape of the whole system could read from it.",
                do="Payments are accepted and settled all the same, straight from Postgres. Mend it in daylight.",
            ),
            "short",
            Query(f'min(okane_dependency_up{{{OF},dependency="redis"}})'),
            red=1,
            red_below=True,
            words_for={0: "away", 1: "up"},
        ),
        number(
            Words(
                title="Repairs",
                means="Wake-ups the sweep had to send, in the last ten minutes.",
                do="Wake-ups were lost or spilled: Redis was away, flushed, full or failed over; a lane is at its "
                "limit; a clock is off. The payments themselves are being repaired.",
            ),
            "short",
            Query(grown("okane_sweep_repairs_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            Words(
                title="Not enqueued",
                means="New payments for which Redis took no wake-up, in the last ten minutes.",
                do="Redis is away, slow, or a lane is at OKANE_MAX_STREAM_LENGTH. The sweep sees to them.",
            ),
            "short",
            Query(grown("okane_payments_not_enqueued_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            Words(
                title="Run without Redis",
                means="Payments run straight from Postgres, in the last ten minutes.",
                do="Redis is away for the workers. No payment waits for it.",
            ),
            "short",
            Query(grown("okane_direct_runs_total", OF, over="[10m]")),
            red=1,
            whole=True,
        ),
        number(
            Words(
                title="Busiest connection",
                means="Share of its time that the busiest connection to Postgres waits for it. Each kind of statement has "
                "one connection in a process; callers share its round trips.",
                do="At 1 that statement is at its limit in that process: Postgres is slow, or it is time for another "
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
            Words(
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
            Words(
                title="How busy the connections are",
                means="Share of their time that they wait for Postgres, by process and statement: our pool, one "
                "connection a kind of statement.",
                do="Near 1: callers wait for each other. Postgres is slow, or another process is needed.",
            ),
            "percentunit",
            Query(
                rate("okane_store_round_trip_seconds_sum", OF, "process", "instance", "statement"),
                "{{process}} {{instance}} {{statement}}",
            ),
            red=0.9,
        ),
        lines(
            Words(
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
            Words(
                title="Duration of a round trip",
                means="p50 and p99 of publishing and settling.",
                do="Redis (SLOWLOG, fsync of the AOF, swap), the network, or our own CPU.",
            ),
            "s",
            *quantiles("okane_round_trip_seconds", OF, "step"),
            red=0.25,
        ),
        lines(
            Words(
                title="Dependencies up",
                means="1 while the whole system could be read from it.",
                do="As for the two panels at the top: Postgres is needed at once, Redis is not.",
            ),
            "short",
            Query(f"min by (dependency) (okane_dependency_up{{{OF}}})", "{{dependency}}"),
        ),
        lines(
            Words(
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
            Words(
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
            Words(
                title="Memory",
                means="Resident memory of each process.",
                do="It rises without end: report it. It rises with a backlog: it falls again.",
            ),
            "bytes",
            Query(
                f"max by (process, instance) (process_resident_memory_bytes{{{OF}}})",
                "{{process}} {{instance}}",
            ),
        ),
        lines(
            Words(
                title="Open files",
                means="Share of the files each process may open.",
                do="Clients that do not close, or a low limit (`ulimit -n`): connections are turned away at the limit.",
            ),
            "percentunit",
            Query(
                f"max by (process, instance) (process_open_fds{{{OF}}} / process_max_fds{{{OF}}})",
                "{{process}} {{instance}}",
            ),
            red=0.8,
        ),
        lines(
            Words(
                title="Clients of the API",
                means="Open connections by process.",
                do="At OKANE_MAX_CONNECTIONS new ones are turned away: more API processes, or a client that leaks.",
            ),
            "short",
            Query(f"sum by (process, instance) (okane_http_connections{{{OF}}})", "{{process}} {{instance}}"),
        ),
        lines(
            Words(
                title="Refused before any route",
                means="What came to the API and was no request, or not one in time, per second, by reason.",
                do="A broken client, a scanner, or slow networks. Nothing of it became a payment.",
            ),
            "reqps",
            Query(
                rate("okane_http_requests_refused_total", OF, "reason"),
                "{{reason}}",
            ),
        ),
        heat(
            Words(
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
    description="Postgres and Redis as okane sees them: round trips, how busy the connections are, and what was repaired.",
    variables=(JOB,),
    rows=(
        NOW,
        POSTGRES,
        REDIS,
        PROCESSES,
    ),
)

"""The dashboard of a consumer group on Redis Streams: lanes, consumers, take-overs, retries, dead letters.

It needs no payments: with the prefix `streams` it shows any queue made with the library.
"""

from __future__ import annotations

from grafana.board import Board, Row, Variable
from grafana.panels import PanelText, Query, heat, lines, number, rows
from grafana.promql import increase, mean, quantile, quantiles, rate

P = "${prefix}"
OF = 'job="$job",stream="$stream"'
LANES = f'{OF},lane=~"$lane"'
GROUP = f'{LANES},group="$group"'
CONSUMERS = f'{GROUP},consumer=~"$consumer"'

NOW = Row(
    title="Now",
    panels=(
        number(
            PanelText(
                title="Waiting",
                means="Entries that no consumer has read yet: the length of the lanes without the pending entries.",
                do="More comes in than goes out. If consumers read (idle, below), start more workers.",
            ),
            "short",
            Query(f"sum(max by (lane) ({P}_stream_depth{{{LANES}}}))"),
            red=10_000,
            amber=1_000,
        ),
        number(
            PanelText(
                title="Oldest entry",
                means="Age of the oldest entry in any lane, read or not.",
                do="Waiting is high as well: too few workers. Waiting is low: a consumer holds it; find the "
                "one with pending entries and a long idle time.",
            ),
            "s",
            Query(f"max({P}_stream_oldest_entry_seconds{{{LANES}}})"),
            red=60,
            amber=15,
        ),
        number(
            PanelText(
                title="Pending",
                means="Entries read and not acked: in hand, or left behind by a consumer that died.",
                do="Compare with In hand, below: the difference belongs to dead consumers, and is taken over "
                "after the lease.",
            ),
            "short",
            Query(f"sum(max by (lane) ({P}_stream_group_messages_pending{{{GROUP}}}))"),
            red=10_000,
        ),
        number(
            PanelText(
                title="Delayed",
                means="Messages that wait for their next attempt.",
                do="Many attempts fail: check the reasons of the handlers, and the dependency that they call.",
            ),
            "short",
            Query(f"max({P}_delayed_messages{{{OF}}})"),
            red=10_000,
            amber=1_000,
        ),
        number(
            PanelText(
                title="Delayed, overdue",
                means="How late the first delayed message is. Near 0 while any process promotes.",
                do="No process promotes: no worker runs, or none can write to Redis (full, read-only).",
            ),
            "s",
            Query(f"max({P}_delayed_overdue_seconds{{{OF}}})"),
            red=30,
            amber=5,
        ),
        number(
            PanelText(
                title="Dead letters",
                means="Messages given up, until replayed or purged.",
                do="Read the reasons (`okane dead ls`), fix the cause, replay.",
            ),
            "short",
            Query(f"max({P}_dead_letter_messages{{{OF}}})"),
            red=1,
        ),
    ),
)

BY_LANE = Row(
    title="Lanes",
    panels=(
        lines(
            PanelText(
                title="Depth",
                means="Entries waiting to be read, by lane.",
                do="A line that only rises: too few workers for what comes in. One lane alone: its weight, or slow "
                "messages in it.",
            ),
            "short",
            Query(f"max by (lane) ({P}_stream_depth{{{LANES}}})", "{{lane}}"),
        ),
        lines(
            PanelText(
                title="Lag",
                means="The server's own count of unread entries (XINFO GROUPS). Absent where the server has none: after "
                "a deletion in the middle, and before Redis 7.",
                do="As for the depth. Lag without depth: entries were deleted unread.",
            ),
            "short",
            Query(f"max by (lane) ({P}_stream_group_lag{{{GROUP}}})", "{{lane}}"),
        ),
        lines(
            PanelText(
                title="Pending",
                means="Entries read and not acked, by lane.",
                do="Flat and high without throughput: handlers hang. A step that stays: a consumer died; it goes "
                "down after the lease.",
            ),
            "short",
            Query(f"max by (lane) ({P}_stream_group_messages_pending{{{GROUP}}})", "{{lane}}"),
        ),
        lines(
            PanelText(
                title="Oldest entry",
                means="Age of the oldest entry in the lane.",
                do="It rises by a second each second: no consumer acks that entry. Find its holder among the consumers.",
            ),
            "s",
            Query(f"max by (lane) ({P}_stream_oldest_entry_seconds{{{LANES}}})", "{{lane}}"),
            red=60,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Waited, p50 and p99",
                means="From the entry's creation to the start of its handler, by the server's clock.",
                do="All places are taken: more workers, or more concurrency.",
            ),
            "s",
            *quantiles(f"{P}_message_wait_seconds", LANES, "lane"),
            red=10,
        ),
        lines(
            PanelText(
                title="In and out",
                means="Messages published (above) and settled by outcome, per second.",
                do="Published above settled: the depth rises. Much retry: the handlers' dependency.",
            ),
            "mps",
            Query(rate(f"{P}_messages_published_total", LANES), "published"),
            Query(
                rate(f"{P}_messages_settled_total", LANES, "outcome"),
                "{{outcome}}",
            ),
        ),
    ),
)

COMING_BACK = Row(
    title="What comes back, and what is given up",
    panels=(
        lines(
            PanelText(
                title="Take-overs",
                means="Messages taken over from silent consumers (XAUTOCLAIM), per second; leases that a consumer "
                "lost during its work; and the outcomes that were dropped for that.",
                do="Once after a kill: expected. Repeatedly: workers die (memory, crash loop) or are stalled for "
                "longer than the lease (starved CPU, suspended machine).",
            ),
            "mps",
            Query(
                rate(f"{P}_messages_reclaimed_total", LANES, "lane"),
                "taken over {{lane}}",
            ),
            Query(rate(f"{P}_leases_lost_total", OF), "lost while working"),
            Query(rate(f"{P}_stale_outcomes_total", LANES), "outcomes dropped"),
        ),
        lines(
            PanelText(
                title="Retries",
                means="Messages sent to the delayed set, and back from it into their lanes, per second.",
                do="Only the first line: no process promotes. Both high: the handlers' dependency fails.",
            ),
            "mps",
            Query(rate(f"{P}_messages_settled_total", f'{LANES},outcome="retry"'), "put off"),
            Query(rate(f"{P}_messages_promoted_total", OF), "back in their lanes"),
        ),
        lines(
            PanelText(
                title="Delayed and dead",
                means="Messages waiting for their next attempt, and messages given up.",
                do="Dead letters: read the reasons, fix the cause, replay.",
            ),
            "short",
            Query(f"max({P}_delayed_messages{{{OF}}})", "delayed"),
            Query(f"max({P}_dead_letter_messages{{{OF}}})", "dead"),
        ),
        lines(
            PanelText(
                title="Handler errors",
                means="Handlers that raised or returned no outcome, per second: bugs. Their messages are retried.",
                do="The log has the traceback (`handler failed for message`).",
            ),
            "mps",
            Query(rate(f"{P}_handler_errors_total", LANES, "lane"), "{{lane}}"),
            red=0.001,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Groups made again",
                means="Times the consumer group had vanished: the server was flushed, replaced, or lost its data.",
                do="Find the cause. The entries are lost from Redis and must be "
                "published again (in okane the sweep does that).",
            ),
            "short",
            Query(increase(f"{P}_groups_recreated_total", OF), "made again"),
            red=1,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Leases renewed",
                means="Leases lengthened for messages that take long, per second.",
                do="Rising with the same load: handlers become slower; see their time below.",
            ),
            "ops",
            Query(rate(f"{P}_leases_renewed_total", OF), "renewed"),
        ),
    ),
)

BY_CONSUMER = Row(
    title="Consumers",
    panels=(
        rows(
            PanelText(
                title="Consumers",
                means="Each consumer of the group: its pending entries, and the time since it last tried to read.",
                do="Pending and idle for longer than the lease: dead. Its messages are taken over; the empty consumer "
                "is removed after ten minutes. Pending for long without idling: its handlers hang.",
            ),
            (
                "Pending",
                "short",
                Query(
                    f"sum by (consumer) (max by (consumer, lane) ({P}_stream_group_consumer_messages_pending{{{CONSUMERS}}}))"
                ),
            ),
            ("Idle", "s", Query(f"min by (consumer) ({P}_stream_group_consumer_idle_seconds{{{CONSUMERS}}})")),
            by="consumer",
        ),
        lines(
            PanelText(
                title="Idle",
                means="Time since the consumer last tried to read any lane.",
                do="A line that rises by a second each second: that consumer is dead or stuck. The line of a worker "
                "without a free place rises too, until one is free.",
            ),
            "s",
            Query(f"min by (consumer) ({P}_stream_group_consumer_idle_seconds{{{CONSUMERS}}})", "{{consumer}}"),
            red=60,
            to_red=True,
        ),
        lines(
            PanelText(
                title="Pending",
                means="Entries that the consumer has read and not acked, from Redis.",
                do="As for the table: a consumer whose line stays while its idle time rises is dead.",
            ),
            "short",
            Query(
                f"sum by (consumer) (max by (consumer, lane) ({P}_stream_group_consumer_messages_pending{{{CONSUMERS}}}))",
                "{{consumer}}",
            ),
        ),
        lines(
            PanelText(
                title="In hand",
                means="Messages that each process reports in hand. Entries that are pending in Redis but in no hand "
                "belong to a dead consumer.",
                do="At its limit (WORKER_COUNT) all the time: start workers, if the service they call can take more.",
            ),
            "short",
            Query(f"sum by (process, instance) ({P}_in_flight_messages{{{OF}}})", "{{process}} {{instance}}"),
        ),
        lines(
            PanelText(
                title="Consumers in the group",
                means="Consumers in Redis; dead ones stay until they are empty and ten minutes idle.",
                do="0: no worker has ever read, or the group is new. Growing without end: workers without a stable "
                "--name that restart again and again.",
            ),
            "short",
            Query(f"max by (lane) ({P}_stream_group_consumers{{{GROUP}}})", "{{lane}}"),
        ),
        lines(
            PanelText(
                title="Entries in the stream",
                means="Length of the lanes: waiting and pending together. Acked entries are deleted.",
                do="At OKANE_MAX_STREAM_LENGTH publishing is refused; payments wait in Postgres then.",
            ),
            "short",
            Query(f"max by (lane) ({P}_stream_length{{{LANES}}})", "{{lane}}"),
            stacked=True,
        ),
        heat(
            PanelText(
                title="Time in the handler",
                means="How long handlers take, as a heat map.",
                do="A second band far above the first: time-outs of the service that they call.",
            ),
            "s",
            Query(rate(f"{P}_handler_seconds_bucket", LANES, "le"), "{{le}}", exemplars=True),
            width=8,
        ),
    ),
)

ROUND_TRIPS = Row(
    title="Round trips to Redis",
    panels=(
        lines(
            PanelText(
                title="Messages per round trip",
                means="Mean size of the batches that are published, read and acked.",
                do="Near 1 under high load: callers do not run at the same time. Rising with the load is right: "
                "callers share round trips.",
            ),
            "short",
            Query(
                mean(f"{P}_batch_size", OF, "step"),
                "{{step}}",
            ),
        ),
        heat(
            PanelText(
                title="Messages per read",
                means="Sizes of the batches that were read, as a heat map.",
                do="Only large ones: a backlog. Only 1: no backlog, or many workers for little work.",
            ),
            "short",
            Query(rate(f"{P}_batch_size_bucket", f'{OF},step="read"', "le"), "{{le}}"),
            width=8,
        ),
        lines(
            PanelText(
                title="Duration of a round trip, p99",
                means="Publishing and acking, measured by the processes: network, server, and their own event loop.",
                do="All processes: Redis (SLOWLOG, fsync of the AOF, swap). One: its CPU.",
            ),
            "s",
            Query(
                quantile(0.99, f"{P}_round_trip_seconds", OF, "step"),
                "{{step}}",
            ),
            red=0.25,
        ),
    ),
)

STREAMS = Board(
    uid="okane-streams",
    title="okane / Streams and consumers",
    description="One Redis Streams queue: lanes, consumer group, consumers, retries, dead letters. From top to bottom: "
    "waiting, in hand, coming back, given up.",
    variables=(
        Variable(name="prefix", label="Prefix", values="okane,streams"),
        Variable(name="job", label="Job", values=f"label_values({P}_stream_length, job)"),
        Variable(name="stream", label="Stream", values=f'label_values({P}_stream_length{{job="$job"}}, stream)'),
        Variable(name="group", label="Group", values=f"label_values({P}_stream_group_consumers{{{OF}}}, group)"),
        Variable(name="lane", label="Lane", values=f"label_values({P}_stream_length{{{OF}}}, lane)", several=True),
        Variable(
            name="consumer",
            label="Consumer",
            values=f'label_values({P}_stream_group_consumer_idle_seconds{{{OF},group="$group"}}, consumer)',
            several=True,
        ),
    ),
    rows=(
        NOW,
        BY_LANE,
        COMING_BACK,
        BY_CONSUMER,
        ROUND_TRIPS,
    ),
)

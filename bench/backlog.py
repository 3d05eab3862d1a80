"""Drain a backlog and look for slow Redis commands: `python -m bench.backlog [--payments 1000000]`.

The rows are written as acceptance leaves them, the wake-ups as far as the lanes take them (OKANE_MAX_STREAM_LENGTH, 100,000
each); the sweep has to send the rest, as it would after a long outage of the workers. Then workers drain it all. The
slowest command is that of Redis's SLOWLOG (from a millisecond on). Everything else is kept off one core,
as on a machine where Redis has its own: else the time would be that of waiting for a core.
"""

from __future__ import annotations

import argparse

from bench import database, redis_state
from bench.drain import drain
from bench.machine import describe
from bench.progress import counting, say
from bench.redis_state import SLOW_MS
from bench.system import provider, running

LANE_LIMIT = 100_000  # the default of OKANE_MAX_STREAM_LENGTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args()
    print(describe())
    with running(core_for_redis=True) as system, provider(system) as charged:
        url = system.new_database()
        database.fill(url, 0)
        say(f"writing {options.payments:,} payments")
        done = drain(
            system,
            charged,
            url,
            payments=options.payments,
            workers=options.workers,
            lane_limit=LANE_LIMIT,
            on_progress=counting(options.payments),
        )
        slow, busiest = redis_state.slow_commands(system), redis_state.command_times(system)
    print(f"{options.payments:,} payments, {done.entries:,} of them with a wake-up: {done.per_s:,.0f} settled/s")
    slowest_ms = max((one.worst_ms[0] for one in slow), default=0.0)
    print(f"the slowest Redis command took {slowest_ms:.1f} ms; of {SLOW_MS:.0f} ms or more were")
    for one in slow:
        print(f"  {one}")
    print("where Redis' time went")
    for command in busiest:
        print(f"  {command}")


if __name__ == "__main__":
    main()

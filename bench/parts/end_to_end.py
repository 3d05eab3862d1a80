"""Parts b and d, from the same runs: how fast payments go all the way, and what one of them costs.

Systems need different numbers of clients to be busy: a fast one waits for few clients, a slow one only queues many. So each
is measured with few and with many, and the better result counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import costs, database, flow, load, redis_state
from bench.flow import Flow
from bench.options import PARTS, BenchOptions
from bench.progress import say
from bench.report import Collector, Part
from bench.system import OKANE, TEXTBOOK, Contender, Provider, System, mock_provider, provider

CONTENDERS = (TEXTBOOK, OKANE)
LATENCIES_MS = (0, 20)
MANY = 4  # times as many clients
PER_S = "okane, provider 0 ms"
AT_REST = "payment at rest in Postgres"
VS_TEXTBOOK = "okane / textbook, provider 0 ms"
HALF_PEAK_P99 = "okane at half its peak, accepted to settled, p99"
CPU_VS_TEXTBOOK = "CPU of okane / textbook"


def measure(system: System, options: BenchOptions) -> Sequence[Part]:
    """Return the requested ones of the two parts."""
    speed, cost = Collector("b", PARTS["b"]), Collector("d", PARTS["d"])
    latencies_ms = LATENCIES_MS if "b" in options.letters else LATENCIES_MS[:1]
    few = options.connections
    counts = (few, MANY * few) if "b" in options.letters else (few,)
    if "b" in options.letters:
        _measure_providers(system, speed)
    for latency_ms in latencies_ms:
        with provider(system, latency_ms=latency_ms) as charged:
            for number in range(options.rounds):
                for contender in CONTENDERS:
                    say(f"b, d: {contender.name}, provider {latency_ms} ms, round {number + 1}")
                    seen = {count: _measure_one(system, contender, charged, options, clients=count) for count in counts}
                    _add_speed(speed, f"{contender.name}, provider {latency_ms} ms", seen)
                    if latency_ms == 0:
                        _add_cost(cost, contender.name, seen[few])
            if "b" in options.letters and latency_ms == 0:
                _measure_half_peak(system, charged, speed, options)
        name = f"provider {latency_ms} ms"
        for each in (name, *(f"{name}, {count} clients" for count in counts)):
            speed.ratio(f"okane / textbook, {each}", of=f"okane, {each}", to=f"textbook, {each}")
    cost.ratio(CPU_VS_TEXTBOOK, of="okane, all but the provider", to="textbook, all but the provider")
    cost.add("stream entry in Redis", "bytes", redis_state.bytes_per_entry(system))
    cost.add(AT_REST, "bytes", _bytes_at_rest(system))
    return [part for part in (speed.part(), cost.part()) if part.letter in options.letters]


def _measure_one(
    system: System, contender: Contender, charged: Provider, options: BenchOptions, *, clients: int
) -> Flow:
    return flow.measure(
        system, contender, charged, workers=options.workers, connections=clients, seconds=options.seconds
    )


def _bytes_at_rest(system: System) -> float:
    url = system.new_database()
    size = database.bytes_per_payment(url)
    system.drop_database(url)
    return size


def _measure_providers(system: System, speed: Collector) -> None:
    """Measure the capacity of a provider: at high rates the mock would be the limit."""
    for name, one in (("lean provider alone", provider(system)), ("mock provider alone", mock_provider(system))):
        with one as charged:
            speed.add(name, "charges/s", load.charges_per_s(charged.port, seconds=1))
    speed.note("the provider is the lean one of bench/; `okane provider` keeps a durable journal and is slower")


def _measure_half_peak(system: System, charged: Provider, speed: Collector, options: BenchOptions) -> None:
    rate = speed.medians()[PER_S] / 2
    for number in range(options.rounds):
        say(f"b: okane at {rate:,.0f}/s, round {number + 1}")
        _, ages = flow.drip(system, OKANE, charged, workers=options.workers, rate=rate, seconds=options.seconds)
        speed.add(HALF_PEAK_P99, "ms", ages.p99_ms)


def _add_speed(found: Collector, name: str, seen: Mapping[int, Flow]) -> None:
    """Return the results for each number of clients."""
    found.add(name, "payments/s", max(one.per_s for one in seen.values()))
    for count, one in seen.items():
        found.add(f"{name}, {count} clients", "payments/s", one.per_s)
        found.add(f"{name}, {count} clients, settled p50", "ms", one.ages.p50_ms)
        found.add(f"{name}, {count} clients, settled p99", "ms", one.ages.p99_ms)


def _add_cost(found: Collector, name: str, seen: Flow) -> None:
    for kind, cpu_us in seen.cpu_us.items():
        found.add(f"{name}, {kind}", "us CPU", cpu_us)
    found.add(f"{name}, all but the provider", "us CPU", seen.ours_us)
    found.add(f"{name}, write-ahead log", "bytes", seen.log_bytes)
    for kind in costs.OURS:
        found.add(f"{name}, {kind} memory", "MB", seen.memory_mb[kind])

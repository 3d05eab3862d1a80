"""docs/metrics.md, from the registries that the processes serve: names, kinds, labels and meanings."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from okane.api.http.server import ConnectionMetrics
from okane.metrics import OkaneMetrics, SystemMetrics
from streams.prometheus import PrometheusMetrics

HEAD = """\
# Metrics

Made from the code by `python -m grafana`; a test holds the two together.

Every process serves its own metrics on a port of its own (`OKANE_METRICS_PORT`, or the first free one from 9101 up),
on loopback unless `OKANE_METRICS_HOST` says otherwise, and is listed under the address that
`OKANE_METRICS_ADVERTISE` gives it, if that is set: in a pod, its own.

| path | tells | costs |
|---|---|---|
| `/metrics` | this process | nothing but itself: from memory |
| `/metrics/system` | the whole system, from Postgres and Redis | four queries and one round trip to Redis |
| `/http_sd` | where every process is, for Prometheus' `http_sd_configs` | one round trip to Redis |
| `/healthz` | that this process lives | nothing |

What describes the whole system is served under a path of its own so that it is not there as often as there are
processes: Prometheus asks one of them for it, which `/http_sd` chooses. A process that ends leaves the list; one that
dies stays on it for 15 minutes, and its `up` is 0. While Redis is away the list cannot be read, and Prometheus keeps
the one it has.

```yaml
scrape_configs:
  - job_name: okane
    http_sd_configs:
      - url: http://127.0.0.1:9101/http_sd   # of any process that lives long: an API
```

Without `http_sd_configs`, scrape `/metrics` of every process, and `/metrics/system` of one.

[grafana/](../grafana/README.md) has dashboards, recording rules and alerts over these.

What can be relied on: names, labels and units change only with a note in the changelog. Units are seconds and bytes,
counters end in `_total`. Metrics that [redis_exporter](https://github.com/oliver006/redis_exporter) has too are named
as it names them. No label holds an id, a key, or anything else a client may choose; `consumer` holds the names of
workers, `code` at most 40 codes of a provider. Counters with a closed set of labels show 0 from the start. The target
labels `role` (api, worker, system) and `process` (its name) come from `/http_sd`.
"""


def text() -> str:
    """The page."""
    process, system = registries()
    return "\n".join(
        [
            HEAD,
            "## Of one process: `/metrics`",
            "",
            *_table(process),
            "",
            "## Of the whole system: `/metrics/system`",
            "",
            *_table(system),
            "",
        ]
    )


def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """What a process registers, as `okane.app.resources` does: its own, and of the whole system."""
    process, system = OkaneMetrics(CollectorRegistry()), SystemMetrics(CollectorRegistry())
    PrometheusMetrics(prefix="okane", registry=process.registry, shared=system.registry)
    ConnectionMetrics(process.registry)
    return process.registry, system.registry


def _table(registry: CollectorRegistry) -> Iterable[str]:
    yield "| metric | kind | labels | means |"
    yield "|---|---|---|---|"
    for name, kind, labels, meaning in sorted(families(registry)):
        yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"


def families(registry: CollectorRegistry) -> Iterable[tuple[str, str, tuple[str, ...], str]]:
    """Name, kind, labels and meaning of each metric."""
    for collector in registry._collector_to_names:
        # A family that has no samples yet does not tell its labels: its collector does.
        labels = getattr(collector, "_labelnames", ()) or getattr(collector, "_labels", ())
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, tuple(labels), family.documentation.rstrip(".")

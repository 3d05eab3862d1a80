"""docs/metrics.md, generated from the registries of the processes: names, kinds, labels and meanings."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from okane.api.http.connection_limits import ConnectionMetrics
from okane.app.operation_gauges import OperationGauges
from okane.app.system_metrics import SystemMetrics
from okane.metrics import OkaneMetrics
from okane.webhooks.metrics import DispatcherMetrics
from okane.worker.operation_metrics import OperationMetrics
from streams.prometheus import PrometheusMetrics

HEAD = """\
# Metrics

Generated from the code by `python -m grafana`; a test checks that it is up to date.

Every process serves its own metrics on a port of its own (`OKANE_METRICS_PORT`, or the first free one from 9101 up),
on loopback unless `OKANE_METRICS_HOST` names other addresses. `OKANE_METRICS_ADVERTISE` sets the address under which
it is listed: in a pod, that of the pod.

| path | content | cost |
|---|---|---|
| `/metrics` | this process | none: from memory |
| `/metrics/system` | the whole system, from Postgres and Redis | up to ten queries and two round trips to Redis |
| `/http_sd` | the addresses of all processes, for Prometheus' `http_sd_configs` | one round trip to Redis |
| `/healthz` | 200 while this process lives | none |

The metrics of the whole system have a path of their own, so that they do not exist once per process: Prometheus
scrapes them from one process, which `/http_sd` chooses. A process that ends leaves the list. A process that dies stays
on it for 15 minutes, and its `up` is 0. While Redis is away the list cannot be read, and Prometheus keeps the last one.

```yaml
scrape_configs:
  - job_name: okane
    http_sd_configs:
      - url: http://127.0.0.1:9101/http_sd   # of any long-lived process: an API
```

Without `http_sd_configs`, scrape `/metrics` of every process, and `/metrics/system` of one.

[grafana/](../grafana/README.md) has dashboards, recording rules and alerts for them.

**Stability:** names, labels and units change only with a note in the changelog. Units are seconds and bytes, and
counters end in `_total`. Metrics that [redis_exporter](https://github.com/oliver006/redis_exporter) has too have the
same names. No label holds an id, a key, or any other value that a client chooses; `consumer` has the names of
workers, `code` at most 40 codes of a provider. Counters with a closed set of labels show 0 from the start. The target
labels `role` (api, worker, dispatcher, console, system) and `process` (its name) come from `/http_sd`.
"""


def text() -> str:
    """Return the page."""
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
    """Return the registries of a process, made as in `okane.app.resources`: its own, and that of the whole system."""
    process, system = OkaneMetrics(CollectorRegistry()), SystemMetrics(CollectorRegistry())
    PrometheusMetrics(prefix="okane", registry=process.registry, shared=system.registry)
    ConnectionMetrics(process.registry)
    DispatcherMetrics(process.registry)
    OperationMetrics(process.registry)
    OperationGauges(system.registry)
    return process.registry, system.registry


def _table(registry: CollectorRegistry) -> Iterable[str]:
    yield "| metric | kind | labels | means |"
    yield "|---|---|---|---|"
    for name, kind, labels, meaning in sorted(families(registry)):
        yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"


def families(registry: CollectorRegistry) -> Iterable[tuple[str, str, tuple[str, ...], str]]:
    """Yield name, kind, labels and meaning of each metric."""
    for collector in registry._collector_to_names:
        # A family without samples has no labels yet: its collector has them.
        labels = getattr(collector, "_labelnames", ()) or getattr(collector, "_labels", ())
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, tuple(labels), family.documentation.rstrip(".")

"""A real Prometheus reads OpenMetrics, and keeps the trace of each latency as an exemplar."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.flow.system import System, running
from tests.grafana.boards import FILES, panels, substitute
from tests.grafana.prometheus import PROGRAM, choose_variables, scraping, until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def system(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[System]:
    async with running(tmp_path / "system", database_url, redis_url) as one:
        # No collector listens there: exemplars do not need one.
        one.env |= {"OKANE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        yield one


@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian: apt-get install prometheus)")
async def test_every_panel_that_asks_for_traces_gets_the_payments(system: System, tmp_path: Path) -> None:
    await system.start("w1", provider=("--unavailable", "0", "--decline", "0"))
    async with (
        scraping(tmp_path / "prometheus", sd=f"{system.metrics_url('api')}/http_sd") as prometheus,
        aiohttp.ClientSession(headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}) as client,
        client.post(f"{system.url}/v1/payments", json={"amount": 440, "idempotency_key": "a"}) as response,
    ):
        assert response.status == 202
        assert await system.settled([(await response.json())["payment"]["id"]]) == Counter(success=1)

        async def scraped() -> bool:
            """The worker and the whole system were scraped after the payment was settled."""
            settled, whole = "okane_payment_settle_seconds_count", "okane_stream_group_consumer_messages_pending"
            return bool(await prometheus.now(settled)) and bool(await prometheus.now(whole))

        await until(scraped)
        for file in FILES:
            values = await choose_variables(prometheus, file)
            for query in [query for panel in panels(file) for query in panel.exemplars]:

                async def named(query: str = substitute(query, values)) -> bool:
                    """The trace of the payment is among the exemplars of the query."""
                    found = await prometheus.get("query_exemplars", query=query, start="0", end="9999999999")
                    return TRACE in [one["labels"]["trace_id"] for series in found for one in series["exemplars"]]

                await until(named)

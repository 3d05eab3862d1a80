"""A real Prometheus for a test: scrapes twice a second, with our rules, on loopback."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from okane.local.okane_process import OkaneProcess, answers_http
from okane.local.ports import free_port
from tests.grafana.boards import GRAFANA, Panel, substitute, variables

PROGRAM = shutil.which("prometheus")
OVER = "10s"  # the range of the tests' rates: Grafana takes four times the scrape interval or more

_CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: okane
    scrape_interval: 500ms
    http_sd_configs: [{{url: {sd}, refresh_interval: 1s}}]
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and those of its values that are numbers."""

    labels: Mapping[str, str]
    values: Sequence[float]


class Prometheus:
    """A client of the HTTP API of one server."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.since_s = time.time()
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer. Raises AssertionError for an error of Prometheus."""
        async with self._http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = json.loads(await response.text())
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    async def over_time(self, query: str) -> list[Series]:
        """Return the series of a panel over the time since the start."""
        until = time.time()
        data = await self.get("query_range", query=query, start=f"{self.since_s}", end=f"{until}", step="1")
        found = [Series(one["metric"], [float(value) for _, value in one["values"]]) for one in data["result"]]
        real = [Series(one.labels, [value for value in one.values if math.isfinite(value)]) for one in found]
        return [one for one in real if one.values]

    async def now(self, query: str) -> list[float]:
        """Return the values of the series at this moment, highest first."""
        found = (await self.get("query", query=query))["result"]
        return sorted((float(one["value"][1]) for one in found), reverse=True)

    async def values_of(self, query: str, chosen: Mapping[str, str]) -> Sequence[str]:
        """Return the values of a variable: `label_values(metric{…}, label)`."""
        selector, _, label = substitute(query, chosen).removeprefix("label_values(").removesuffix(")").rpartition(",")
        names: list[str] = await self.get(f"label/{label.strip()}/values", **{"match[]": selector.strip()})
        return names


async def choose_variables(prometheus: Prometheus, file: Path) -> Mapping[str, str]:
    """Return the variables of a dashboard as Grafana opens it: the first value of each, or all of them."""
    values = {"__rate_interval": OVER}
    for name, variable in variables(file).items():
        match variable["type"]:
            case "datasource":
                continue
            case "custom":
                values[name] = variable["query"].split(",")[0]
            case "query":
                found = await prometheus.values_of(variable["query"]["query"], values)
                assert found, f"{file.stem}: nothing to choose for {name}"
                values[name] = variable["allValue"] if variable["includeAll"] else found[0]
    return values


async def query_panel(prometheus: Prometheus, panel: Panel, values: Mapping[str, str]) -> list[list[Series]]:
    """Return the series of each query of a panel."""
    return [await prometheus.over_time(substitute(query, values)) for query in panel.queries]


async def until(condition: Callable[[], Awaitable[object]], *, within_s: float = 60) -> None:
    """Return when `condition` returns a true value. Repeats it, because it may become true at the next scrape only."""
    last: object = None
    try:
        async with asyncio.timeout(within_s):
            while not (last := await condition()):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"never came true: {condition.__doc__ or condition}, last {last}") from None


@asynccontextmanager
async def scraping(folder: Path, *, sd: str) -> AsyncIterator[Prometheus]:
    """Run a Prometheus inside the block that takes its targets from `sd`."""
    assert PROGRAM is not None
    folder.mkdir()
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(_CONFIG.format(rules=GRAFANA / "prometheus" / "rules.yml", sd=sd))
    process = OkaneProcess(
        name="prometheus",
        program=(PROGRAM,),
        arguments=[
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--enable-feature=exemplar-storage",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        env={},
        log=folder / "prometheus.log",
        probe=answers_http(port, "/-/ready"),
        drain_s=10,
    )
    process.launch()  # in this thread: the process ends with the thread that started it
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(process.ready):
                process.check_alive()
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as http:
            yield Prometheus(f"http://127.0.0.1:{port}", http)
    finally:
        await asyncio.to_thread(process.stop)

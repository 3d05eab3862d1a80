"""Two APIs behind a proxy that keeps connections to them: restarted in turn, they answer every request."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from okane.local.okane_process import answers_http
from okane.local.ports import free_port
from tests.forked_process import ForkedOkaneProcess

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
RESTARTS = int(os.environ.get("OKANE_ROLLING_RESTARTS", "20"))
CLIENTS = 8

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian: apt install nginx-light)"),
    pytest.mark.timeout(300),
]

# Where one takes no connection, nginx asks the other. A POST that was sent it does not repeat: it may have been done.
CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream apis {{ server 127.0.0.1:{first} max_fails=0; server 127.0.0.1:{second} max_fails=0; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://apis; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@pytest.fixture
def apis(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[dict[int, ForkedOkaneProcess]]:
    """Two API processes over the same servers, by their ports."""
    found: dict[int, ForkedOkaneProcess] = {}
    while len(found) < 2:
        port = free_port(besides=found)
        env = {
            "OKANE_DATABASE_URL": database_url,
            "OKANE_REDIS_URL": redis_url,
            "OKANE_STREAM": f"restarts-{tmp_path.name}-{os.getpid()}",
            "OKANE_PORT": str(port),
            "OKANE_AUTH": "none",
            "OKANE_ALLOWED_HOSTS": "apis",  # as nginx calls them
            "OKANE_LAME_DUCK": "300ms",
        }
        found[port] = ForkedOkaneProcess(
            name=f"api-{port}",
            arguments=["api"],
            env=env,
            log=tmp_path / f"api-{port}.log",
            probe=answers_http(port, "/readyz"),
            drain_s=10,
        )
    yield found
    for process in found.values():
        process.stop()


@pytest.fixture
async def proxy_url(tmp_path: Path, apis: dict[int, ForkedOkaneProcess]) -> AsyncIterator[str]:
    """A real nginx in front of both."""
    assert NGINX is not None
    first, second = apis
    port = free_port(besides=apis)
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(folder=tmp_path, first=first, second=second, port=port))
    with (tmp_path / "nginx.log").open("w") as log:
        nginx = subprocess.Popen([NGINX, "-p", str(tmp_path), "-e", "stderr", "-c", str(config)], stderr=log)
    yield f"http://127.0.0.1:{port}"
    nginx.terminate()
    nginx.wait(10)


async def ready(process: ForkedOkaneProcess) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(process.ready):
            process.check_alive()
            await asyncio.sleep(0.02)


async def test_rolling_restarts_behind_a_keep_alive_proxy_fail_no_request(
    apis: dict[int, ForkedOkaneProcess], proxy_url: str, tmp_path: Path
) -> None:
    over, seen = asyncio.Event(), Counter[int | str]()

    async def pay(http: aiohttp.ClientSession, client: int) -> None:
        number, dice = 0, random.Random(client)
        while not over.is_set():
            number += 1
            body = {"amount": 440, "idempotency_key": f"{client}-{number}"}
            try:
                async with http.post(f"{proxy_url}/v1/payments", json=body) as response:
                    seen[response.status] += 1
            except aiohttp.ClientError as error:
                seen[repr(error)] += 1
            await asyncio.sleep(dice.choice((0.0, 0.02, 0.1)))

    for process in apis.values():
        process.launch()
    await asyncio.gather(*map(ready, apis.values()))
    async with aiohttp.ClientSession() as http:
        paying = [asyncio.create_task(pay(http, client)) for client in range(CLIENTS)]
        for number in range(RESTARTS):
            process = list(apis.values())[number % 2]
            await asyncio.to_thread(process.stop)
            process.launch()
            await ready(process)
        over.set()
        await asyncio.gather(*paying)
    said = (tmp_path / "nginx.log").read_text().splitlines()  # where a connection is refused, it asks the other API
    assert set(seen) == {202}, (seen, [line for line in said if "Connection refused" not in line])
    assert seen[202] > 20 * RESTARTS

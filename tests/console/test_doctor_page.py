"""The doctor in the console: its pace, and settings without secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from okane.config import Settings
from okane.console.doctor import INTERVAL_S, CheckedConsole, Doctor, shown_settings
from okane.lanes import payments_stream
from okane.monitoring.doctor import diagnose
from okane.monitoring.findings import Check
from okane.redis.presence import Presence
from streams import connect
from tests.console.served_console import SECRET, Console, text_of


async def test_the_doctor_runs_once_in_ten_seconds_for_all_tabs() -> None:
    now_s, runs = 0.0, 0

    async def diagnose() -> Sequence[Check]:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return [Check("redis", "ok", "here")]

    doctor = Doctor(diagnose, now=lambda: datetime.now(UTC), clock=lambda: now_s)
    await asyncio.gather(doctor.current(), doctor.current())
    now_s = INTERVAL_S - 1
    await doctor.current()
    assert runs == 1
    now_s = INTERVAL_S
    await doctor.current()
    assert runs == 2


def test_no_secret_is_among_the_settings() -> None:
    settings = Settings(
        _env_file=None,
        database_url="postgresql://okane:hidden-1@db.example/okane?password=hidden-2",
        redis_url="redis://okane:hidden-3@redis.example/0",
        provider_base_url="https://hidden-4:hidden-5@provider.example/v1",
        api_key="hidden-6",
        webhook_master="hidden-7" * 8,
        console_secret="hidden-8" * 8,
    )
    shown = dict(shown_settings(settings))
    assert "hidden" not in str(shown)
    assert shown["database_url"] == "postgresql://okane@db.example/okane"
    assert shown["provider_base_url"] == "https://provider.example/v1"
    assert (shown["webhook_master"], shown["otlp_endpoint"]) == ("set", "not set")
    assert set(shown) == set(Settings.model_fields)


async def healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nok\n")
    writer.close()


async def test_apis_are_found_on_the_list_of_processes(redis_url: str) -> None:
    """They may run on other machines than the console."""
    settings = Settings(_env_file=None, stream=f"test-{uuid4()}")
    checked = CheckedConsole(settings, database="postgresql://127.0.0.1:1/x", redis=redis_url)

    async def api_checks() -> list[Check]:
        return [check for check in await diagnose(checked) if check.name == "api"]

    server = await asyncio.start_server(healthy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connect(redis_url) as redis:
        presence = Presence(redis, payments_stream(settings.stream))
        [none] = await api_checks()
        assert (none.state, none.advice) == ("fail", "start it: okane api")
        for address in ("127.0.0.1:1", f"127.0.0.1:{port}"):
            await presence.announce(address, role="api", name="api")
        found = {check.found: check.state for check in await api_checks()}
        assert found.pop(f"its metrics are at 127.0.0.1:{port}") == "ok"
        assert list(found.values()) == ["warn"]


async def test_a_gateway_that_only_workers_reach_is_no_failure(database_url: str, redis_url: str) -> None:
    settings = Settings(_env_file=None, provider_base_url="http://127.0.0.1:1")
    checked = CheckedConsole(settings, database=database_url, redis=redis_url)
    [found] = [check for check in await diagnose(checked) if check.name == "provider"]
    assert found.state == "warn"


async def test_the_page_has_the_checks_and_no_secret(console: Console) -> None:
    answer = await (await console.logged_in()).get("/doctor")
    text = text_of(answer.text)
    assert "postgres version" in text
    assert "redis eviction" in text
    assert SECRET not in answer.text

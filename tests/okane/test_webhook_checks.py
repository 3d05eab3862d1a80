"""The checks of `okane doctor` about webhooks, and its run beside endpoints without a dispatcher."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from okane.cli import app
from okane.config import Settings
from okane.monitoring import webhook_checks
from okane.monitoring.findings import Check
from okane.store.webhook_overview import EndpointState, WebhookOverview

MASTER = "m" * 32
ENDPOINT = """
INSERT INTO webhook_endpoints (id, account_id, url, types, api_version, starts_after)
VALUES ('0198b2f0-0000-7000-8000-000000000000', 'a', 'https://example.com/hook', '{payment.*}', '2026-12-01', 0);
INSERT INTO webhook_accounts VALUES ('a');
INSERT INTO webhook_queues (endpoint_id, done_to) VALUES ('0198b2f0-0000-7000-8000-000000000000', 0)
"""


def overview(*, healthy: int = 2, unowned: int = 0, failing: int = 0, disabled: int = 0) -> WebhookOverview:
    states = {
        "healthy": EndpointState(endpoints=healthy, unowned=unowned),
        "failing": EndpointState(endpoints=failing, backlog=1_234),
        "disabled": EndpointState(endpoints=disabled),
    }
    return WebhookOverview(used=True, states=states)


def states(checks: Sequence[Check]) -> list[tuple[str, str]]:
    assert all(bool(check.advice) == (check.state != "ok") for check in checks)
    return [(check.name, check.state) for check in checks]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (overview(), [("dispatcher", "ok")]),
        (overview(unowned=1), [("dispatcher", "warn")]),
        (overview(unowned=2), [("dispatcher", "fail")]),
        (overview(healthy=0, disabled=1), []),
    ],
)
def test_enabled_endpoints_need_a_dispatcher(found: WebhookOverview, expected: list[tuple[str, str]]) -> None:
    assert states(webhook_checks.dispatcher(found)) == expected


def test_endpoints_in_trouble_are_a_warning() -> None:
    assert states(webhook_checks.endpoints(overview())) == []
    both = webhook_checks.endpoints(overview(failing=1, disabled=3))
    assert states(both) == [("failing endpoints", "warn"), ("disabled endpoints", "warn")]
    assert both[0].found == "1, with 1,234 events in their backlog"


@pytest.mark.parametrize(("skew_s", "state"), [(0, "ok"), (-59, "ok"), (61, "fail"), (-400, "fail")])
def test_receivers_refuse_what_a_wrong_clock_signs(skew_s: int, state: str) -> None:
    assert states([webhook_checks.clock(timedelta(seconds=skew_s))]) == [("webhook clock", state)]


@pytest.mark.parametrize(
    ("master", "used", "running_up", "expected"),
    [
        (None, False, False, []),
        (None, True, True, []),
        (None, True, False, [("webhook master", "fail")]),
        (MASTER, True, False, [("webhook master", "ok")]),
        (f"{MASTER},{'n' * 32}", False, False, [("webhook master", "ok")]),
        ("short", False, False, [("webhook master", "fail")]),
    ],
)
def test_endpoints_need_a_master(
    master: str | None, used: bool, running_up: bool, expected: list[tuple[str, str]]
) -> None:
    settings = Settings(_env_file=None, webhook_master=master)
    checks = webhook_checks.master(settings, used=used, running_up=running_up)
    assert states(checks) == expected
    assert not any(secret in str(checks) for secret in (MASTER, "short"))


def test_networks_beyond_this_machine_are_a_warning() -> None:
    loopback = [ip_network("127.0.0.0/8"), ip_network("::1")]
    assert states(webhook_checks.allowed(loopback)) == []
    [check] = webhook_checks.allowed([*loopback, ip_network("10.8.0.0/16")])
    assert (check.state, check.found) == ("warn", "http and private addresses in 10.8.0.0/16")


async def doctor(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Run `okane doctor`; return what it found about webhooks."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1", "PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", "--json"])
    checks: list[dict[str, Any]] = json.loads(result.output)["checks"]
    return [check for check in checks if check["name"].startswith(("webhook", "dispatcher"))]


async def test_the_doctor_has_nothing_about_webhooks_without_an_endpoint(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await doctor(database_url, monkeypatch, tmp_path) == []


async def test_the_doctor_fails_endpoints_without_a_dispatcher_and_without_a_master(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ENDPOINT)
    found = await doctor(database_url, monkeypatch, tmp_path)
    assert {check["name"]: check["state"] for check in found} == {
        "webhook master": "fail",
        "webhook clock": "ok",
        "dispatcher": "fail",
    }

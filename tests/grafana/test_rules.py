"""Recording rules and alerts: promtool tests each of them, and each alert links to a section of the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from grafana.metrics_page import HEAD, registries
from tests.grafana.boards import GRAFANA

RULES = GRAFANA / "prometheus" / "rules.yml"
TESTS = GRAFANA / "prometheus" / "rules_test.yml"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def promtool(*arguments: str, given: bytes = b"") -> str:
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, timeout=60, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


@needs_promtool
def test_the_rules_and_the_configuration_are_valid() -> None:
    promtool("check", "config", str(GRAFANA / "prometheus" / "prometheus.yml"))
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_each_alert_rings_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(TESTS))


@needs_promtool
@pytest.mark.parametrize("registry", registries(), ids=["process", "system"])
def test_metrics_follow_the_naming_rules_of_prometheus(registry: object) -> None:
    promtool("check", "metrics", given=generate_latest(registry))  # type: ignore[arg-type]  # parametrize hands out object


def test_the_alert_on_dead_processes_is_about_processes_of_every_role() -> None:
    app = "\n".join(path.read_text() for path in (GRAFANA.parent / "okane" / "app").glob("*.py"))
    roles = set(re.findall(r'serving_metrics\(\s*settings, resources, role="(\w+)"', app))
    [watched] = re.findall(r'role=~"(\S+)"\} == 0', RULES.read_text())
    assert set(watched.split("|")) == roles
    [named] = re.findall(r"`role` \(([^)]*)\)", HEAD)
    assert set(named.split(", ")) == roles | {"system"}


def test_there_are_alerts() -> None:
    assert len(ALERTS) == len(set(ALERTS)) > 15


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_and_has_a_runbook(alert: str) -> None:
    assert re.search(rf'alertname="{alert}"|alertname: {alert}$', TESTS.read_text(), re.MULTILINE)
    [own] = [rule for rule in RULES.read_text().split("- alert: ") if rule.startswith(f"{alert}\n")]
    page, anchor = re.findall(r"runbook_url: (\S+)#(\S+)", own)[0]
    sections = re.findall(r"^## (\w+)$", (GRAFANA.parent / page).read_text(), re.MULTILINE)
    assert anchor in [section.lower() for section in sections]
    assert anchor == alert.lower()
    assert re.search(r"severity: (page|ticket)", own)

"""Logs of a real process: JSON lines, ids bound, no secrets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from okane import logs
logs.configure(level={level!r}, format_={format!r}, process="worker-1")
log = structlog.get_logger("okane.test")
log.debug("hidden")
with structlog.contextvars.bound_contextvars(payment_id="p-1", request_id="r-1"):
    log.warning("trouble", reason="cannot reach postgresql://okane:hunter2@h/d", url="redis://:hunter2@h:1/0")
logging.getLogger("streams").warning("%s at redis://user:hunter2@h", "trouble")
logging.getLogger("aiohttp.access").info("GET /")
try:
    raise ValueError("connect to postgresql://okane:hunter2@h failed")
except ValueError:
    log.exception("failed")
"""


def run(level: str = "info", format_: str = "auto") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, format=format_)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_away_from_a_terminal_every_line_is_json() -> None:
    lines = [json.loads(line) for line in run()]
    assert [line["event"] for line in lines] == ["trouble", "trouble at redis://user:***@h", "failed"]
    assert all(line["process"] == "worker-1" and line["level"] and line["timestamp"].endswith("Z") for line in lines)


def test_ids_are_bound() -> None:
    first = json.loads(run()[0])
    assert (first["payment_id"], first["request_id"]) == ("p-1", "r-1")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_password_gets_into_a_log(format_: str) -> None:
    assert "hunter2" not in "\n".join(run(format_=format_))


def test_the_level_hides_what_is_below() -> None:
    assert not any("hidden" in line for line in run())
    assert any("hidden" in line for line in run(level="debug"))

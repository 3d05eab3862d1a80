"""Logs of a real process: JSON lines, ids bound, no secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from okane import logs
from okane.api_key import Mode, NewKey

PROGRAM = """
import logging, structlog
from okane import logs
logs.configure(level={level!r}, format_={format!r}, process="worker-1")
log = structlog.get_logger("okane.test")
log.debug("hidden")
dsn, query = "host=h password='a \\'hunter2' user=okane", "redis://h:1/0?password=hunter2&db=1"
with structlog.contextvars.bound_contextvars(payment_id="p-1", request_id="r-1"):
    log.warning("trouble", reason="cannot reach postgresql://okane:hunter2@h/d", url="redis://:hunter2@h:1/0")
    log.warning("more trouble", dsn=dsn, nested={{"urls": [query, "redis://:hun@hunter2@h"]}}, error=ValueError(dsn))
logging.getLogger("streams").warning("%s at redis://user:hunter2@h", "trouble")
logging.getLogger("aiohttp.access").info("GET /")
logs.REQUEST_ID.set("r-2")
logging.getLogger("streams").warning("asked for")
logs.name_traces(lambda: "t-1")
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
    events = ["trouble", "more trouble", "trouble at redis://user:***@h", "asked for", "failed"]
    assert [line["event"] for line in lines] == events
    assert all(line["process"] == "worker-1" and line["level"] and line["timestamp"].endswith("Z") for line in lines)


def test_ids_are_bound() -> None:
    lines = {line["event"]: line for line in map(json.loads, run())}
    first = lines["trouble"]
    assert (first["payment_id"], first["request_id"]) == ("p-1", "r-1")
    assert "request_id" not in lines["trouble at redis://user:***@h"]
    assert lines["asked for"]["request_id"] == lines["failed"]["request_id"] == "r-2"  # of the request being answered
    assert ("trace_id" in lines["asked for"], lines["failed"]["trace_id"]) == (False, "t-1")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_password_gets_into_a_log(format_: str) -> None:
    assert "hunter2" not in "\n".join(run(format_=format_))


def test_what_is_no_password_stays_readable() -> None:
    line = json.loads(run()[1])
    assert line["dsn"] == "host=h password=*** user=okane"
    assert line["nested"] == {"urls": ["redis://h:1/0?password=***&db=1", "redis://:***@h"]}
    for text in ("http://127.0.0.1:8080/health", "mail to a@b", "password authentication failed for user 'okane'"):
        assert logs.redacted(text) == text
    assert logs.redacted(None) is None
    assert logs.redacted(4.5) == 4.5


def in_a_url(password: str) -> str:
    return f"postgresql+psycopg://okane:{password.replace(' ', '%20')}@h:5432/d?sslmode=require"


def in_a_query(password: str) -> str:
    return f"redis://h:6379/0?db=0&password={quote(password, safe='@:/')}&name=a@b"


def in_a_connection_string(password: str) -> str:
    return make_conninfo(host="h", password=password, user="okane")


def unquoted_in_a_connection_string(password: str) -> str:
    escaped = re.sub(r"([\\' ])", r"\\\1", password)
    return f"host=h password = {escaped} user=okane"


@given(
    pieces=st.lists(
        st.text(st.sampled_from("@:/?#&=%\\'\" ;,!$^*()[]{}<>|~`+-_.x7ü"), max_size=3), min_size=1, max_size=4
    ),
    shape=st.sampled_from((in_a_url, in_a_query, in_a_connection_string, unquoted_in_a_connection_string)),
    quoted=st.sampled_from(
        (str, repr, json.dumps, lambda text: repr({"dsn": text}), lambda text: repr(json.dumps(text)))
    ),
)
def test_no_part_of_a_password_is_left_whatever_is_in_it(
    pieces: list[str], shape: Callable[[str], str], quoted: Callable[[str], str]
) -> None:
    password = "hunter2".join(["", *pieces, ""])
    text = f"cannot connect with {quoted(shape(password))}: refused"
    assert "hunter2" not in logs.redacted(text), text


@given(password=st.text(st.sampled_from("@:/ \\'\"x"), max_size=4).map(lambda text: f"hunter2{text}hunter2"))
def test_no_part_of_a_password_is_left_where_python_or_json_names_it(password: str) -> None:
    for text in (f"Login(password={password!r})", repr({"password": password}), json.dumps({"sslPassword": password})):
        assert "hunter2" not in logs.redacted(text), text


def test_the_level_hides_what_is_below() -> None:
    assert not any("hidden" in line for line in run())
    assert any("hidden" in line for line in run(level="debug"))


def test_an_api_key_is_named_and_not_told() -> None:
    key = NewKey.make(Mode.LIVE)
    assert logs.redacted(f"refused {key.secret}!") == f"refused {key.prefix}_***!"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key sk_live_51HabcCANARY refused", "key sk_*** refused"),
        ("rk_test_CANARY+/=, next", "rk_***, next"),
        ("[whsec_CANARY]", "[whsec_***]"),
        ("stripe_sk_test_51CANARY", "stripe_sk_***"),
        ("sk_test_abcdefghijkl", "sk_test_abcdefghijkl"),  # the prefix of our own key
        ("sk_test_abcdefghijklCANARY", "sk_***"),
        ("pi_3Nabc_secret_CANARY", "pi_3Nabc_secret_***"),
        ("Authorization: Bearer CANARY.abc-d", "Authorization: Bearer ***"),
        ("{'authorization': 'basic CANARYabc=='}", "{'authorization': 'basic ***'}"),
        ("task_retry at risk_level, disk_full", "task_retry at risk_level, disk_full"),
    ],
)
def test_secrets_of_gateways_are_removed(text: str, left: str) -> None:
    assert logs.redacted(text) == left


def test_a_registered_secret_is_removed_in_every_spelling() -> None:
    logs.register_secret('quo"te/CANARY')
    for text in ('quo"te/CANARY', "https://h/?s=quo%22te%2FCANARY", json.dumps({"s": 'quo"te/CANARY'})):
        assert "CANARY" not in logs.redacted(text)
    logs.register_secret("abc")  # too short: it would be found in other words
    assert logs.redacted("abcdef") == "abcdef"

"""The private attributes of aiohttp that the connections use: a release without one is noticed when the server starts."""

from __future__ import annotations

import json

import pytest
import structlog
from aiohttp import web

from okane.api.http import aiohttp_internals
from okane.api.http.aiohttp_internals import CONNECTION, FAST_PATH, AiohttpConnection
from okane.errors import SetupError
from tests.okane.fast_path import post
from tests.okane.test_fast_path import serving

NAMES = (*CONNECTION, *FAST_PATH)


def test_the_installed_release_has_all_of_them() -> None:
    assert not aiohttp_internals.missing(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_release_without_one_is_found(name: str) -> None:
    moved = type("Moved", (), dict.fromkeys(one for one in NAMES if one != name))
    assert aiohttp_internals.missing(NAMES, moved) == [name]


def test_each_name_of_okanes_is_the_attribute_itself() -> None:
    ours = [value for name, value in vars(AiohttpConnection).items() if not name.startswith("_")]
    theirs = [getattr(web.RequestHandler, name) for name in NAMES]
    assert all(one in theirs for one in ours if one is not AiohttpConnection.resume_when_parsed)


async def test_without_a_slot_of_the_fast_path_aiohttp_answers_and_one_line_warns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aiohttp_internals, "FAST_PATH", (*FAST_PATH, "_moved"))
    with structlog.testing.capture_logs() as lines:
        async with serving(fast=True) as served:
            head, _, body = (await served.ask(post("a"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 202")
    assert json.loads(body.partition(b"HTTP/1.1")[0])["created"]
    assert served.fast_path.taken == 0
    [line] = [line for line in lines if line["log_level"] == "warning"]
    assert (line["event"], line["missing"]) == ("fast_path_off", ["_moved"])


async def test_without_a_slot_of_every_connection_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_internals, "CONNECTION", (*CONNECTION, "_moved"))
    with pytest.raises(SetupError, match=r"aiohttp \S+ has no _moved"):
        async with serving(fast=True):
            pass

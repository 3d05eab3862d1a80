"""The addresses that a host setting binds, over both IP families, and how they are printed."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from pydantic import ValidationError

from okane import binding
from okane.api.http.connection_limits import ConnectionLimits
from okane.api.http.server import serving
from okane.config import Settings
from okane.errors import SetupError
from okane.local.data_folder import DataFolder
from okane.local.options import UpOptions
from okane.local.programs import Programs
from okane.origin_guard import is_loopback
from okane.simulator import app as simulator
from okane.simulator.options import SimulatorOptions

LIMITS = ConnectionLimits(connections=10, head_timeout_s=5.0, keep_alive_timeout_s=5.0, write_timeout_s=5.0)
EVERY_PORT_FREE = UpOptions(port=0, console_port=0, provider_port=0, postgres_port=0, redis_port=0, metrics_port=0)
V4, V6 = "127.0.0.1", "::1"


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without IPv6."""
    make = socket.socket

    def only_ipv4(family: int = -1, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", only_ipv4)
        yield


def bound(text: str, port: int = 0) -> Sequence[str]:
    sockets = binding.bind(text, port)
    addresses = [one.getsockname()[:2] for one in sockets]
    for one in sockets:
        one.close()
    assert len({port for _, port in addresses}) == 1
    return [host for host, _ in addresses]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("[::1]", ["::1"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("::", ["::", "0.0.0.0"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("127.0.0.1,::1", ["127.0.0.1", "::1"]),
        (" [::1] , 127.0.0.2 ", ["::1", "127.0.0.2"]),
        ("localhost,127.0.0.1", ["127.0.0.1", "::1"]),
        ("localhost,127.0.0.3", ["127.0.0.1", "::1", "127.0.0.3"]),
        ("127.0.0.1,0.0.0.0", ["0.0.0.0"]),
        ("0.0.0.0,::1", ["0.0.0.0", "::1"]),
        ("0.0.0.0,::", ["::", "0.0.0.0"]),
        ("::,127.0.0.1,::1", ["::", "0.0.0.0"]),
    ],
)
def test_a_host_setting_binds_its_addresses_at_one_port(text: str, addresses: list[str]) -> None:
    assert sorted(bound(text)) == sorted(addresses)
    assert Settings(_env_file=None, host=text, metrics_host=text).host == binding.checked(text)


@pytest.mark.parametrize(("text", "address"), [("localhost", "127.0.0.1"), ("::", "0.0.0.0")])
def test_where_there_is_no_ipv6_both_families_are_the_other_one(no_ipv6: None, text: str, address: str) -> None:
    assert bound(text) == [address]


@pytest.mark.parametrize("text", ["::1", "127.0.0.1,::1", "localhost,::1"])
def test_an_address_that_is_named_must_be_there(no_ipv6: None, text: str) -> None:
    with pytest.raises(OSError, match=r"Address family not supported.*'\[::1\]:0'"):
        binding.bind(text, 0)


@pytest.mark.parametrize(
    "text", ["", ",", "127.0.0.1,", "http://127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[127.0.0.1]", "::1::", "a b"]
)
def test_a_text_that_is_not_a_host_is_refused_by_settings_and_the_mock_provider(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="host names or addresses"):
        Settings(_env_file=None, host=text)
    with pytest.raises(ValidationError, match="host names or addresses"):
        Settings(_env_file=None, metrics_host=text)
    with pytest.raises(ValueError, match="host must be host names or addresses"):
        SimulatorOptions(journal=tmp_path / "journal.jsonl", host=text)


async def test_the_error_of_a_name_that_does_not_resolve_says_so(free_port: int) -> None:
    with pytest.raises(SetupError, match=f"cannot listen on no-such-host.invalid:{free_port}: .*(known|resolution)"):
        async with serving(web.Application(), "no-such-host.invalid", free_port, limits=LIMITS, drain=timedelta(0)):
            pass


@pytest.mark.parametrize("taken", [V4, V6])
async def test_one_address_that_is_taken_leaves_none_bound(taken: str) -> None:
    [holder] = binding.bind(taken, 0)
    with holder:
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(SetupError) as refused:
            async with serving(web.Application(), "localhost", port, limits=LIMITS, drain=timedelta(0)):
                pass
    assert str(refused.value) == f"cannot listen on {binding.netloc(taken, port)}: Address already in use"
    assert bound("localhost", port) == [V4, V6]


async def test_of_two_processes_that_bind_a_port_at_once_the_second_is_refused(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither listens when the other binds: the kernel refuses the second only when that listens."""

    class Raced(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            other.bind(address)
            other.listen()

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        monkeypatch.setattr("okane.binding.socket.socket", Raced)
        with pytest.raises(SetupError, match=f"cannot listen on {V4}:{free_port}: Address already in use"):
            async with serving(web.Application(), V4, free_port, limits=LIMITS, drain=timedelta(0)):
                pass


@pytest.mark.parametrize(
    ("text", "url_host", "reached"),
    [
        ("::", "[::]", {V4, V6}),
        ("localhost", "127.0.0.1", {V4, V6}),
        ("::1", "[::1]", {V6}),
        ("[::1],127.0.0.1", "[::1]", {V4, V6}),
        ("0.0.0.0", "0.0.0.0", {V4}),
    ],
)
async def test_both_servers_answer_on_every_address_and_print_it_with_brackets(
    text: str, url_host: str, reached: set[str], tmp_path: Path
) -> None:
    options = SimulatorOptions(journal=tmp_path / "journal.jsonl", host=text, port=0)
    api = serving(web.Application(), text, 0, limits=LIMITS, drain=timedelta(0))
    async with simulator.serving(options) as provider_url, api as api_url:
        for url in (provider_url, api_url):
            port = urlsplit(url).port
            assert url == f"http://{url_host}:{port}"
            assert {
                host for host in (V4, V6) if await answers(f"http://{binding.netloc(host, port or 0)}/x")
            } == reached


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", V4),
        ("0.0.0.0", V4),
        ("::", V4),
        ("localhost", V4),
        ("[::1],127.0.0.1", V6),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_okane_up_asks_where_this_machine_is_answered(text: str, host: str, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, host=text, metrics_host=text)
    assert binding.reached_at(text) == host
    if is_loopback(host):
        programs = Programs(settings=settings, options=EVERY_PORT_FREE, folder=DataFolder(tmp_path))
        programs.postgres = programs.redis = None
        endpoints = programs.endpoints()
        for url in (endpoints.api_url, *endpoints.metrics_urls.values()):
            assert urlsplit(url).netloc.startswith(binding.netloc(host, 0).removesuffix("0"))


async def answers(url: str) -> bool:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(url) as response:
                return response.status == 404
        except aiohttp.ClientConnectorError:
            return False

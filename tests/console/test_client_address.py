"""The address, scheme and host of a client, with and without proxies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from okane.console.client_address import Origin, origin_of, rate_limit_name

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def came_from(peer: str, *headers: tuple[str, str]) -> Origin:
    fields = CIMultiDict([("Host", "console.internal"), *headers])
    request = make_mocked_request("GET", "/", headers=fields)
    return origin_of(request.clone(remote=peer), PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # made up by a client
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the first one is made up
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.7, garbage"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:198.51.100.7", [], "198.51.100.7"),
    ],
)
def test_the_address_is_the_last_hop_that_is_no_listed_proxy(peer: str, forwarded: list[str], address: str) -> None:
    assert came_from(peer, *(("X-Forwarded-For", field) for field in forwarded)).address == address


def test_only_a_listed_proxy_names_the_scheme_and_the_host() -> None:
    headers = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "ops.example.com"))
    assert came_from("10.0.0.1", *headers) == Origin("10.0.0.1", is_https=True, host="ops.example.com")
    assert came_from("198.51.100.7", *headers) == Origin("198.51.100.7", is_https=False, host="console.internal")


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("https://ops.example.com", True),
        ("HTTPS://OPS.example.com", True),
        ("http://ops.example.com", False),
        ("https://ops.example.com.evil.example", False),
        ("https://console.internal", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_that_of_the_console_only_if_all_of_it_is(origin: str, *, is_own: bool) -> None:
    here = came_from("10.0.0.1", ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "ops.example.com"))
    assert here.is_own(origin) is is_own


def test_the_addresses_of_one_ipv6_network_are_counted_together() -> None:
    assert rate_limit_name("2001:db8:0:1:aaaa::1") == rate_limit_name("2001:db8:0:1:bbbb::2") == "2001:db8:0:1::/64"
    assert rate_limit_name("198.51.100.7") == "198.51.100.7"
    assert rate_limit_name("unknown") == "unknown"

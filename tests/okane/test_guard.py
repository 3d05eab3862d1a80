"""The guard: which URLs and addresses are called, whatever a resolver answers, and whom a connection reaches."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from okane.http import guarded_url, resolver
from okane.http.connection import BrokenExchange, HttpConnection
from okane.http.guard import Guard
from okane.http.guarded_url import MAX_URL_CHARACTERS, BadUrl, parse_url
from okane.http.pool import AddressRefused
from okane.http.public_addresses import is_public, parse_address
from okane.http.resolver import Resolver
from tests.okane.provider_server import answer, raw_server
from tests.okane.test_connection_pool import LOOPS, run

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:812::200e",
    "::ffff:8.8.8.8",
    "::8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]

# Each with the reason why it is dangerous, by its name.
NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1"],
    "link-local and metadata services": ["169.254.169.254", "169.254.170.2", "fe80::1", "febf::1", "fd00:ec2::254"],
    "metadata services elsewhere": ["192.0.0.192", "100.100.100.200", "168.63.129.16"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "protocols and benchmarks": ["192.0.0.1", "192.0.0.9", "198.18.0.1", "198.19.255.255", "2001:2::1", "2001:10::1"],
    "AS112 and 6to4 relays": ["192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1", "2620:4f:8000::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved and broadcast": ["240.0.0.1", "255.255.255.255", "4000::1", "5f00::1", "e000::1"],
    "site-local": ["fec0::1", "feff::1"],
    "Teredo": ["2001::1", "2001:0:808:808::1"],
    "v4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0.0.0.0"],
    "v4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "v4-compatible": ["::127.0.0.1", "::169.254.169.254", "::10.0.0.1", "::2"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::1", "2002:e000:1::"],
    "ISATAP": ["2a00:1450::5efe:127.0.0.1", "2a00:1450::200:5efe:10.0.0.1"],
    "discard and the 6bone": ["100::1", "3ffe::1"],
}


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_passes(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert is_public(address)
    assert is_public(ip_address(text))  # also without the unwrapping of `parse_address`
    assert Guard().check_url(f"https://{f'[{text}]' if ':' in text else text}/") is None


@pytest.mark.parametrize("text", [text for texts in NOT_PUBLIC.values() for text in texts])
def test_no_other_address_passes_in_a_url_or_from_a_resolver(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not is_public(address)
    assert not is_public(ip_address(text))
    assert "not public" in (Guard().check_url(f"https://{f'[{text}]' if ':' in text else text}/") or "")
    with pytest.raises(AddressRefused, match="not public") as refused:
        asyncio.run(connected(Guard(get_address_info=found(text))))
    assert text not in str(refused.value)


@given(st.ip_addresses())
def test_what_the_standard_library_calls_not_global_never_passes(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    wraps = isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped
        or address.sixtofour
        or address in ip_network("::/96")
        or address in ip_network("64:ff9b::/96")
    )
    if not wraps and (not address.is_global or address.is_multicast):
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_passes_in_a_wrapping_only_if_it_passes_itself(address: ipaddress.IPv4Address) -> None:
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}"):
        assert is_public(ip_address(wrapped)) == is_public(address)
    assert is_public(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80 | 1)) == is_public(address)


# URLs


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("HTTPS://Example.COM./a/b?c=%20d", "example.com", 443, "/a/b?c=%20d"),
        ("https://example.com:8443?x", "example.com", 8443, "/?x"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "/"),
        ("https://faß.de/", "xn--fa-hia.de", 443, "/"),
        ("https://ⓔxample.com/", "example.com", 443, "/"),
        ("https://_hooks.example.com/", "_hooks.example.com", 443, "/"),
        ("https://[2606:4700:4700:0::1111]:8443/", "2606:4700:4700::1111", 8443, "/"),
        ("https://[::ffff:8.8.8.8]/", "8.8.8.8", 443, "/"),
        ("https://8.8.8.8./", "8.8.8.8", 443, "/"),
    ],
)
def test_a_url_is_called_at_its_canonical_host(url: str, host: str, port: int, path: str) -> None:
    assert Guard().check_url(url) is None
    parsed = parse_url(url)
    assert (parsed.host, parsed.port, parsed.path) == (host, port, path)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com:443/", "example.com"),
        ("https://example.com:80/", "example.com:80"),
        ("http://example.com/", "example.com"),
        ("https://[2606::1]/", "[2606::1]"),
        ("https://[2606::1]:8443/", "[2606::1]:8443"),
    ],
)
def test_the_host_field_has_the_port_unless_it_is_the_default(url: str, authority: str) -> None:
    assert parse_url(url).authority == authority


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "absolute URL"),
        ("example.com/hook", "absolute URL"),
        ("//example.com/hook", "absolute URL"),
        ("ftp://example.com/", "absolute URL"),
        ("file:///etc/passwd", "absolute URL"),
        ("gopher://example.com/", "absolute URL"),
        (" https://example.com/", "absolute URL"),
        ("http://example.com/", "https://"),
        ("http://8.8.8.8/", "https://"),
        ("https://user:secret@example.com/", "user or a password"),
        ("https://example.com@127.0.0.1/", "user or a password"),
        ("https://example.com\\@127.0.0.1/", "user or a password"),
        ("https://example.com/#fragment", "fragment"),
        ("https://example.com/a b", "%XX"),
        ("https://example.com/\r\nX: y", "%XX"),
        ("https://example.com/ü", "%XX"),
        ("https://example.com/%zz", "%XX"),
        ("https://example.com/\\..", "%XX"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:1000000/", "port"),
        ("https://example.com:/", "host"),
        ("https://example.com:٤٤٣/", "port"),
        ("https:///hook", "host"),
        ("https://./", "host"),
        ("https://a..b/", "host"),
        ("https://-a.example/", "host"),
        ("https://exa mple.com/", "host"),
        ("https://exa\nmple.com/", "host"),
        ("https://exa\tmple.com/", "host"),
        ("https://example.com\0.evil/", "host"),
        ("https://%65xample.com/", "host"),
        (f"https://{'a' * 64}.example/", "host"),
        (f"https://{'a.' * 130}example/", "host"),
        ("https://ex\u00adample.com/", "ASCII"),
        ("https://[::1/", "host"),
        ("https://[fe80::1%eth0]/", "without a zone"),
        ("https://[fe80::1%25eth0]/", "without a zone"),
        ("https://[8.8.8.8]/", "IPv6"),
        ("https://[v1.x]/", "IPv6"),
        # The spellings of 127.0.0.1 and others that C libraries take.
        ("https://2130706433/", "four decimal numbers"),
        ("https://127.1/", "four decimal numbers"),
        ("https://0x7f.1/", "four decimal numbers"),
        ("https://0x7f000001/", "four decimal numbers"),
        ("https://0177.0.0.1/", "four decimal numbers"),
        ("https://017700000001/", "four decimal numbers"),
        ("https://127.0.0.1.5/", "four decimal numbers"),
        ("https://256.0.0.1/", "four decimal numbers"),
        ("https://127.0.0.0x1/", "four decimal numbers"),
        ("https://a.0x/", "four decimal numbers"),
        ("https://\uff11\uff12\uff17.0.0.1/", "not public"),
        ("https://127。0。0。1/", "not public"),
        ("https://localhost/", "not public"),
        ("https://LOCALHOST./", "not public"),
        ("https://x.localhost/", "not public"),
        ("https://" + "a" * MAX_URL_CHARACTERS, "longer"),
    ],
)
def test_a_url_that_could_mean_something_else_is_refused_with_a_reason(url: str, said: str) -> None:
    refusal = Guard().check_url(url)
    assert refusal is not None
    assert said in refusal
    assert "secret" not in refusal


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,20}(:[0-9]{1,6})?(/.{0,20})?", fullmatch=True))
def test_any_text_is_a_url_without_line_ends_or_refused(text: str) -> None:
    try:
        parsed = parse_url(text)
    except BadUrl:
        return
    for part in (parsed.authority, parsed.path):
        assert part.isascii()
        assert part.isprintable()
        assert " " not in part


_PIECES = st.sampled_from(
    [
        "a",
        "example.com",
        ".",
        ":",
        "@",
        "/",
        "\\",
        "?",
        "#",
        "[",
        "]",
        "::1",
        "443",
        "80",
        "%",
        "%40",
        "127.0.0.1",
        "0x7f",
    ]
)


@settings(max_examples=500)
@given(st.lists(_PIECES, max_size=8).map("".join).map("https://{}".format))
def test_other_parsers_find_the_same_host_and_port_in_a_url_that_is_taken(url: str) -> None:
    try:
        parsed = parse_url(url)
    except BadUrl:
        return
    ours = (parsed.host, parsed.port)
    for host, port in ((urlsplit(url).hostname, urlsplit(url).port or 443), (URL(url).raw_host, URL(url).port)):
        assert ((host or "").removesuffix("."), port) == ours


def test_ports_can_be_denied() -> None:
    guard = Guard(deny_ports=[25, 443])
    assert "port 25" in (guard.check_url("https://example.com:25/") or "")
    assert "port 443" in (guard.check_url("https://example.com/") or "")
    assert guard.check_url("https://example.com:8443/") is None


def test_an_allowed_network_may_be_called_by_http_and_no_other_one() -> None:
    guard = Guard(allow=[ip_network("10.8.0.0/16"), ip_network("127.0.0.0/8")])
    assert guard.check_url("http://10.8.1.1:3000/hook") is None
    assert guard.check_url("https://10.8.1.1/") is None
    assert guard.check_url("http://localhost/") is None
    assert guard.check_url("http://hooks.internal/") is None  # its addresses decide
    assert "not public" in (guard.check_url("http://10.9.1.1/") or "")
    assert "https://" in (guard.check_url("http://8.8.8.8/") or "")
    assert "not public" in (guard.check_url("https://[64:ff9b::10.8.1.1]/") or "")


# Connections


def found(*addresses: str, scope: int = 0) -> resolver.GetAddressInfo:
    """Return a resolver that finds these addresses for every name."""

    def get(host: str, port: int) -> Sequence[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, scope))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    return get


async def connected(guard: Guard, url: str = "https://receiver.example/") -> tuple[str, int]:
    """Connect, and return the address at the other end."""
    connection = await guard.connect(guard.parse(url), lambda: HttpConnection(on_lost=lambda _: None), owner="one")
    peer: tuple[str, int] = connection._transport.get_extra_info("peername")
    assert guard.open_connections == 1
    connection.end(BrokenExchange(""))
    await connection.lost
    await asyncio.sleep(0)
    assert guard.open_connections == 0
    return peer


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_goes_to_an_address_of_the_resolver(loop: str) -> None:
    async def story() -> None:
        async with raw_server(answer(200)) as receiver:
            port = int(receiver.base_url.rpartition(":")[2])
            guard = Guard(allow=[ip_network("127.0.0.0/8")], get_address_info=found("127.0.0.1"))
            assert await connected(guard, f"http://receiver.example:{port}/") == ("127.0.0.1", port)

    run(story(), loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_next_address_is_tried_where_one_does_not_answer(loop: str) -> None:
    async def story() -> None:
        async with raw_server(answer(200)) as receiver:
            port = int(receiver.base_url.rpartition(":")[2])
            guard = Guard(allow=[ip_network("127.0.0.0/8")], get_address_info=found("127.0.0.9", "127.0.0.1"))
            assert await connected(guard, f"http://receiver.example:{port}/") == ("127.0.0.1", port)

    run(story(), loop=loop)


@pytest.mark.parametrize(
    "addresses", [("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8"), ("2606::1", "::1"), ("8.8.8.8", "::ffff:127.0.0.1")]
)
async def test_one_private_address_among_public_ones_refuses_them_all(addresses: Sequence[str]) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        await connected(Guard(get_address_info=found(*addresses)))


async def test_a_name_without_addresses_is_refused() -> None:
    with pytest.raises(AddressRefused, match="no address"):
        await connected(Guard(get_address_info=found()))


async def test_an_address_with_a_zone_is_refused() -> None:
    with pytest.raises(AddressRefused):
        await connected(Guard(allow=[ip_network("fe80::/10")], get_address_info=found("fe80::1", scope=2)))


async def test_http_goes_to_allowed_networks_only() -> None:
    guard = Guard(allow=[ip_network("127.0.0.0/8")], get_address_info=found("8.8.8.8"))
    with pytest.raises(AddressRefused):
        await connected(guard, "http://receiver.example/")
    both = Guard(allow=[ip_network("127.0.0.0/8")], get_address_info=found("127.0.0.1", "::1"))
    with pytest.raises(AddressRefused):
        await connected(both, "http://localhost/")


async def test_a_connection_that_ends_elsewhere_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answer(200)) as receiver:
        port = int(receiver.base_url.rpartition(":")[2])

        async def redirected(*_: object, **__: object) -> socket.socket:
            return socket.create_connection(("127.0.0.1", port))  # as a rule of a firewall might do

        monkeypatch.setattr("aiohappyeyeballs.start_connection", redirected)
        with pytest.raises(AddressRefused, match="another address"):
            await connected(Guard(get_address_info=found("8.8.8.8")))
        assert receiver.requests == []


# Look-ups


async def test_one_look_up_of_a_name_runs_at_a_time_and_all_its_callers_get_the_answer() -> None:
    calls, go = [], threading.Event()

    def get(host: str, port: int) -> Sequence[Any]:
        calls.append((host, port))
        go.wait(10)
        return found("8.8.8.8")(host, port)

    names = Resolver(get)
    waiting = [asyncio.create_task(names.resolve("a.example", 443, owner="one")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # a caller that gave up takes the answer from none of the others
    other = asyncio.create_task(names.resolve("b.example", 443, owner="one"))
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(*waiting, other, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result[0][4][0] for result in results[1:] if not isinstance(result, BaseException)] == ["8.8.8.8"] * 3
    assert sorted(calls) == [("a.example", 443), ("b.example", 443)]
    await names.resolve("a.example", 443, owner="one")
    assert len(calls) == 3  # nothing is kept from one look-up to the next


async def test_names_that_do_not_answer_hold_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def get(host: str, port: int) -> Sequence[Any]:
        if host.startswith("dead"):
            go.wait(10)
        return found("8.8.8.8")(host, port)

    names = Resolver(get)
    dead = [
        asyncio.create_task(names.resolve(f"dead{number}.example", 443, owner=f"{number // 4}")) for number in range(50)
    ]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(names.resolve("alive.example", 443, owner="one"), 5)
    assert not any(task.done() for task in dead)
    go.set()
    await asyncio.gather(*dead)


async def test_look_ups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MAX_LOOK_UPS", 2)
    running, seen, lock, pair = set(), [], threading.Lock(), threading.Barrier(2)

    def get(host: str, port: int) -> Sequence[Any]:
        with lock:
            running.add(host)
            seen.append(len(running))
        pair.wait(10)
        with lock:
            running.remove(host)
        return []

    names = Resolver(get)
    await asyncio.gather(*(names.resolve(f"{number}.example", 443, owner="one") for number in range(10)))
    assert max(seen) == 2


async def test_an_account_whose_names_do_not_answer_leaves_look_ups_to_the_others() -> None:
    go, running, lock = threading.Event(), set(), threading.Lock()

    def get(host: str, port: int) -> Sequence[Any]:
        if host.startswith("slow"):
            with lock:
                running.add(host)
            go.wait(10)
        return found("8.8.8.8")(host, port)

    names = Resolver(get)
    slow = [
        asyncio.create_task(names.resolve(f"slow{number}.example", 443, owner="greedy"))
        for number in range(resolver.MAX_LOOK_UPS + 50)
    ]
    own = asyncio.create_task(names.resolve("quick.example", 443, owner="greedy"))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(names.resolve("quick.example", 443, owner="modest"), 5)
    assert len(running) <= resolver.MAX_OF_OWNER
    assert not own.done()
    for task in slow[-50:]:
        task.cancel()
    go.set()
    results = await asyncio.gather(*slow, own, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 50
    assert await names.resolve("quick.example", 443, owner="greedy")
    await asyncio.sleep(0.01)
    assert not names._owners  # an account without look-ups takes no memory


async def test_a_failed_look_up_raises_for_each_caller() -> None:
    def get(host: str, port: int) -> Sequence[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    names = Resolver(get)
    results = await asyncio.gather(
        *(names.resolve("a.example", 443, owner="one") for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, socket.gaierror) for result in results)


def test_the_limit_of_a_url_is_the_documented_one() -> None:
    assert guarded_url.MAX_URL_CHARACTERS == 2048

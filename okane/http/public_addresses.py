"""The IP addresses of the public internet, by the registries of IANA. Pure.

`is_global` of the standard library is not enough: it varies with the version of Python, and passes multicast, site-local and
v4-compatible addresses, and the IPv6 forms of private IPv4 addresses (NAT64, 6to4).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# The special-purpose registry of IPv4 and the blocks that are no unicast. Three anycast services in it are global, and no
# client of ours runs them.
_SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to this machine
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT; inside of a cloud also services of the cloud
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: the metadata services of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is a metadata service
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
        ),
    )
)

# 168.63.129.16 is a public address, but on every machine of Azure it is the platform's own agent.
_PLATFORM_V4 = frozenset({IPv4Address("168.63.129.16")})

# All global unicast addresses of IPv6 are in here. So site-local (fec0::/10), unique local (fc00::/7: also the IPv6 metadata
# service of AWS), link-local, multicast, the local NAT64 (64:ff9b:1::/48) and all forms that are not unwrapped never pass.
_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo (2001::/32), ORCHID, benchmarks
            "2001:db8::/32",
            "2620:4f:8000::/48",
            "3ffe::/16",  # the former 6bone
            "3fff::/20",
        ),
    )
)
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # in bits 64 to 95: a tunnel to the IPv4 address after it


def parse_address(text: str) -> Address | None:
    """Return the address that the text is, or None. A v4-mapped one (`::ffff:192.0.2.1`) is returned as IPv4.

    An address with a zone (`fe80::1%eth0`) is none: no public address needs one.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def is_public(address: Address) -> bool:
    """Return True for a unicast address of the public internet, also after unwrapping the IPv4 address in an IPv6 one."""
    if isinstance(address, IPv4Address):
        return _is_public_v4(address)
    inner = _wrapped_v4(address)
    if inner is not None and not _is_public_v4(inner):
        return False
    if address in _NAT64 or address in _COMPATIBLE or address.ipv4_mapped is not None:
        return inner is not None
    return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


def _is_public_v4(address: IPv4Address) -> bool:
    # The second half of the condition is for a block that Python learns of before this table does.
    return not any(address in network for network in _SPECIAL_V4) and address not in _PLATFORM_V4 and address.is_global


def _wrapped_v4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway would connect to instead, if the form has one."""
    value = int(address)
    if address.ipv4_mapped is not None or address in _COMPATIBLE or address in _NAT64:
        return IPv4Address(value & 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(value >> 80 & 0xFFFF_FFFF)
    if value >> 32 & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(value & 0xFFFF_FFFF)
    return None
